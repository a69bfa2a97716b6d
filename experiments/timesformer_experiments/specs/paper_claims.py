"""Claims as they are registered before the runs: what is compared, what is expected, and when it counts as decided.

margin_points: 2
most_seeds: 20
level: 0.05                          # of a family, over all looks
failed_below_percent: midpoint       # a training below it has failed, see `levels`
claims:
  - text: Divided beats joint attention where motion matters
    artefact: table1
    "on": motion                     # in quotes: YAML takes the bare word for a truth value
    first: divided
    second: joint
    expected: more                   # or near: within the margin
    family: table1
    bound: {first: clips, second: clips}
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from timesformer.errors import InputError
from timesformer_experiments.specs.claims import Claim
from timesformer_experiments.specs.data import Strict
from timesformer_experiments.specs.levels import Level
from timesformer_experiments.specs.run import describe, read_yaml

BoundOf = Literal["clips", "order"]
"""Models that a side's bound holds for: those that read the same clips, or those blind to the order of frames."""


class Bound(Strict):
    """Sides of a claim that construction settles, each with what its bound holds for."""

    first: BoundOf
    second: BoundOf


class PaperClaim(Claim):
    """A claim of the paper on a probe, about variants of a table or figure.

    name: follows from the text and the probe, which no two claims share.
    """

    name: str = ""
    text: str = Field(min_length=1)
    artefact: str
    on: str
    first: str
    second: str
    bound: Bound | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if isinstance(values, dict) and "name" in values:
            raise InputError("name: it follows from text and on")
        if isinstance(values, dict):
            return values | {"name": f"{values.get('text')} ({values.get('on')})"}
        return values


class PaperClaims(Strict):
    """A file of claims; see the module for its fields."""

    level: float = Field(gt=0, lt=1)
    failed_below_percent: Level = None
    claims: tuple[PaperClaim, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _once(self) -> PaperClaims:
        counts = Counter(claim.name for claim in self.claims)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise InputError(f"claims: {twice[0]!r} is there twice; expected each claim once on a probe")
        for claim in self.claims:
            if claim.first == claim.second:
                raise InputError(f"claims: {claim.name!r}: first and second are both {claim.first!r}")
        return self


@dataclass(frozen=True)
class Registered:
    """Claims with the sha256 of the file that they were read from."""

    claims: PaperClaims
    digest: str


def read_claims(path: Path) -> Registered:
    """Read and validate a file of claims.  Raises InputError that names the file and the field."""
    values = read_yaml(path, "claims")
    try:
        claims = PaperClaims.model_validate(values)
    except ValidationError as error:
        raise InputError(describe(error, path)) from error
    return Registered(claims, hashlib.sha256(path.read_bytes()).hexdigest())
