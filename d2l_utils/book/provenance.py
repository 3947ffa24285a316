"""Where a result comes from: NAME.json, an entry for each time that a script added runs to NAME.csv."""

import datetime
import json
import platform
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch

from ..engine.files import whole
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
    names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines()
             if line.startswith("model name")] if cpuinfo.exists() else []
    return f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()


class Provenance:
    """NAME.json, a list of entries; `runs_there` runs are in NAME.csv already. begin() adds this invocation's entry,
    whose place in the list is `number`."""

    def __init__(self, path, runs_there):
        self.path, self.entries = path, json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        if not runs_there:                    # the CSV was moved away: a new one begins
            self.entries = [entry for entry in self.entries if not entry["runs"]]
        uncounted = runs_there - sum(entry["runs"] for entry in self.entries)
        self.mended = bool(self.entries) and uncounted > 0
        if self.mended:                       # killed after a run's rows were written, before it was counted
            self.entries[-1]["runs"] += uncounted

    def numbers(self, runs):
        """The entry of each of `runs` runs, in their order, as text; "nan" each where the counts cannot tell."""
        numbers = [str(number) for number, entry in enumerate(self.entries) for _ in range(entry["runs"])]
        return numbers if len(numbers) == runs else ["nan"] * runs

    def begin(self, data_sha256, threads):
        """Add and write the entry of this invocation; warn where other commits have made runs."""
        self.number, self.start, here = len(self.entries), time.perf_counter(), commit()
        if others := {entry["commit"] for entry in self.entries if entry["runs"]} - {here}:
            warnings.warn(f"{self.path.name}: rows of other commits are there already ({', '.join(sorted(others))})",
                          stacklevel=3)
        self.entries.append({
            "command": " ".join([Path(sys.executable).name, *sys.argv]), "commit": here,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "torch": torch.__version__, "processor": processor(), "threads": threads or torch.get_num_threads(),
            "seconds": 0, "data_sha256": data_sha256, "runs": 0})
        self.write()

    def add_run(self):
        entry = self.entries[self.number]
        entry["runs"] += 1
        entry["seconds"] = round(time.perf_counter() - self.start, 1)
        self.write()

    def write(self):
        with whole(self.path) as file:
            file.write(json.dumps(self.entries, indent=1).encode() + b"\n")
