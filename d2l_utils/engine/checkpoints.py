"""The checkpoint file of a run: written whole or not at all, read back only into the same run."""

import hashlib
import io
import re
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist

from .distributed import exchange, rank, start_alike, world_size
from .files import whole


def digest(text):
    """Twelve letters that differ between texts."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def describe(settings, net, data, loss):
    """What decides a run's result: settings, net (modules and shapes, not the weights), data, loss, the number of
    processes, which parameters the run trains and which modules are in eval mode."""
    def listed(names):
        return f"{len(names)} ({digest(' '.join(names))})"

    name = re.sub(" at 0x[0-9a-fA-F]+", "", repr(loss))            # without addresses: the same in every process
    shapes = [(name, tuple(tensor.shape)) for name, tensor in net.state_dict().items()]
    return asdict(settings) | {
        "net": digest(f"{net}{shapes}"), "data": data.sha256(), "processes": world_size(), "loss": name,
        "trained parameters": listed([name for name, p in net.named_parameters() if p.requires_grad]),
        "modules in eval mode": listed([name for name, module in net.named_modules() if not module.training])}


class Checkpoint:
    """The file `path` of a run, as `describe` describes it; with path None nothing is loaded or saved."""

    def __init__(self, path, *run):
        self.path, self.run = path, {} if path is None and world_size() == 1 else describe(*run)

    def load(self, net, optimizer):
        """Restore net and optimiser, the same in all processes, and return the history's rows; where there is no file,
        start one, so that a path that cannot be written to is found out before any training."""
        there = self.path is not None and Path(self.path).exists()
        rows = self.read(net, optimizer) if there else []
        start_alike(self.run | {"epochs in the checkpoint": len(rows)}, net)
        if not there:
            self.save(net, optimizer, rows)
        return rows

    def read(self, net, optimizer):
        """Restore net and optimiser from the file, return its rows. ValueError, with net and file left as they were,
        where it is not a whole checkpoint or that of another run."""
        content = Path(self.path).read_bytes()
        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            run, rows, weights, momentum = (state[key] for key in ("run", "rows", "net", "optimizer"))
        except Exception as error:
            raise ValueError(f"checkpoint {str(self.path)!r} is no whole checkpoint of fit (truncated, or another "
                             "file): it is left as it is; remove it or name another path") from error
        for name, value in self.run.items():
            if run.get(name) != value:
                raise ValueError(f"checkpoint {str(self.path)!r} was made with {name}={run.get(name)!r}, "
                                 f"this call has {name}={value!r}: use the same {name} or another path")
        net.load_state_dict(weights)
        optimizer.load_state_dict({"state": momentum, "param_groups": optimizer.state_dict()["param_groups"]})
        return rows

    def save(self, net, optimizer, rows):
        """Write description, weights, momentum and rows, whose number is the epoch; schedule and random state follow
        from it. Process 0 writes, the others wait for it."""
        if self.path is not None and rank() == 0:
            with whole(self.path) as file:
                torch.save({"run": self.run, "rows": rows, "net": net.state_dict(),
                            "optimizer": optimizer.state_dict()["state"]}, file)
        exchange(dist.barrier)
