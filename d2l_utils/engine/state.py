"""What training changes for a while and gives back: modes, memory layout, torch's random state; what probes copy."""

import copy
import threading
from contextlib import ExitStack, contextmanager
from functools import cache, partial

import torch
from torch.utils._python_dispatch import TorchDispatchMode

DRAWING = threading.RLock()         # one run at a time draws from torch's global generators


@contextmanager
def eval_mode(net, modules=None):
    """The net, or those `modules` of it, in eval mode; afterwards each module is in the mode that it was in."""
    modes = {module: module.training for module in net.modules()}
    try:
        for module in [net] if modules is None else modules:
            module.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def training_form(net):
    """The net as fit trains it: kernels in channels_last, frozen modules in eval mode, gradients of earlier passes
    gone. Afterwards modes and strides are those it came with."""
    kernels = [(parameter, parameter.data) for parameter in net.parameters() if parameter.dim() == 4]
    frozen = [module for module in net.modules() if {p.requires_grad for p in module.parameters()} == {False}]
    with eval_mode(net, frozen):
        net.zero_grad()
        try:
            for kernel, data in kernels:
                kernel.data = data.to(memory_format=torch.channels_last)
            yield
        finally:
            for kernel, data in kernels:
                kernel.data = data.copy_(kernel.data)
                if kernel.grad is not None:
                    kernel.grad = torch.empty_like(data).copy_(kernel.grad)


def choose(modules, names):
    """Those of `modules`, a dict, that are called `names`."""
    if unknown := [name for name in names if name not in modules]:
        raise ValueError(f"layer must be one of {', '.join(filter(None, modules))}, got {unknown[0]!r}")
    return {name: modules[name] for name in names}


def watched(net, train, names=()):
    """A copy of the net, and a dict that a pass through it fills with (input, output) of its modules `names`."""
    net, seen = copy.deepcopy(net).train(train), {}

    def note(name, module, inputs, output):
        seen[name] = inputs[0], output

    for name, module in choose(dict(net.named_modules()), names).items():
        module.register_forward_hook(partial(note, name))
    return net, seen


@contextmanager
def silenced(block, name, part):
    """Within it, the module of `block` that is called `part` gives zeros. A pass of the block, called `name`, that does
    not call it raises ValueError: nothing would be silenced."""
    calls = []

    def zeros(module, inputs, output):
        calls.append(module)
        return torch.zeros_like(output)

    def check(module, inputs, output):
        if not calls:
            raise ValueError(f"{name} must end its branch in its module {part!r}, which its forward never calls")

    with block.get_submodule(part).register_forward_hook(zeros), block.register_forward_hook(check):
        yield


class FirstDraw(TorchDispatchMode):
    """Calls `prepare` before an operation that draws from torch's global generators (dropout, say)."""

    def __init__(self, prepare):
        super().__init__()
        self.prepare = prepare

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        own = any(isinstance(value, torch.Generator) for value in [*args, *(kwargs or {}).values()])
        if torch.Tag.nondeterministic_seeded in function.tags and not own:
            self.prepare()
        return function(*args, **kwargs or {})


@contextmanager
def seeded_draws(device, seed):
    """Within it, what a net draws from torch's global generators follows from `seed`, and a net that draws nothing
    leaves them alone. Yields a function to call after the first step, when it is known whether the net draws: watching
    costs time."""
    with ExitStack() as afterwards, ExitStack() as watch:
        @cache
        def seed_once():
            afterwards.enter_context(DRAWING)                       # other runs that draw have to wait
            afterwards.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
            torch.manual_seed(seed)

        watch.enter_context(FirstDraw(seed_once))
        yield watch.close
