"""Benchmark of attention kernels, blocks and models: `python -m timesformer_experiments.bench.gpu --only kernels`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from timesformer_experiments.bench.gpu import SLICES, say

NAMES = ("out", "device", "minutes", "dtype", "steps", "grids", "batches", "providers", "schemes", "retry", "run")
"""Fields of the options that are copied from the command line."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    made = argparse.ArgumentParser(prog="python -m timesformer_experiments.bench.gpu", description=__doc__)
    made.add_argument("--only", type=_words, required=True, help=f"slices, separated by commas: {', '.join(SLICES)}")
    made.add_argument("--out", type=Path, default=Path("results/bench"), help="folder for the record and its files")
    made.add_argument("--device", default="auto", choices=("auto", "cuda", "cpu"))
    made.add_argument("--size", default="full", choices=("full", "tiny"), help="tiny: check that everything runs")
    made.add_argument(
        "--minutes", type=float, default=9.0, help="time limit; start no measurement that would exceed it"
    )
    made.add_argument("--dtype", default="", choices=("", "bf16", "fp16", "fp32"), help="default: bf16; on a CPU, fp32")
    made.add_argument("--steps", type=_words, default=(), help="e.g. time,space")
    made.add_argument("--grids", type=_grids, default=(), help="frames x rows x columns of patches, e.g. 8x14x14")
    made.add_argument("--batches", type=_numbers, default=(), help="clips, e.g. 32,8")
    made.add_argument("--providers", type=_words, default=(), help="e.g. ours,sdpa_flash or ours_triton,transformers")
    made.add_argument("--schemes", type=_words, default=(), help="e.g. divided,joint")
    made.add_argument("--retry", action="store_true", help="repeat failed measurements")
    made.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    made.add_argument("--run", default="", help=argparse.SUPPRESS)
    return made


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in _words(text))


def _grids(text: str) -> tuple[tuple[int, int, int], ...]:
    found = []
    for word in _words(text):
        t, h, w = (int(length) for length in word.split("x"))
        found.append((t, h, w))
    return tuple(found)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done or time is up, 1 a check failed, 2 bad usage."""
    arguments = sys.argv[1:] if arguments is None else arguments
    given = parser().parse_args(arguments)
    unknown = sorted(set(given.only) - set(SLICES))
    if unknown or not given.only:
        parser().error(f"--only {','.join(unknown)}: expected some of {', '.join(SLICES)}")
    if not given.worker and given.only != ("report",):
        from timesformer_experiments.bench.gpu.supervise import supervise

        return supervise(arguments, given.minutes, given.out)
    return work(given)


def work(given: argparse.Namespace) -> int:
    """Measure in this process and return the exit code."""
    from timesformer.errors import InputError
    from timesformer_experiments.bench.gpu.bench import Options
    from timesformer_experiments.bench.gpu.machine import ContextLost
    from timesformer_experiments.bench.gpu.sizes import SIZES
    from timesformer_experiments.bench.gpu.supervise import LOST
    from timesformer_experiments.bench.gpu.worker import run

    try:
        passed = run(Options(given.only, sizes=SIZES[given.size], **{name: getattr(given, name) for name in NAMES}))
    except InputError as error:
        say(f"error: {error}")
        return 2
    except ContextLost as error:
        say(f"the device no longer responds: {error}")
        return LOST
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
