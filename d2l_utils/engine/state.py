"""What training changes for a while and gives back: modes, memory layout, torch's random state."""

import threading
from contextlib import ExitStack, contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode

DRAWING = threading.RLock()         # one run at a time draws from torch's global generators


@contextmanager
def modes_kept(net):
    """Afterwards each of the net's modules is in the mode, train or eval, that it is in now."""
    modes = {module: module.training for module in net.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def eval_mode(net):
    """The net in eval mode; afterwards each of its modules is in the mode it was in."""
    with modes_kept(net):
        net.eval()
        yield


def tensors(net):
    """The net's parameters and buffers by name."""
    return dict(net.named_parameters()) | dict(net.named_buffers())


@contextmanager
def training_form(net):
    """The net as fit trains it: in channels_last, modules of which no parameter is trained in eval mode, no gradients
    of earlier passes. Afterwards modes and strides are those it came with."""
    strides = {name: tensor.stride() for name, tensor in tensors(net).items()}
    with modes_kept(net):
        for module in net.modules():
            if {parameter.requires_grad for parameter in module.parameters()} == {False}:
                module.eval()
        net.zero_grad()
        net.to(memory_format=torch.channels_last)
        try:
            yield
        finally:
            for name, tensor in tensors(net).items():
                for part in (tensor, tensor.grad):
                    if part is not None and part.stride() != strides.get(name, part.stride()):
                        old = torch.empty_strided(part.shape, strides[name], dtype=part.dtype, device=part.device)
                        part.data = old.copy_(part.detach())


class FirstDraw(TorchDispatchMode):
    """Within it, before the first operation that draws from torch's global generators (dropout, say), these are seeded;
    `afterwards`, an ExitStack, gives other runs their turn and the generators their old state."""

    def __init__(self, afterwards, device, seed):
        super().__init__()
        self.afterwards, self.device, self.seed, self.drawn = afterwards, device, seed, False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        own = any(isinstance(value, torch.Generator) for value in [*args, *(kwargs or {}).values()])
        if torch.Tag.nondeterministic_seeded in function.tags and not own and not self.drawn:
            self.drawn = True
            self.afterwards.enter_context(DRAWING)
            self.afterwards.enter_context(torch.random.fork_rng([self.device] if self.device.type == "cuda" else []))
            torch.manual_seed(self.seed)
        return function(*args, **kwargs or {})


@contextmanager
def seeded_draws(device, seed):
    """Within it, what a net draws from torch's global generators follows from `seed`, and a net that draws nothing
    leaves them alone. Yields a function to call after the first step, when it is known whether the net draws: watching
    costs time."""
    with ExitStack() as afterwards, ExitStack() as watch:
        watch.enter_context(FirstDraw(afterwards, device, seed))
        yield watch.close
