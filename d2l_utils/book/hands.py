"""net_in_hands(): a stored net to play with. With a kernel torch computes; in the built book it is web/hands.js."""

import contextlib

from IPython.display import HTML, display

from .. import plots
from ..data import fashion_mnist
from ..probes import blocks_of, lesion, responses
from . import building, fill
from .explorer import explore
from .records import stored


def ask(net, X, off=(), factor=1.0):
    """The classes' shares for a picture X (1, 1, H, W), and each block's output (C, H, W), by name: without the
    branches of the blocks `off`, every shortcut times `factor`."""
    blocks = blocks_of(net)
    with lesion(net, *off), contextlib.ExitStack() as hooks:
        for block in blocks.values():
            hooks.enter_context(block.downsample.register_forward_hook(lambda module, X, Y: factor * Y))
        seen = responses(net, X, [*blocks, "fc"], train=False)
    return seen["fc"][1][0].softmax(0), {name: seen[name][1][0] for name in blocks}


def net_in_hands(name="fashion_mnist_residual20"):
    """Pick a picture, switch blocks' branches off, scale every shortcut: the answer and each block's maps change at
    once. `name` is a stored residual net; the built book has the default one, and there you can draw."""
    def in_hands(picture, shortcuts, **branches):
        off = [block for block, branch in branches.items() if branch == "off"]
        shares, maps = ask(net, data.X_test[picture:picture + 1], off, shortcuts)
        tiles = {block: Y.sqrt().unflatten(0, (4, -1)).permute(0, 2, 1, 3).flatten(2).flatten(0, 1).numpy()
                 for block, Y in maps.items()}                                         # (4 H, C/4 W)
        bars, ax = plots.figure(3.5, 2.4)
        ax.barh(data.classes, shares.tolist(), color=plots.RESIDUAL)
        ax.set(xlim=(0, 1), xlabel="share")
        return [bars, *plots.pictures([data.X_test[picture, 0].numpy(), *tiles.values()], ["picture", *tiles])], (
            f"Picture {picture}, {', '.join(off) or 'nothing'} off, shortcuts x {shortcuts}: "
            f"{data.classes[shares.argmax()]}, {shares.max():.1%}.")

    if building():
        display(HTML(fill("hands")))
    else:
        net, data = stored(name), fashion_mnist(device="cpu")
        explore(in_hands, start={"shortcuts": 1}, picture=range(20), shortcuts=[0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5],
                **{block: ["on", "off"] for block in blocks_of(net)})
