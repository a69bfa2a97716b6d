"""Claims decided while seeds are still running: looks at 5, 8, 12 and 20 seeds, at most 5 % errors over all of them.

Each look spends a part of the 5 %: 0.005, 0.01, 0.015, 0.02 (Bonferroni over looks).  A claim's p is the least over the
looks it has taken of p · 0.05 / spent, at most 1: below any level a, P(p ≤ a) ≤ a where nothing differs, however the
looks depend on one another.  A claim that is decided ignores later seeds.

Within a registered family of claims (a table, a figure) Holm's method follows (S. Holm, Scandinavian Journal of
Statistics 6, 1979): the smallest p is multiplied by the number of claims of which something can still be wrong, then
the next.  A claim has up to three tests: of no difference (direction), of a difference of the margin or more
(equivalence), and of none beyond the margin.  A difference of exactly the margin counts as within it, so the second
errs only where the others cannot, and the third never alone where there is no difference: a claim counts once for all
three (J. P. Shaffer, Journal of the American Statistical Association 81, 1986).  It counts no more when both its
questions are answered or it is known to lie beyond the margin.
The 5 % of a family thus hold for false directions and false equivalences together; two corrections apart would allow
up to 10 %.  Without equivalence this is Holm's method as it is known.  Claims that were not run count, with p = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from timesformer.errors import InputError

ALPHA = 0.05


@dataclass(frozen=True)
class Look:
    """Look: a number of seeds at which claims are judged, and the part of the 5 % that it spends."""

    seeds: int
    alpha: float


LOOKS = (Look(5, 0.005), Look(8, 0.01), Look(12, 0.015), Look(20, 0.02))

DecidedBy = Literal["direction", "equivalence", "both"]


@dataclass(frozen=True)
class Taken:
    """Uncorrected p-values of a claim at the looks it has taken, in order; empty if it was not run.

    direction: of no difference (`equivalence.direction_p`).  equivalence: of a difference of the margin or more; None
        where the claim does not ask.  beyond: of none beyond the margin, where it is known; it helps the other claims.
    A value is None where there was nothing to test.
    seeds: run so far; most_seeds: the registered maximum.
    """

    name: str
    family: str
    direction: tuple[float | None, ...] = ()
    equivalence: tuple[float | None, ...] | None = ()
    beyond: tuple[float | None, ...] | None = None
    seeds: int = 0
    most_seeds: int = LOOKS[-1].seeds


@dataclass(frozen=True)
class Decision:
    """Status of a claim.

    decided_at: seeds that decided it; None while it is open.
    direction_p, equivalence_p: over the looks taken until then; `_corrected`: within the family too.
    more_seeds: until the next look; 0 once it is decided or no look is left.
    """

    name: str
    family: str
    decided_by: DecidedBy | None
    decided_at: int | None
    direction_p: float
    direction_corrected: float
    equivalence_p: float
    equivalence_corrected: float
    more_seeds: int


def looks_taken(seeds: int, most_seeds: int = LOOKS[-1].seeds) -> tuple[Look, ...]:
    """Return the looks that so many seeds allow.  A look sees the first `Look.seeds` seeds and no others."""
    return tuple(look for look in LOOKS if look.seeds <= min(seeds, most_seeds))


def over_looks(p_values: Sequence[float | None]) -> float:
    """Return a claim's p from those at the looks it has taken, in order; 1 without any.

    Raises InputError for more p-values than looks.
    """
    if len(p_values) > len(LOOKS):
        raise InputError(f"{len(p_values)} p-values: expected at most {len(LOOKS)}, one for each look")
    spent = [p * ALPHA / look.alpha for p, look in zip(p_values, LOOKS, strict=False) if p is not None]
    return min([1.0, *spent])


def corrected(direction: np.ndarray, equivalence: np.ndarray, beyond: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the p-values of direction and equivalence corrected for their family, each (…, claims).

    equivalence: NaN where a claim does not ask; its result is then 1.
    """
    shape, claims = direction.shape, direction.shape[-1]
    asked = ~np.isnan(equivalence).reshape(-1, claims)
    # What lies beyond the margin differs, so its p is never the smaller one.
    tests = (direction, np.where(np.isnan(equivalence), 1.0, equivalence), np.maximum(beyond, direction))
    p_values = np.concatenate([each.reshape(-1, claims) for each in tests], -1)
    order = np.argsort(p_values, -1, kind="stable")
    rows, highest = np.arange(len(p_values)), np.zeros(len(p_values))
    rejected, found = np.zeros(p_values.shape, bool), np.ones(p_values.shape)
    for step in range(p_values.shape[-1]):
        test = order[:, step]
        answered, unequal = rejected[:, claims : 2 * claims] | ~asked, rejected[:, 2 * claims :]
        count = (~(unequal | (rejected[:, :claims] & answered))).sum(-1)
        highest = np.maximum(highest, np.minimum(p_values[rows, test] * np.maximum(count, 1), 1.0))
        found[rows, test] = highest
        rejected[rows, test] = True
    equal = np.where(asked, found[:, claims : 2 * claims], 1.0)
    return found[:, :claims].reshape(shape), equal.reshape(shape)


