"""Equal tuning in a sweep: every variant has the same draws of a recipe, and is tuned on validation alone.

tune:
  budget: 8                              # draws a variant
  over:                                  # left out: `DEFAULT`
    recipe.lr: loguniform(1e-4, 1e-2)
    recipe.warmup: uniform(0, 0.5)
    recipe.optimiser: [adamw, sgd]       # any of these
  search: random                         # or grid
  seed: 0                                # of the draws and of the runs that are tuned
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, field_validator, model_validator

from timesformer.errors import InputError
from timesformer.seeding import derive_seed
from timesformer_experiments.specs.data import Strict

Search = Literal["random", "grid"]
RANGE = re.compile(r"(loguniform|uniform)\(\s*([^,()\s]+)\s*,\s*([^,()\s]+)\s*\)")
TUNABLE = ("recipe.", "model.", "data.jitter", "data.flip", "data.colour_jitter", "data.randaugment")
"""Beginnings of the paths that may be tuned: what a run is evaluated on stays as it is."""
DIGITS = 6
"""Significant digits of a drawn number: the same on machines whose logarithms differ in the last place."""


@dataclass(frozen=True)
class Space:
    """Source of a field's draws: a range, evenly or evenly on a logarithmic scale, or a list of values."""

    low: float = 0.0
    high: float = 0.0
    logarithmic: bool = False
    values: tuple[Any, ...] = ()

    @classmethod
    def parse(cls, value: Any) -> Space:
        """Read `uniform(a, b)`, `loguniform(a, b)` or a list.  Raises InputError."""
        if isinstance(value, Space):
            return value
        if isinstance(value, list) and value:
            return cls(values=tuple(value))
        match = RANGE.fullmatch(value.strip()) if isinstance(value, str) else None
        expected = f"expected uniform(a, b), loguniform(a, b) or a list of values, got {value!r}"
        if match is None:
            if isinstance(value, str) and value.count("(") > value.count(")"):
                expected += "; within {…} a range stands in quotes, as its comma would end it"
            raise InputError(expected)
        try:
            low, high = float(match[2]), float(match[3])
        except ValueError as error:
            raise InputError(expected) from error
        logarithmic = match[1] == "loguniform"
        if not (math.isfinite(low) and math.isfinite(high) and low < high and (low > 0 or not logarithmic)):
            raise InputError(f"expected two numbers in order{', above 0' * logarithmic}, got {value!r}")
        return cls(low, high, logarithmic)

    def at(self, share: float) -> Any:
        """Return the value at a place from 0 to below 1 in the range or list."""
        if self.values:
            return self.values[int(share * len(self.values))]
        if self.logarithmic:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def points(self, count: int) -> list[Any]:
        """Return the points of a grid: the ends and what lies evenly between them, the middle if it is one."""
        if self.values:
            return list(self.values)
        return [self.at(number / (count - 1) if count > 1 else 0.5) for number in range(count)]

    def plain(self) -> Any:
        """Return it as it is written."""
        if self.values:
            return list(self.values)
        return f"{'loguniform' if self.logarithmic else 'uniform'}({self.low}, {self.high})"


DEFAULT = {
    "recipe.lr": "loguniform(1e-4, 1e-2)",
    "recipe.warmup": "uniform(0, 0.4)",
    "recipe.weight_decay": "loguniform(1e-3, 0.3)",
    "model.position_std": "loguniform(0.02, 1)",
}
"""Ranges for AdamW, and for positions from the released start to one as strong as the patches."""
Over = Annotated[Space, PlainValidator(Space.parse), PlainSerializer(Space.plain, return_type=Any)]


class Tune(Strict):
    """The fields; see the module.  on: the split that the choice sees."""

    budget: int = Field(ge=1)
    over: dict[str, Over] = Field(
        default_factory=lambda: {path: Space.parse(text) for path, text in DEFAULT.items()}, min_length=1
    )
    on: Literal["validation"] = "validation"
    search: Search = "random"
    seed: int = Field(default=0, ge=0)

    @field_validator("over")
    @classmethod
    def _tunable(cls, over: dict[str, Space]) -> dict[str, Space]:
        for path in over:
            if not path.startswith(TUNABLE) or path == "recipe.seed":
                raise InputError(f"{path}: expected a field of {', '.join(TUNABLE)}")
        return over

    @model_validator(mode="after")
    def _whole_grid(self) -> Tune:
        if self.search == "grid":
            self._points_a_range()
        return self

    def _points_a_range(self) -> int:
        """Return the points that each range has in a grid."""
        listed = math.prod(len(space.values) for space in self.over.values() if space.values)
        ranges = sum(not space.values for space in self.over.values())
        points = round((self.budget / listed) ** (1 / ranges)) if ranges else 1
        if listed * points**ranges != self.budget or points < 1:
            form = f"{listed}" + (f" · points^{ranges}" if ranges else "")
            raise InputError(f"budget: a grid over {', '.join(self.over)} has {form} draws, got {self.budget}")
        return points

    def draws(self) -> list[dict[str, Any]]:
        """Return the values of every draw by path, the same for all variants.

        Random draws are independent of one another, and of the budget: a larger one begins with the same.
        """
        if self.search == "random":
            return [
                {path: space.at(self._share(path, number)) for path, space in self.over.items()}
                for number in range(self.budget)
            ]
        count, found = self._points_a_range(), [dict[str, Any]()]
        for path, space in self.over.items():
            found = [draw | {path: value} for draw in found for value in space.points(count)]
        return found

    def _share(self, path: str, number: int) -> float:
        return derive_seed(self.seed, "tune", path, number) / 2**63

    def space(self) -> dict[str, Any]:
        """Return what is drawn from, as it is written."""
        return {path: space.plain() for path, space in self.over.items()}
