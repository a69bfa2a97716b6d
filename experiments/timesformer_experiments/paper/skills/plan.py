"""Runs of `skills`: every scheme on every value of every probe's dial, and the follow-ups on misses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from timesformer_experiments.paper.setting import changed
from timesformer_experiments.paper.skills.recipes import fields_of, selection_of
from timesformer_experiments.paper.skills.registered import Followup, Profile, Skill, Value, skills
from timesformer_experiments.specs.run import RunSpec


@dataclass(frozen=True)
class Cell:
    """A run with its place: probe, value of the dial, scheme, depth and seed; follow: the follow-up that it is of."""

    probe: str
    value: Value
    scheme: str
    depth: int
    seed: int
    spec: RunSpec
    follow: Followup | None = None

    @property
    def point(self) -> tuple[str, Value, str, int]:
        """Everything but the seed."""
        return self.probe, self.value, self.scheme, self.depth


@cache
def cells(profile: Profile) -> tuple[Cell, ...]:
    """List the runs of a profile, follow-ups apart.

    Where values of a dial are parts of one test set, there is one run for all of them, at the registered value.
    """
    registered = skills()
    found = []
    for seed in range(max([registered.seeds[profile], registered.seeds_registered.get(profile, 0)])):
        for probe, skill in registered.probes.items():
            for depth, value in trained_points(skill, profile):
                if seed >= registered.num_seeds(profile, probe, depth, value):
                    continue
                for scheme in registered.schemes:
                    spec = spec_of(probe, value, scheme, depth, seed, profile)
                    found.append(Cell(probe, value, scheme, depth, seed, spec))
    return tuple(found)


def followups(profile: Profile) -> list[Cell]:
    """List the runs of the follow-ups on a profile's own runs, on the first seed; none in the profile smoke."""
    if profile == "smoke":
        return []
    found = []
    for number, follow in enumerate(skills().followups):
        if (follow.depth, follow.value) not in skills().probes[follow.probe].points(profile):
            continue
        spec = spec_of(follow.probe, follow.value, follow.scheme, follow.depth, 0, profile, follow, number)
        found.append(Cell(follow.probe, follow.value, follow.scheme, follow.depth, 0, spec, follow))
    return found


def trained_points(skill: Skill, profile: Profile) -> list[tuple[int, Value]]:
    """Return the depths and values that need a run of their own."""
    points = skill.points(profile)
    if skill.within == "clips":
        return [(depth, skill.registered) for depth in dict.fromkeys(depth for depth, _ in points)]
    return points


def spec_of(
    probe: str,
    value: Value,
    scheme: str,
    depth: int,
    seed: int,
    profile: Profile,
    follow: Followup | None = None,
    number: int = 0,
) -> RunSpec:
    """Return the run of a scheme at a value of a probe's dial, or with `follow` that of a follow-up with its number.

    Raises InputError if the scheme has no recipe for the probe.
    """
    fields = _fields(probe, value, scheme, depth, seed, profile)
    name = _name(probe, value, scheme, depth, seed, profile)
    if follow is not None:
        fields = changed(fields, follow.change)
        name += f"-followup{number}"
        if follow.start is not None:
            start = _fields(probe, follow.start, scheme, depth, seed, profile)
            named = _name(probe, follow.start, scheme, depth, seed, profile)
            fields["init_from"] = {"name": named, "seed": seed, **start}
    return RunSpec.parse({"name": name, "seed": seed, **fields}, "skills")


def _name(probe: str, value: Value, scheme: str, depth: int, seed: int, profile: Profile) -> str:
    return f"skills-{profile}-{probe}-{value}-{scheme}-d{depth}-s{seed}"


def _fields(probe: str, value: Value, scheme: str, depth: int, seed: int, profile: Profile) -> dict[str, Any]:
    """Return the fields of a run, without its name and seed.  Each seed has videos of its own."""
    registered = skills()
    skill = registered.probes[probe]
    fields = {
        "data": data_of(probe, value, seed, profile),
        "model": {**registered.model, **skill.model, "attention": scheme, "depth": depth},
        "recipe": {},
        "protocol": registered.protocol,
        "selection": selection_of(probe, scheme, profile),
    }
    return changed(fields, fields_of(probe, scheme, profile))


def data_of(probe: str, value: Value, seed: int, profile: Profile) -> dict[str, Any]:
    """Return the field `data` of the runs of a seed at a value of a probe's dial."""
    skill = skills().probes[probe]
    data = {"probe": probe, **skill.data, "seed": skills().data_seed + seed}
    if skill.within == "data":
        data[skill.dial] = value
    return {**data, **skill.smoke} if profile == "smoke" else data
