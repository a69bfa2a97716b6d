"""Shared set-up: small thread counts, helpers importable as `tests.…`, and Triton's
interpreter where there is no GPU."""

import os
import sys
from pathlib import Path

import matplotlib as mpl
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before any kernel is imported

sys.path.insert(0, str(Path(__file__).parents[1]))

mpl.use("Agg")
torch.set_num_threads(1)
