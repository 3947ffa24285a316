"""`make web`: compile net.c, put the module into trainer.js as text, and write pictures.js and residual20.js.

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
SHOWN = 7                       # test pictures beside the net in the reader's hands: the module computes eight at once
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


def text(array):
    """The bytes of an array, compressed, as base64."""
    return base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()


def write_pictures():
    """pictures.js: the first training pictures at 14x14, every byte, compressed; and their labels, a digit each."""
    import d2l_utils as d2l
    data = d2l.fashion_mnist(size=14, device="cpu")
    pixels = text(data.X_train[:PICTURES].numpy())
    labels = "".join(map(str, data.y_train[:PICTURES].tolist()))
    (HERE / "pictures.js").write_text(
        f"// Fashion-MNIST (Xiao et al. 2017, MIT licence): the first {PICTURES} training pictures at 14x14, zlib.\n"
        f'globalThis.trainerPictures = {{labels: "{labels}", pixels: "{pixels}"}};\n', encoding="utf-8")


def parts(net):
    """The parameters of a 6n+2 net, and its running statistics, in the order in which the module has them."""
    modules = list(net.modules())
    kernels = [m.weight for m in modules if hasattr(m, "kernel_size") and hasattr(m, "weight")]
    norms = [m for m in modules if hasattr(m, "running_mean")]
    parameters = [*kernels, net.fc.weight, *(p for m in norms for p in (m.weight, m.bias)), net.fc.bias]
    return parameters, [s for m in norms for s in (m.running_mean, m.running_var)]


def half(net):
    """Parameters and statistics of a net as float16, little-endian."""
    import numpy as np
    return np.concatenate([part.detach().numpy().ravel() for group in parts(net) for part in group]).astype("<f2")


def shown(data):
    """The first test picture of each of the last seven classes, as hands.html names them."""
    return data.X_test[[int((data.y_test == label).nonzero()[0, 0]) for label in range(10 - SHOWN, 10)]].numpy()


def write_net():
    """residual20.js: the stored residual-20, 16 bits a number, all upper bytes before all lower ones, which compresses
    better; and the pictures that are shown beside it."""
    import numpy as np

    import d2l_utils as d2l
    data, net = d2l.fashion_mnist(device="cpu"), d2l.stored("fashion_mnist_residual20")
    weights = text(half(net).view(np.uint8).reshape(-1, 2)[:, ::-1].T)
    (HERE / "residual20.js").write_text(
        "// d2l_utils/recorded/fashion_mnist_residual20.safetensors in 16 bits, and test pictures of Fashion-MNIST\n"
        "// (Xiao et al. 2017, MIT licence), zlib.\n"
        f'globalThis.residual20 = {{pixels: "{text(shown(data))}", weights: "{weights}"}};\n', encoding="utf-8")


if __name__ == "__main__":
    embed(compiled())
    write_pictures()
    write_net()
