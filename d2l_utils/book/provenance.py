"""Where a result comes from: the commit, the processor, and the entry in NAME.json that says so."""

import datetime
import platform
import re
import subprocess
import sys
from pathlib import Path

import torch

from ..engine.hardware import choose_device


def commit():
    """The commit of this source tree, with "+changes" where files differ from it; "unknown" where it is in no
    repository, or in one that is another's."""
    def git(*words):
        return subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        head = git("rev-parse", "HEAD").stdout.strip()
        return head + "+changes" * bool(git("status", "--porcelain", "--untracked-files=no", "--", ":(top)*.py").stdout)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor():
    """The processor's name, or the GPU's where that is what computes."""
    if choose_device().type == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall("^model name\\s*: (.*)", cpuinfo.read_text(), re.M) if cpuinfo.exists() else []
    return f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()


def entry(data_sha256, threads):
    """What NAME.json says of this invocation of a script; the grid counts its `runs` and `seconds`."""
    return {"command": " ".join([Path(sys.executable).name, *sys.argv]), "commit": commit(),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "torch": torch.__version__, "processor": processor(), "threads": threads or torch.get_num_threads(),
            "seconds": 0, "data_sha256": data_sha256, "runs": 0}
