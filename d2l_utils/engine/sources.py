"""Where pictures and published weights come from: files that are found, verified by their SHA-256, or downloaded, whole
or not at all; what goes wrong is one sentence that says what to do."""

import contextlib
import gzip
import hashlib
import io
import os
import tempfile
import zlib
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

BUNDLED = Path(__file__).parents[1] / "bundled" / "fashion_mnist_12k.npz"
BUNDLED_SHA256 = "405b4147806b960324b98d4f2cce8b7543ce4c55be70388f3a1dbfbe052b219e"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FILES = {  # the original files and the SHA-256 of their content, unzipped (mirrors zip it differently)
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def cache_folder():
    """Where downloads are kept: `$XDG_CACHE_HOME/d2l_utils`, by default `~/.cache/d2l_utils`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "d2l_utils")


def find(names, *folders):
    """The first of `folders` that holds all files `names`, or None. A folder that cannot be read holds none."""
    return next((folder for folder in folders if all(os.path.isfile(Path(folder, name)) for name in names)), None)


def verified(path, sha256, remedy):
    """The bytes of a file, unzipped if it is a .gz; ValueError with both checksums and the remedy unless its SHA-256
    begins with `sha256`."""
    content = Path(path).read_bytes()
    if Path(path).suffix == ".gz":
        with contextlib.suppress(OSError, EOFError, zlib.error):    # not unzippable: its checksum is wrong then
            content = gzip.decompress(content)
    found = hashlib.sha256(content).hexdigest()
    if not found.startswith(sha256):
        raise ValueError(f"{path} is damaged: expected SHA-256 {sha256}, found {found} ({len(content):,} bytes); "
                         f"{remedy}")
    return content


def download(fetch, names, folder, what, choices):
    """The folder with all files `names`: as it is, or after `fetch(empty folder)` has got them all, one process at a
    time. Raises ConnectionError that says `what` failed, why, and the `choices`."""
    if find(names, folder) is None:
        try:
            if folder.parts[0].startswith("~"):
                raise OSError("there is no home folder to keep it in")
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"), tempfile.TemporaryDirectory(dir=folder) as part:
                if find(names, folder) is None:               # or another process was faster
                    fetch(Path(part))
                    for name in names:
                        os.replace(next(Path(part).rglob(name), Path(part, name)), folder / name)
        except (OSError, RuntimeError, HTTPException) as error:
            reason = " ".join(str(error).split())
            raise ConnectionError(f"{what} could not be downloaded to {folder} ({reason}). {choices}") from error
    return folder


def find_full():
    """The folder of the full set: `$D2L_DATA`, Debian's package, the user's cache, or a fresh download."""
    def fetch(folder):
        from torchvision.datasets import FashionMNIST as Published
        Published(folder, download=True)

    named, names = os.environ.get("D2L_DATA"), ", ".join(FILES)
    there = find(FILES, Path(named) if named else DEBIAN)
    if named and not there:
        raise FileNotFoundError(f"D2L_DATA must be a folder with {names}, got {named!r}")
    return there or download(
        fetch, FILES, cache_folder(), "Fashion-MNIST", f"Use the bundled subset (full=False), or put {names} into a "
        "folder and set D2L_DATA to it, or on Debian and Ubuntu: apt-get install dataset-fashion-mnist.")


def read_full():
    """The full set, 60,000 and 10,000 images, as four uint8 arrays."""
    folder, remedy = find_full(), "remove it, then run again to use another source ($D2L_DATA, Debian, a download)"
    contents = {name: verified(folder / name, sha256, remedy) for name, sha256 in FILES.items()}
    return [np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28) if "images" in name
            else np.frombuffer(content, np.uint8, offset=8) for name, content in contents.items()]


def read_bundled():
    """The bundled subset, 10,000 and 2,000 images, as four uint8 arrays."""
    with np.load(io.BytesIO(verified(BUNDLED, BUNDLED_SHA256, "install d2l_utils again"))) as file:
        return [file[name] for name in ("X_train", "y_train", "X_test", "y_test")]


def published_weights(name, generation):
    """torchvision's entry for the weights of its net `name` in a generation, "V1" or "V2". Raises ValueError."""
    from torchvision.models import get_model_weights
    entries = {entry.name.split("_")[1]: entry for entry in get_model_weights(name)}
    if generation not in entries:
        raise ValueError(f"weights must be {' or '.join(map(repr, entries))} for {name}, got {generation!r}")
    return entries[generation]


def published_state(url):
    """The state dict at torchvision's `url`, from torch's cache or downloaded into it; the file's name ends in the
    first digits of its SHA-256. Raises ValueError for a damaged file, ConnectionError offline."""
    folder, name = Path(torch.hub.get_dir(), "checkpoints"), url.rsplit("/", 1)[1]
    digits = Path(name).stem.rsplit("-", 1)[1]
    download(lambda part: torch.hub.download_url_to_file(url, str(part / name), hash_prefix=digits), [name], folder,
             name, f"Use pretrained=False, or put the file from {url} at {folder / name}.")
    content = verified(folder / name, digits, "remove it, then run again to download it")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