@dataclass(frozen=True)
class Course:
    """Course of families of claims over the looks: arrays (…, claims).

    direction, equivalence: p over the looks until the claim was decided; `_corrected`: within the family, in the end.
    look: index of the look that decided it, -1 while it is open.
    """

    direction: np.ndarray
    equivalence: np.ndarray
    direction_corrected: np.ndarray
    equivalence_corrected: np.ndarray
    look: np.ndarray


def follow(direction: np.ndarray, equivalence: np.ndarray, beyond: np.ndarray) -> Course:
    """Take the looks one after another in families that are independent of one another.

    Uncorrected p-values (…, claims, looks), 1 where a claim has not taken a look; equivalence: NaN where it does not
    ask.
    """
    running = [np.where(np.isnan(each[..., 0]), np.nan, 1.0) for each in (direction, equivalence, beyond)]
    look = np.full(direction.shape[:-1], -1)
    both = corrected(*running)
    for index in range(direction.shape[-1]):
        factor, is_open = ALPHA / LOOKS[index].alpha, look < 0
        for test, p_values in enumerate((direction, equivalence, beyond)):
            lower = np.minimum(running[test], p_values[..., index] * factor)
            running[test] = np.where(is_open, lower, running[test])
        both = corrected(*running)
        look = np.where(is_open & ((both[0] <= ALPHA) | (both[1] <= ALPHA)), index, look)
    return Course(running[0], np.where(np.isnan(running[1]), 1.0, running[1]), *both, look)


def decide(claims: Sequence[Taken]) -> list[Decision]:
    """Return the status of each claim, in the same order.

    Raises InputError where a claim's p-values do not fit the looks that its seeds allow, or a name comes twice in a
    family.
    """
    families: dict[str, list[Taken]] = {}
    for claim in claims:
        _require(claim)
        family = families.setdefault(claim.family, [])
        if any(each.name == claim.name for each in family):
            raise InputError(f"claim {claim.name!r}: twice in family {claim.family!r}")
        family.append(claim)
    found = {}
    for name, members in families.items():
        asks = np.array([each.equivalence is not None for each in members])
        course = follow(
            _table([each.direction for each in members]),
            np.where(asks[:, None], _table([each.equivalence or () for each in members]), np.nan),
            _table([each.beyond or () for each in members]),
        )
        for place, claim in enumerate(members):
            found[name, claim.name] = _decision(claim, course, place)
    return [found[claim.family, claim.name] for claim in claims]


def _require(claim: Taken) -> None:
    looks = looks_taken(claim.seeds, claim.most_seeds)
    tests = (("direction", claim.direction), ("equivalence", claim.equivalence), ("beyond", claim.beyond))
    for field, p_values in tests:
        if p_values is None:
            continue
        if len(p_values) != len(looks):
            raise InputError(
                f"claim {claim.name!r}: {len(p_values)} p-values of {field}, expected {len(looks)} "
                f"(looks that {claim.seeds} of at most {claim.most_seeds} seeds allow)"
            )
        for value in p_values:
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"claim {claim.name!r}: {field} has p = {value}, expected 0 to 1")


def _table(rows: Sequence[tuple[float | None, ...]]) -> np.ndarray:
    table = np.ones((len(rows), len(LOOKS)))
    for place, row in enumerate(rows):
        table[place, : len(row)] = [1.0 if value is None else value for value in row]
    return table


def _decision(claim: Taken, course: Course, place: int) -> Decision:
    index = int(course.look[place])
    direction, equivalence = float(course.direction_corrected[place]), float(course.equivalence_corrected[place])
    decided_by: DecidedBy | None = None
    if index >= 0:
        decided_by = "both" if max(direction, equivalence) <= ALPHA else "direction"
        if direction > ALPHA:
            decided_by = "equivalence"
    ahead = [look.seeds for look in LOOKS if claim.seeds < look.seeds <= claim.most_seeds]
    return Decision(
        name=claim.name,
        family=claim.family,
        decided_by=decided_by,
        decided_at=LOOKS[min(index, len(claim.direction) - 1)].seeds if index >= 0 else None,
        direction_p=float(course.direction[place]),
        direction_corrected=direction,
        equivalence_p=float(course.equivalence[place]),
        equivalence_corrected=equivalence,
        more_seeds=ahead[0] - claim.seeds if index < 0 and ahead else 0,
    )
