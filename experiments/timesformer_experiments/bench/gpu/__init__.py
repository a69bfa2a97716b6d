"""Attention kernels, blocks and whole models on one device against their peers: `timesformer bench --only …`, or
`python -m timesformer_experiments.bench.gpu` on a machine that has torch, triton, einops and numpy alone.

Everything else is optional: `transformers` (a peer) and `matplotlib` (pictures) are named where they are missing.
"""

import sys

SLICES = ("checks", "ceilings", "kernels", "flex", "blocks", "models", "largest", "report")
"""What `--only` takes.  Each slice runs the checks and the ceilings first; `report` writes the files anew."""


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)
