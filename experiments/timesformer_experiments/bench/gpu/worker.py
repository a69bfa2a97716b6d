"""The process that measures: checks, ceilings, the requested slices, and the files made from the record."""

from __future__ import annotations

from collections.abc import Callable

from timesformer.errors import InputError
from timesformer_experiments.bench.gpu import ceilings, checks, largest, models, output, say, steps
from timesformer_experiments.bench.gpu.bench import Bench, Options
from timesformer_experiments.bench.gpu.providers import FLEX, PROVIDERS
from timesformer_experiments.bench.gpu.subjects import VARIANTS

PROVIDER_NAMES = (*PROVIDERS, FLEX.name, *VARIANTS)

SLICES: dict[str, Callable[[Bench], None]] = {
    "checks": lambda bench: None,
    "ceilings": lambda bench: None,
    "kernels": steps.kernels,
    "flex": steps.flex,
    "blocks": models.blocks,
    "models": models.models,
    "largest": largest.largest,
    "report": lambda bench: None,
}


def run(options: Options) -> bool:
    """Run the requested measurements; return False if a check failed and nothing was timed.

    Raises:
        ContextLost: the device no longer responds; the record shows which measurement failed.
    """
    if options.only == ("report",):
        output.write(options.out)
        return True
    unknown = [name for name in options.providers if name not in PROVIDER_NAMES]
    if unknown:
        raise InputError(f"--providers {unknown[0]}: expected some of {', '.join(PROVIDER_NAMES)}")
    bench = Bench(options)
    say(f"{bench.environment['device_name']} ({bench.device.type}), torch {bench.environment['torch']}")
    try:
        if not checks.ensure(bench):
            return False
        ceilings.ensure(bench)
        for name in options.only:
            SLICES[name](bench)
    finally:
        output.write(options.out)
    if bench.left:
        say(f"time is up: {bench.left} measurements are left; repeat the command to continue")
    return True
