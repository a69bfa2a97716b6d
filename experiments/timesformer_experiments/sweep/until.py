"""Seeds of a sweep, added in looks while claims are undecided.

Every variant has the seeds of the first look.  When all runs of a look have ended, the claims are judged from the
first seeds alone; the variants of a claim that is open get those of the next look.  So what is run, and what comes of
it, is a function of the records, whoever makes them and in whatever order.  A claim of which a run has failed waits
until it is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timesformer.errors import InputError
from timesformer_experiments.analysis.claims import Evidence, Records, Standing, at_chance, difference, stand
from timesformer_experiments.analysis.statistics.estimators import Estimate
from timesformer_experiments.analysis.statistics.looks import LOOKS
from timesformer_experiments.specs.claims import Claim, Claims, Until
from timesformer_experiments.specs.sweep import Sweep
from timesformer_experiments.sweep.tune import Outcomes, key_of

Estimator = Callable[[Records, Records], Estimate]
RunsOf = Callable[[Mapping[str, int]], Mapping[str, Sequence[str]]]
"""From seeds by variant the hashes of their runs, in the order of the seeds."""


@dataclass(frozen=True)
class Looked:
    """Progress of the looks: seeds that each variant is to have, and where the claims stand."""

    seeds: dict[str, int]
    standings: list[Standing]


def require_registered(sweep: Sweep, until: Until, claims: Claims) -> dict[tuple[str, str], tuple[str, str]]:
    """Return by family and name of a claim its two variants.

    Raises InputError for looks that are not registered, claims that end before the first, that have another margin than
    the others, or that do not name one variant for each side.
    """
    looks = tuple(look.seeds for look in LOOKS)
    if until.seeds != looks[: len(until.seeds)]:
        raise InputError(f"until.seeds: expected the first of {list(looks)}, got {list(until.seeds)}")
    margin = claims.claims[0].margin
    for claim in claims.claims:
        if claim.most_seeds < looks[0]:
            raise InputError(
                f"claim {claim.name!r}: most_seeds: expected at least {looks[0]}, the seeds of the first look, got "
                f"{claim.most_seeds}"
            )
        if claim.margin != margin:
            raise InputError(
                f"claim {claim.name!r}: margin: expected {margin:g}, as of the first claim, got {claim.margin:g}: "
                "equivalent means the same for all"
            )
    return {(claim.family, claim.name): _sides(sweep, claim) for claim in claims.claims}


def _sides(sweep: Sweep, claim: Claim) -> tuple[str, str]:
    variants = sweep.variants()
    for path in (claim.axis, *claim.where):
        if path not in (axes := list(variants[0])):
            raise InputError(f"claim {claim.name!r}: {path} is no axis; expected some of {', '.join(axes)}")
    found = []
    for side, value in (("first", claim.first), ("second", claim.second)):
        wanted = claim.where | {claim.axis: value}
        fitting = [v for v in variants if all(v[path] == value for path, value in wanted.items())]
        if len(fitting) != 1:
            free = [path for path in variants[0] if path not in wanted]
            hint = f"; where: name {', '.join(free)}" if fitting and free else ""
            raise InputError(f"claim {claim.name!r}: {side}: {len(fitting)} variants have {wanted}, expected one{hint}")
        found.append(key_of(fitting[0]))
    return found[0], found[1]


def look(
    sweep: Sweep, claims: Claims, variants: Sequence[str], runs_of: RunsOf, outcomes: Outcomes, estimator: Estimator
) -> Looked:
    """Take the looks that the outcomes allow, from the first on.

    variants: those that can be run.
    """
    until = sweep.until
    assert until is not None
    sides = require_registered(sweep, until, claims)
    seeds = dict.fromkeys(variants, until.seeds[0])
    evidence = [Evidence(claim) for claim in claims.claims]
    standings = stand(evidence)
    for number, count in enumerate(until.seeds):
        runs = runs_of(seeds)
        if any(key not in outcomes for keys in runs.values() for key in keys):
            break
        evidence = [
            _with_look(each, sides[each.claim.family, each.claim.name], number, runs, outcomes, estimator)
            for each in evidence
        ]
        standings = stand(evidence)
        ahead = until.seeds[number + 1] if number + 1 < len(until.seeds) else None
        is_open = [
            each
            for each in standings
            if ahead is not None
            and each.decision.decided_at is None
            and each.evidence.seeds == count
            and each.evidence.claim.most_seeds >= ahead
        ]
        if ahead is None or not is_open:
            break
        for each in is_open:
            seeds |= dict.fromkeys(sides[each.evidence.claim.family, each.evidence.claim.name], ahead)
    return Looked(seeds, standings)


def _with_look(
    evidence: Evidence,
    sides: tuple[str, str],
    number: int,
    runs: Mapping[str, Sequence[str]],
    outcomes: Outcomes,
    estimator: Estimator,
) -> Evidence:
    """Return the evidence with the look of this number, where the claim has all runs of it."""
    claim, count = evidence.claim, LOOKS[number].seeds
    if len(evidence.estimates) < number or count > claim.most_seeds:
        return evidence
    records: list[dict[int, Any]] = []
    for side in sides:
        keys = runs.get(side, ())[:count]
        if len(keys) < count or any(outcomes[key]["outcome"] != "done" for key in keys):
            return evidence
        records.append({place: outcomes[key] for place, key in enumerate(keys)})
    try:
        estimate = estimator(records[0], records[1])
    except InputError as error:
        raise InputError(f"claim {claim.name!r}, look at {count} seeds: {error}") from error
    chance = {count} if at_chance(*records) else set[int]()
    return Evidence(claim, (*evidence.estimates, estimate), evidence.at_chance | chance)


def estimator_of(runs_dir: Path) -> Estimator:
    """Return the estimator that reads the scores of runs in a folder."""
    return lambda first, second: difference(first, second, runs_dir)
