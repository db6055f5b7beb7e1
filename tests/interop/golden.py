"""Writes golden_logits.json, which `make test` compares our models with: the first logits of timm's, on parameters of drawn.py.

PYTHONPATH=tests .venv-interop/bin/python tests/interop/golden.py
"""

import json
from pathlib import Path

from interop.drawn import MODELS
from interop.timm_models import logits, make

FILE = Path(__file__).parents[1] / "checkpoints" / "golden_logits.json"

if __name__ == "__main__":
    FILE.write_text(json.dumps({name: logits(make(name, "tanh"))[:, :8].tolist() for name in MODELS}, indent=1) + "\n")
