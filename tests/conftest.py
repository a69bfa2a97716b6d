"""Shared set-up: small thread counts, and `tests/` importable for helpers such as `attention.custom`."""

import sys
from pathlib import Path

import matplotlib as mpl
import torch

sys.path.insert(0, str(Path(__file__).parent))

mpl.use("Agg")
torch.set_num_threads(1)
