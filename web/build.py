"""`make web`: compile net.c, put the module into trainer.js as text, and write pictures.js.

The compiler comes from PyPI in the one version that tests/web.txt names: others give other bytes. It lives in
.venv/web, an environment of its own.
"""

import base64
import os
import re
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

HERE = Path(__file__).parent
COMPILER = HERE.parent / ".venv" / "web"
PICTURES = 2048
FLAGS = ["--target=wasm32-freestanding", "-std=c11", "-O3", "-msimd128", "-mbulk-memory", "-Wall", "-Wextra", "-Werror",
         "-fno-inline-functions",                          # but for those that say INLINE: a third smaller, as fast
         "-mllvm", "-disable-lsr",                         # loads keep their constant offsets: a tenth faster
         "-nostdlib", "-Wl,--no-entry", "-Wl,--export-dynamic", "-Wl,--strip-all", "-Wl,-z,stack-size=65536"]


def compiled(source=HERE / "net.c"):
    """The bytes of the WebAssembly module. Raises FileNotFoundError where the compiler is not installed."""
    if not (COMPILER / "ziglang").is_dir():
        raise FileNotFoundError(f"there is no compiler in {COMPILER}: run `make web` (it installs what tests/web.txt "
                                "names), or: python -m pip install --target .venv/web -r tests/web.txt")
    with tempfile.TemporaryDirectory() as folder:
        caches = {name: folder for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")}
        subprocess.run([sys.executable, "-m", "ziglang", "cc", *FLAGS, "-o", f"{folder}/net.wasm", str(source)],
                       env={**os.environ, **caches, "PYTHONPATH": str(COMPILER)}, check=True)
        return Path(folder, "net.wasm").read_bytes()


def committed():
    """The bytes of the module in trainer.js."""
    text = (HERE / "trainer.js").read_text(encoding="utf-8")
    return base64.b64decode(re.search(r'^const MODULE = "(.*)";$', text, re.MULTILINE)[1])


def embed(module):
    """Write the module's bytes into trainer.js."""
    text = (HERE / "trainer.js").read_text(encoding="utf-8")
    line = f'const MODULE = "{base64.b64encode(module).decode()}";'
    text = re.sub(r'^const MODULE = ".*";$', line, text, flags=re.MULTILINE)
    (HERE / "trainer.js").write_text(text, encoding="utf-8")


def write_pictures():
    """pictures.js: the first training pictures at 14x14, every byte, compressed; and their labels, a digit each."""
    import d2l_utils as d2l
    data = d2l.fashion_mnist(size=14, device="cpu")
    pixels = base64.b64encode(zlib.compress(data.X_train[:PICTURES].numpy().tobytes(), 9)).decode()
    labels = "".join(map(str, data.y_train[:PICTURES].tolist()))
    (HERE / "pictures.js").write_text(
        f"// Fashion-MNIST (Xiao et al. 2017, MIT licence): the first {PICTURES} training pictures at 14x14, zlib.\n"
        f'globalThis.trainerPictures = {{labels: "{labels}", pixels: "{pixels}"}};\n', encoding="utf-8")


if __name__ == "__main__":
    embed(compiled())
    write_pictures()
