"""`python -m timesformer_experiments.bench.gpu --only kernels --out DIR`: see `--help`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from timesformer_experiments.bench.gpu import SLICES, say

NAMES = ("out", "device", "minutes", "dtype", "steps", "grids", "batches", "providers", "schemes", "retry", "run")
"""Fields of the options that are taken from the command line as they are."""


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    made = argparse.ArgumentParser(prog="python -m timesformer_experiments.bench.gpu", description=__doc__)
    made.add_argument("--only", type=_words, required=True, help=f"slices, comma between: {', '.join(SLICES)}")
    made.add_argument("--out", type=Path, default=Path("results/bench"), help="folder of record and files")
    made.add_argument("--device", default="auto", choices=("auto", "cuda", "cpu"))
    made.add_argument("--size", default="full", choices=("full", "tiny"), help="tiny: a proof that everything runs")
    made.add_argument("--minutes", type=float, default=8.0, help="begin nothing that would end later")
    made.add_argument("--dtype", default="", choices=("", "bf16", "fp16", "fp32"), help="default: bf16, on a CPU fp32")
    made.add_argument("--steps", type=_words, default=(), help="e.g. time,space")
    made.add_argument("--grids", type=_grids, default=(), help="frames x rows x columns of patches, e.g. 8x14x14")
    made.add_argument("--batches", type=_numbers, default=(), help="clips, e.g. 32,8")
    made.add_argument("--providers", type=_words, default=(), help="e.g. ours,sdpa_flash or ours_triton,transformers")
    made.add_argument("--schemes", type=_words, default=(), help="e.g. divided,joint")
    made.add_argument("--retry", action="store_true", help="measure again what failed")
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
    """Exit code 0: done, or time is up; 1: a check failed; 2: bad usage."""
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
    """Measures in this process."""
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
        say(f"the device answers no more: {error}")
        return LOST
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
