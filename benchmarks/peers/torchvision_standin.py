"""A stand-in for torchvision, so that timm's models can be compared with ours where torchvision cannot be installed.

timm imports torchvision for data sets and image transforms, none of which is needed to build a model and to call it on an array.
But torchvision is compiled against one build of torch, and not every build has one. The names here exist to be imported; to use
one is an error that says so.
"""

import contextlib
import enum
import importlib.machinery
import importlib.util
import sys
import types

import torch


class StandIn:
    """A class of torchvision that is not there. timm derives classes from some, so that it must be a class."""

    def __init__(self, *args, **kwargs):
        raise NotImplementedError("This is a stand-in for a class of torchvision: install torchvision to use it.")


class FrozenBatchNorm2d(torch.nn.Module):
    """timm lists it among its norms and asks whether a module is one. No module here is."""

    def __init__(self, *args, **kwargs):
        raise NotImplementedError("This is a stand-in for a class of torchvision: install torchvision to use it.")


# torchvision's own names and values: timm makes tables of them when it is imported.
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
    """In its context, `import torchvision` finds the stand-in, unless there is a real one. For importing timm.

    Afterwards it is gone again, since transformers asks whether there is a torchvision, and would use it.
    `torchvision.models` stays missing: timm does without.
    """
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    for name, contents in MODULES.items():
        module = types.ModuleType(name, __doc__)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)  # or find_spec(name) raises
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
