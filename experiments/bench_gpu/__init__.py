"""Attention kernels, blocks and whole models on one device against their peers: `timesformer bench --only …`, or
`python -m experiments.bench_gpu` on a machine that has torch, triton, einops and numpy alone.

Everything else is optional: `transformers` (a peer) and `matplotlib` (pictures) are named where they are missing.
"""

import importlib.util
import sys
from pathlib import Path

SLICES = ("checks", "ceilings", "kernels", "flex", "blocks", "models", "largest", "report")
"""What `--only` takes.  Each slice runs the checks and the ceilings first; `report` writes the files anew."""


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


def use_checkout() -> None:
    """Makes `timesformer_kernels` importable from a checkout that is not installed, where it is the folder kernels/."""
    if importlib.util.find_spec("timesformer_kernels") is not None:
        return
    folder = Path(__file__).parents[2] / "kernels"
    spec = importlib.util.spec_from_file_location(
        "timesformer_kernels", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["timesformer_kernels"] = module
    spec.loader.exec_module(module)


use_checkout()
