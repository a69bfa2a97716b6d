"""The process that measures: a plan, checks, ceilings, the requested slices, and the files made from the record."""

from __future__ import annotations

import math
from collections.abc import Callable

from timesformer.errors import InputError
from timesformer_experiments.bench.gpu import ceilings, checks, largest, models, output, say, steps
from timesformer_experiments.bench.gpu.bench import Bench, Options
from timesformer_experiments.bench.gpu.decide import measure_targets
from timesformer_experiments.bench.gpu.providers import FLEX, PROVIDERS
from timesformer_experiments.bench.gpu.subjects import VARIANTS
from timesformer_experiments.bench.gpu.tools import tools

PROVIDER_NAMES = (*PROVIDERS, FLEX.name, *VARIANTS)

SLICES: dict[str, Callable[[Bench], None]] = {
    "checks": lambda bench: None,
    "ceilings": lambda bench: None,
    "targets": measure_targets,
    "tools": tools,
    "kernels": steps.kernels,
    "flex": steps.flex,
    "blocks": models.blocks,
    "models": models.models,
    "largest": largest.largest,
    "report": lambda bench: None,
}


def run(options: Options) -> bool:
    """Run the requested measurements after a plan; return False if a check failed.

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
    for line in plan(bench):
        say(line)
    try:
        passed = checks.ensure(bench)
        ceilings.ensure(bench)
        for name in options.only:
            SLICES[name](bench)
    finally:
        output.write(options.out)
    if bench.left:
        say(f"time is up: {bench.left} measurements are left; repeat the command to continue")
    return passed


def plan(bench: Bench) -> list[str]:
    """Return in words what is still to be measured, by slice, and how long it is expected to take."""
    bench.planned = []
    try:
        checks.ensure(bench)
        ceilings.ensure(bench)
        for name in bench.options.only:
            SLICES[name](bench)
        found = bench.planned
    finally:
        bench.planned = None
    minutes, given = sum(seconds for _, seconds in found) / 60, bench.options.minutes
    calls = f"{max(1, math.ceil(minutes / given))} calls of {given:.3g} minutes" if given > 0 else "no time is given"
    lines = [f"plan: {len(found)} measurements, about {minutes:.1f} minutes; {calls}"]
    for name in dict.fromkeys(name for name, _ in found):
        times = [seconds for each, seconds in found if each == name]
        lines.append(f"  {name}: {len(times)} measurements, {sum(times) / 60:.1f} minutes")
    return lines
