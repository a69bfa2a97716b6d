"""The videos that a run is evaluated on, where its validation videos come from, and how a tuned run was chosen."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, model_validator

from timesformer.data.annotations import Annotations
from timesformer.data.splits import Grouping, hold_out, require_apart
from timesformer.errors import InputError

EvaluateOn = Literal["test", "validation"]
NEUTRAL: dict[str, Any] = {
    "val_csv": None,
    "val_fraction": None,
    "val_pattern": None,
    "group": None,
    "val_shares_groups": False,
    "train_on_validation": False,
}
"""Fields of `ValidationSet` where they are off: they are no part of what defines a run then."""


def _grouping(value: Any) -> Grouping | None:
    if value is None or isinstance(value, Grouping):
        return value
    known = set(Grouping.__dataclass_fields__)
    if not isinstance(value, dict) or not set(value) <= known or not all(isinstance(v, str) for v in value.values()):
        raise InputError(f"expected {{pattern: …}} or {{column: …}}, got {value!r}")
    return Grouping(**value)


def _plain(value: Grouping | None) -> dict[str, str] | None:
    if value is None:
        return None
    return {name: text for name in ("pattern", "column") if (text := getattr(value, name)) is not None}


class ValidationSet(BaseModel):
    """Where the validation set of annotation files comes from.

    val_csv, or val: an annotation file of its own; val_fraction: this share of the training list, which it leaves;
    val_pattern: the videos of the training list in whose names this regular expression is found.
    group: {pattern: …} or {column: …}, see `timesformer.data.splits.Grouping`; without it a file is a group, or what
    the format knows.  Where there is a validation set no group is on two sides; val_shares_groups: it may be.
    train_on_validation: a run that is evaluated on test trains on its validation videos as well, after all choices were
    made on them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    val_csv: Path | None = Field(default=None, validation_alias=AliasChoices("val_csv", "val"))
    val_fraction: float | None = Field(default=None, gt=0, lt=1)
    val_pattern: str | None = None
    group: Annotated[Grouping | None, PlainValidator(_grouping), PlainSerializer(_plain, return_type=dict | None)] = (
        None
    )
    val_shares_groups: bool = False
    train_on_validation: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> ValidationSet:
        given = [each for each in (self.val_csv, self.val_fraction, self.val_pattern) if each is not None]
        if len(given) > 1:
            raise InputError("val, val_fraction, val_pattern: expected one of them")
        if self.val_pattern is not None:
            try:
                re.compile(self.val_pattern)
            except re.error as error:
                raise InputError(f"val_pattern: no regular expression ({error}), got {self.val_pattern!r}") from error
        if self.val_shares_groups and not self.has_validation:
            raise InputError("val_shares_groups: there is no validation set; expected val or val_fraction beside it")
        if self.train_on_validation and not self.has_validation:
            raise InputError("train_on_validation: there is no validation set; expected val or val_fraction beside it")
        return self

    @property
    def has_validation(self) -> bool:
        """True if there is a validation set."""
        return self.val_csv is not None or self.val_fraction is not None or self.val_pattern is not None

    def grouped(self, found: Annotations, path: Path) -> Annotations:
        """Annotations that were read from a file, with the groups that the run states."""
        return found if self.group is None else self.group.of(found, path)

    def parted(self, train: Annotations, val: Annotations | None) -> tuple[Annotations, Annotations | None]:
        """Training and validation set; val: what was read from `val_csv`."""
        if self.val_fraction is not None:
            try:
                train, val = hold_out(train, self.val_fraction, self.val_shares_groups)
            except InputError as error:
                raise InputError(f"data.{error}") from error
        if self.val_pattern is not None:
            inside = [re.search(self.val_pattern, sample.name) is not None for sample in train]
            if all(inside) or not any(inside):
                raise InputError(
                    f"data.val_pattern: {self.val_pattern!r} is found in {sum(inside)} of {len(inside)} names; "
                    "expected some, and others to train on"
                )
            sides = [tuple(s for s, held in zip(train, inside, strict=True) if held is side) for side in (False, True)]
            train, val = replace(train, samples=sides[0]), replace(train, samples=sides[1])
        return train, val

    def joined(self, train: Annotations, val: Annotations) -> Annotations:
        """Training and validation videos together, in the order of their names."""
        samples = sorted((*train, *val), key=lambda sample: (sample.name, sample.place))
        return replace(train, samples=tuple(samples))

    def require_apart(self, **sides: Annotations | None) -> None:
        """InputError if a group is on two sides that may not share any.  sides: by name, None for one not in use."""
        if self.has_validation and not self.val_shares_groups:
            require_apart({f"data.{name}": found for name, found in sides.items() if found is not None})


class Selection(BaseModel):
    """The choice of a run's recipe; recorded, and no part of what defines the run.

    on: the split that the choice saw; search: how draws were made; draws: how many this variant had; over: the fields
    that were drawn and from what; chosen: what the best draw has; best_percent: its accuracy on that split.
    seed: of the draws and of the runs that were tuned; draw: the best one's place among them; tuning_sha256: of the
    hashes and accuracies of all draws.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    on: Literal["validation"] = "validation"
    search: Literal["random", "grid"]
    draws: int = Field(ge=1)
    over: dict[str, Any] = Field(min_length=1)
    chosen: dict[str, Any] = Field(min_length=1)
    best_percent: float | None = Field(default=None, ge=0, le=100)
    seed: int | None = Field(default=None, ge=0)
    draw: int | None = Field(default=None, ge=0)
    tuning_sha256: str | None = None

    @model_validator(mode="after")
    def _chosen_among(self) -> Selection:
        if set(self.chosen) != set(self.over):
            raise InputError(f"chosen: expected values of {', '.join(self.over)}, got {', '.join(self.chosen)}")
        return self
