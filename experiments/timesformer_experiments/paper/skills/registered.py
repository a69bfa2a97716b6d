"""Probes, settings and predictions of `skills` as they are registered in `skills.yaml`.

Nothing of a model is in the predictions: `bound_percent` is proved for any weights, `predicted_percent` is a hypothesis
that was written before the first run.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from timesformer.errors import InputError
from timesformer_experiments.specs.data import Strict
from timesformer_experiments.specs.reading import read_yaml
from timesformer_experiments.specs.run import describe

SKILLS = Path(__file__).parents[1] / "skills.yaml"

Value = str | int | float
Percent = float
Count = Annotated[int, Field(ge=1)]
Profile = Literal["smoke", "quick", "full"]


class Prediction(Strict):
    """Two figures for a scheme at a value of a dial.

    bound_percent: no weights give more; 100 where nothing is proved. predicted_percent: hypothesis; why: its reason.
    """

    bound_percent: Percent = Field(ge=0, le=100)
    predicted_percent: Percent = Field(ge=0, le=100)
    why: str = Field(min_length=1)

    @model_validator(mode="after")
    def _possible(self) -> Prediction:
        if self.predicted_percent > self.bound_percent:
            raise InputError(f"predicted_percent: {self.predicted_percent:g} is above the bound {self.bound_percent:g}")
        return self


class Expected(Strict):
    """Predictions for all schemes at a depth and a value of the dial."""

    depth: int = Field(ge=1)
    value: Value
    schemes: dict[str, Prediction] = Field(min_length=1)


class Skill(Strict):
    """A probe with its dial.

    dial: name of what changes; values: what it takes, from easy to hard; registered: the value at which further depths
    are run.  within: "data": each value is a probe of its own, and `dial` is one of the kind's dials; "clips": one
    model is trained on all clips, and a value is a part of the test clips (`bounds.PARTS`).
    data, model: fields of a run's `data` and `model`; smoke: data fields of the profile smoke.
    depths: by profile, the depths at the registered value; the first of them is that of all other values.
    left_out: by profile, values of the dial at which nothing is run for want of time, not the registered one unless all
    are left out; their predictions stay.
    changed: what was changed of the probe after it had been registered, and after which runs; its predictions stay.
    map_percent: for a probe whose clips have offsets, the predicted accuracy at each offset ("frames rows columns"), in
    the order of the schemes.
    """

    dial: str
    values: tuple[Value, ...] = Field(min_length=1)
    registered: Value
    within: Literal["data", "clips"] = "data"
    data: dict[str, Any]
    model: dict[str, Any]
    smoke: dict[str, Any]
    depths: dict[Profile, tuple[int, ...]]
    expected: tuple[Expected, ...] = Field(min_length=1)
    map_percent: dict[str, tuple[Percent, ...]] = Field(default_factory=dict)
    left_out: dict[Profile, tuple[Value, ...]] = Field(default_factory=dict)
    changed: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Skill:
        if self.registered not in self.values:
            raise InputError(f"registered: expected one of {list(self.values)}, got {self.registered!r}")
        for left_out in self.left_out.values():
            if set(left_out) == set(self.values):
                continue
            for value in left_out:
                if value == self.registered or value not in self.values:
                    said = "left_out: expected values of the dial that are not registered, or all"
                    raise InputError(f"{said}, got {value!r}")
        wanted = {point for profile in self.depths for point in self._all_points(profile)}
        found = [(each.depth, each.value) for each in self.expected]
        if len(set(found)) < len(found):
            raise InputError("expected: the same depth and value twice")
        if wanted != set(found):
            odd = sorted(map(str, wanted ^ set(found)))
            raise InputError(f"expected: depths and values that are run and no others, which does not hold for {odd}")
        return self

    def points(self, profile: Profile) -> list[tuple[int, Value]]:
        """Return the depths and values of the dial that a profile has, in the order in which they are shown.

        In `smoke` that is the registered value alone.
        """
        left_out = self.left_out.get(profile, ())
        return [(depth, value) for depth, value in self._all_points(profile) if value not in left_out]

    def _all_points(self, profile: Profile) -> list[tuple[int, Value]]:
        first, *more = self.depths[profile]
        few = self.values if self.within == "clips" else (self.registered,)
        values = few if profile == "smoke" else self.values
        return [(first, value) for value in values] + [(depth, value) for depth in more for value in few]

    def prediction(self, scheme: str, depth: int, value: Value) -> Prediction:
        """Return what was predicted."""
        return next(each for each in self.expected if (each.depth, each.value) == (depth, value)).schemes[scheme]


class Hit(Strict):
    """When a prediction counts as a hit.

    skill = (accuracy - chance) / (100 - chance) has three levels: learnt from `learnt` on, not seen to learn up to
    `not_learnt`, in part between them.  A hit has the predicted level, or lies within `points` of the prediction.
    """

    points: float = Field(gt=0)
    learnt: float = Field(gt=0, le=1)
    not_learnt: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _ordered(self) -> Hit:
        if self.not_learnt >= self.learnt:
            raise InputError(f"not_learnt: expected less than learnt {self.learnt:g}, got {self.not_learnt:g}")
        return self

    def level(self, percent: float, chance: float) -> str:
        """Return the level of an accuracy."""
        skill = (percent - chance) / (100 - chance)
        return "learnt" if skill >= self.learnt else "not seen to learn" if skill <= self.not_learnt else "in part"

    def is_hit(self, measured: float, predicted: float, chance: float) -> bool:
        """Return True if a measured accuracy is what was predicted."""
        return abs(measured - predicted) <= self.points or self.level(measured, chance) == self.level(predicted, chance)


class Followup(Strict):
    """One experiment on a miss: its run, with changes.

    change: fields of the run by dotted path, such as `recipe.steps`.  start: value of the dial at which a model of the
    same scheme is trained first, from whose weights this one starts.  says: the question that it answers.
    """

    probe: str
    scheme: str
    value: Value
    depth: int = Field(ge=1)
    change: dict[str, Any] = Field(default_factory=dict)
    start: Value | None = None
    says: str = Field(min_length=1)

    @model_validator(mode="after")
    def _changes(self) -> Followup:
        if not self.change and self.start is None:
            raise InputError("change, start: expected one of them")
        return self


class Skills(Strict):
    """The file; see there for its fields.

    seeds: by profile; seeds_registered: at the registered value and the first depth, if they are more there.
    """

    written: str = Field(min_length=1)
    schemes: tuple[str, ...] = Field(min_length=2)
    seeds: dict[Profile, Count]
    seeds_registered: dict[Profile, Count] = Field(default_factory=dict)
    data_seed: int = Field(default=0, ge=0)
    model: dict[str, Any]
    protocol: str
    hit: Hit
    probes: dict[str, Skill] = Field(min_length=1)
    followups: tuple[Followup, ...] = ()

    @model_validator(mode="after")
    def _agree(self) -> Skills:
        if lacking := sorted({profile for skill in self.probes.values() for profile in skill.depths} - set(self.seeds)):
            raise InputError(
                f"seeds: expected a number for each profile that has depths, none for {', '.join(lacking)}"
            )
        for name, skill in self.probes.items():
            for each in skill.expected:
                if tuple(each.schemes) != self.schemes:
                    place = f"probes.{name}: depth {each.depth}, {each.value}"
                    raise InputError(f"{place}: expected {', '.join(self.schemes)}, got {', '.join(each.schemes)}")
            for offset, percents in skill.map_percent.items():
                if len(percents) != len(self.schemes):
                    raise InputError(f"probes.{name}.map_percent: {offset}: expected {len(self.schemes)} numbers")
        points = {
            (name, scheme, depth, value)
            for name, skill in self.probes.items()
            for scheme in self.schemes
            for profile in skill.depths
            for depth, value in skill.points(profile)
        }
        for follow in self.followups:
            if (follow.probe, follow.scheme, follow.depth, follow.value) not in points:
                raise InputError(f"followups: no run of {follow.probe} {follow.scheme} {follow.depth} {follow.value}")
        return self

    def num_seeds(self, profile: Profile, probe: str, depth: int, value: Value) -> int:
        """Return how many models of each scheme a profile trains at a point of a probe's dial."""
        skill = self.probes[probe]
        first = (depth, value) == (skill.depths[profile][0], skill.registered)
        return max(self.seeds[profile], self.seeds_registered.get(profile, 0) if first else 0)

    def changes(self) -> dict[str, str]:
        """Return what was changed of each probe after it had been registered, of those of which something was."""
        return {name: probe.changed for name, probe in self.probes.items() if probe.changed is not None}

    def digest(self) -> str:
        """Return the sha256 of what was registered: everything but what came after the first run."""
        later = {"__all__": {"left_out", "changed"}}
        kept = self.model_dump(mode="json", exclude={"followups": True, "seeds_registered": True, "probes": later})
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def read_skills(path: Path) -> Skills:
    """Read and validate a file of registered predictions.  Raises InputError that names the file and the field."""
    values = read_yaml(path, "registered predictions")
    try:
        return Skills.model_validate(values)
    except ValidationError as error:
        raise InputError(describe(error, path)) from error


@cache
def skills() -> Skills:
    """Return what is registered."""
    return read_skills(SKILLS)
