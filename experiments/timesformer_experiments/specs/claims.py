"""Claims that are registered before the runs, and seeds that are added until they are decided.

    until:
      claims: claims.yaml              # from the sweep's folder; or the list itself
      seeds: [5, 8, 12, 20]            # looks

A file of claims has a list `claims`, each with

    name: divided beats space          # of the claim
    family: table1                     # claims that are corrected together: those of a table or figure
    first: divided                     # values of `axis`, by default model.attention
    second: space
    where: {data.probe: motion}        # values of the other axes
    expected: more                     # the first is better; or near: they lie within the margin
    margin: 2                          # points
    most_seeds: 20

A file, or `until` itself, may have `failed_below_percent`: the accuracy below which a training counts as failed (see
`timesformer_experiments.specs.levels`).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from timesformer.errors import InputError
from timesformer_experiments.specs.data import Strict
from timesformer_experiments.specs.levels import Level
from timesformer_experiments.specs.run import describe, read_yaml


class Claim(Strict):
    """One claim; see the module."""

    name: str = Field(min_length=1)
    family: str = Field(min_length=1)
    first: Any
    second: Any
    axis: str = "model.attention"
    where: dict[str, Any] = Field(default_factory=dict)
    expected: Literal["more", "near"] = "more"
    margin: float = Field(default=2.0, gt=0)
    most_seeds: int = Field(default=20, ge=2)


class Claims(Strict):
    """All claims of a sweep."""

    claims: tuple[Claim, ...] = Field(min_length=1)
    failed_below_percent: Level = None

    @field_validator("claims")
    @classmethod
    def _different(cls, claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
        seen: set[tuple[str, str]] = set()
        for claim in claims:
            if (claim.family, claim.name) in seen:
                raise InputError(f"{claim.name!r}: twice in the family {claim.family!r}")
            seen.add((claim.family, claim.name))
            if claim.first == claim.second:
                raise InputError(f"{claim.name!r}: first and second are both {claim.first!r}")
        return claims

    def digest(self) -> str:
        """Return the sha256 of what is claimed, however it is written."""
        plain = self.model_dump(mode="json")
        if plain["failed_below_percent"] is None:  # as it was before there was a level
            del plain["failed_below_percent"]
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Until(Strict):
    """When seeds are added, and for what; see the module."""

    claims: Path | tuple[Claim, ...]
    seeds: tuple[int, ...] = Field(default=(5, 8, 12, 20), min_length=1)
    failed_below_percent: Level = None

    @field_validator("seeds")
    @classmethod
    def _rising(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if seeds[0] < 2 or any(a >= b for a, b in itertools.pairwise(seeds)):
            raise InputError(f"expected rising numbers of seeds from 2 on, got {list(seeds)}")
        return seeds

    def registered(self, folder: Path) -> Claims:
        """Return the claims; a file lies in `folder`.  Raises InputError that names it."""
        if not isinstance(self.claims, Path):
            values = {"claims": self.claims, "failed_below_percent": self.failed_below_percent}
            return parse_claims(values, "until.claims")
        found = load_claims(folder / self.claims)
        if self.failed_below_percent is None:
            return found
        if found.failed_below_percent is not None:
            raise InputError(f"until.failed_below_percent: {folder / self.claims} has one as well (expected it once)")
        return found.model_copy(update={"failed_below_percent": self.failed_below_percent})


def load_claims(path: Path) -> Claims:
    """Return the claims of a YAML file.  Raises InputError that names file and field."""
    return parse_claims(read_yaml(path, "claims"), path)


def parse_claims(values: Any, source: str | Path) -> Claims:
    """Return claims from plain data.  Raises InputError that names `source` and the field."""
    try:
        return Claims.model_validate(values)
    except ValidationError as error:
        raise InputError(describe(error, source)) from error
