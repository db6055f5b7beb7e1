"""A stand-in for torchvision, so that timm's models can be compared with ours where torchvision cannot be installed.

timm imports torchvision for data sets and image transforms. To build a model and call it on an array, none of these is needed.
But torchvision is compiled for one build of torch, and does not exist for every build. The names in this file exist only to be
imported: using one raises an error that says so.
"""

import contextlib
import enum
import importlib.machinery
import importlib.util
import sys
import types

import torch


class StandIn:
    """A stand-in for a class of torchvision. It is a class because timm derives classes from some of them."""

    def __init__(self, *args, **kwargs):
        raise NotImplementedError("This is a stand-in for a class of torchvision: install torchvision to use it.")


class FrozenBatchNorm2d(torch.nn.Module):
    """A stand-in for torchvision's norm, which timm lists among its norms to ask whether a module is one. No module is one."""

    def __init__(self, *args, **kwargs):
        raise NotImplementedError("This is a stand-in for a class of torchvision: install torchvision to use it.")


# The names and values are torchvision's own: timm makes tables of them when it is imported.
InterpolationMode = enum.Enum(
    "InterpolationMode", {mode.upper(): mode for mode in ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")}
)

MODULES = {
    "torchvision": {},
    "torchvision.datasets": dict.fromkeys(("CIFAR10", "CIFAR100", "FashionMNIST", "ImageFolder", "KMNIST", "MNIST"), StandIn),
    "torchvision.ops": {},
    "torchvision.ops.misc": {"FrozenBatchNorm2d": FrozenBatchNorm2d},
    "torchvision.transforms": {"ToTensor": StandIn},
    "torchvision.transforms.functional": {"InterpolationMode": InterpolationMode},
}


@contextlib.contextmanager
def standing_in():
    """Make `import torchvision` find the stand-in in this context, unless torchvision is installed. Import timm in it.

    The stand-in is removed on exit, because transformers would find it and use it. `torchvision.models` is missing, because timm
    does not need it.
    """
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    for name, contents in MODULES.items():
        module = types.ModuleType(name, __doc__)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)  # Without it, find_spec(name) raises.
        module.__path__ = []
        module.__dict__.update(contents)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    try:
        yield
    finally:
        for name in MODULES:
            del sys.modules[name]
