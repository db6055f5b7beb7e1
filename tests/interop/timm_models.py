"""timm's models, on parameters that drawn.py makes: an implementation that ours does not come from."""

import functools

import numpy as np
import torch
from interop.drawn import draw, images

from benchmarks.peers.torchvision_standin import standing_in

with standing_in():
    import timm

FORMS = {"tanh": functools.partial(torch.nn.GELU, approximate="tanh"), "exact": torch.nn.GELU}


def make(name: str, gelu: str) -> torch.nn.Module:
    """The model with GELU in one of FORMS; one without a GELU is what it is. Its parameters are drawn."""
    options = {} if name.startswith("resnet") else {"act_layer": FORMS[gelu]}
    model = timm.create_model(name, num_classes=1000, **options).eval()
    shapes = {key: tuple(x.shape) for key, x in model.state_dict().items()}
    model.load_state_dict({key: torch.from_numpy(x) for key, x in draw(shapes).items()})
    return model


def logits(model: torch.nn.Module) -> np.ndarray:
    """Float32 [2, 1000] on drawn.images()."""
    with torch.no_grad():
        return model(torch.from_numpy(images()).permute(0, 3, 1, 2)).numpy()
