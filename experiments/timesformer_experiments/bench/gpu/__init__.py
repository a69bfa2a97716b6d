"""Benchmark of attention kernels, blocks and whole models on one device against their peers.

Run `timesformer bench --only …`, or `python -m timesformer_experiments.bench.gpu` on a machine that has only torch,
triton, einops and numpy. `transformers` (a peer) and `matplotlib` (pictures) are optional; a message says if they are
missing.
"""

import sys

SLICES = ("checks", "ceilings", "targets", "tools", "kernels", "flex", "blocks", "models", "largest", "report")
"""Values of `--only`.  Each slice runs the checks and the ceilings first; `targets` measures what the targets are
compared with and nothing else, `tools` captures CUDA graphs and calls compute-sanitizer and a profiler; `report` writes
the files anew."""


def say(text: str) -> None:
    """Print a line on standard error."""
    print(text, file=sys.stderr, flush=True)
