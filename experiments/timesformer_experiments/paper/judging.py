"""Registered claims judged from the accuracies of both sides: looks, families, and the word for each claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from timesformer_experiments.analysis.seeds import Seeds, Spread, difference_of
from timesformer_experiments.analysis.statistics.equivalence import (
    Judgement,
    beyond_margin_p,
    direction_p,
    equivalence_p,
    judge,
)
from timesformer_experiments.analysis.statistics.looks import LOOKS, Decision, Taken, decide, looks_taken
from timesformer_experiments.paper.accuracy import Accuracy
from timesformer_experiments.specs.paper_claims import BoundOf, PaperClaim

BOUND_OF: dict[BoundOf, str] = {
    "clips": "that reads these clips",
    "order": "that is blind to the order of frames",
}


@dataclass(frozen=True)
class Limit:
    """Accuracy that no model can pass [percent] that reads the same clips, or that is blind to the order of frames."""

    percent: float
    of: BoundOf

    def text(self) -> str:
        """Return it in words."""
        return f"no model {BOUND_OF[self.of]} can pass {self.percent:.1f} %"


@dataclass(frozen=True)
class Asked:
    """A claim with what is known of its two sides.

    first, second: None where they were not run.  limits: what each side is known not to pass [percent], and for which
    models that holds.  settled: True where construction settles the claim by them.  not_ranked: why the probe may not
    rank schemes, empty where it may.
    """

    claim: PaperClaim
    first: Accuracy | None = None
    second: Accuracy | None = None
    limits: tuple[Limit | None, Limit | None] = (None, None)
    settled: bool = False
    not_ranked: str = ""

    @property
    def seeds(self) -> list[int]:
        """Seeds that both sides have."""
        if self.first is None or self.second is None:
            return []
        return sorted(set(self.first.seeds.percent) & set(self.second.seeds.percent))

    @property
    def above_chance(self) -> bool:
        """True if one of the sides is above chance."""
        return any(side is not None and side.above_chance for side in (self.first, self.second))

    @property
    def tested(self) -> bool:
        """True if the claim's p-values may count."""
        return not self.settled and not self.not_ranked and self.above_chance

    def spread(self, seeds: int | None = None) -> Spread | None:
        """Return first minus second over the first so many common seeds, by default all; None where it was not run."""
        if self.first is None or self.second is None or not self.seeds:
            return None
        kept = self.seeds[:seeds]
        return difference_of(_of(self.first.seeds, kept), _of(self.second.seeds, kept))


@dataclass(frozen=True)
class Answer:
    """Answer to a claim.

    word: the judgement's, or that the probe does not rank schemes.  spread: the difference that it was judged by.
    decision: None where the claim was not tested in its family.
    """

    asked: Asked
    word: str
    judgement: Judgement
    spread: Spread | None
    decision: Decision | None

    @property
    def seeds(self) -> int:
        """Number of seeds that the difference is over: those of the claim's look, where it had one."""
        estimate = self.spread.estimate if self.spread is not None else None
        return estimate.seeds if estimate is not None else len(self.asked.seeds)


def _of(seeds: Seeds, kept: Sequence[int]) -> Seeds:
    """Return the same with these seeds alone."""
    return Seeds(
        {seed: seeds.percent[seed] for seed in kept},
        {seed: seeds.right[seed] for seed in kept if seed in seeds.right},
        seeds.clusters,
        {seed: seeds.own[seed] for seed in kept if seed in seeds.own},
    )


def bound_said(asked: Asked) -> str:
    """Return the sentence on the bounds of a claim's sides; empty where none is known."""
    first, second = asked.limits
    if first is not None and second is not None:
        if first.percent == second.percent:
            return f"both sides have the same bound: {first.text()}"
        return f"{second.text()} on the second side, {first.percent:.1f} % is the bound of the first"
    if second is not None:
        return f"{second.text()} on the second side"
    return f"{first.text()} on the first side" if first is not None else ""


def answers(asked: Sequence[Asked]) -> list[Answer]:
    """Judge claims by their families, in the same order.

    A claim that construction settles is in no family; one that was not run, or may not be ranked, counts with p = 1.
    """
    open_ = [each for each in asked if not each.settled]
    decisions = dict(zip((each.claim.name for each in open_), decide([_taken(e) for e in open_]), strict=True))
    sizes = {each.claim.family: 0 for each in open_}
    for each in open_:
        sizes[each.claim.family] += 1
    return [_answer(each, decisions.get(each.claim.name), sizes.get(each.claim.family, 1)) for each in asked]


def _taken(asked: Asked) -> Taken:
    """Return a claim's p-values at the looks that its seeds allow."""
    count, margin = len(asked.seeds), asked.claim.margin
    looks = looks_taken(count, asked.claim.most_seeds)
    name, family = asked.claim.name, asked.claim.family
    none: tuple[float | None, ...] = (None,) * len(looks)
    direction, equivalence, beyond = none, none, none
    if asked.tested:
        spreads = [asked.spread(look.seeds) for look in looks]
        estimates = [spread.estimate for spread in spreads if spread is not None and spread.estimate is not None]
        direction = tuple(direction_p(each, asked.claim.expected, margin) for each in estimates)
        equivalence = tuple(equivalence_p(each, margin) for each in estimates)
        beyond = tuple(beyond_margin_p(each, margin) for each in estimates)
    return Taken(name, family, direction, equivalence, beyond, count, asked.claim.most_seeds)


def _answer(asked: Asked, decision: Decision | None, family: int) -> Answer:
    taken = looks_taken(len(asked.seeds), asked.claim.most_seeds)
    decided_at = decision.decided_at if decision is not None else None
    spread = asked.spread(decided_at or (taken[-1].seeds if taken else None))  # seeds beyond its look say nothing
    if asked.settled:
        estimate = None if spread is None else spread.estimate
        return Answer(asked, *_worded(judge(estimate, None, None, bound=bound_said(asked))), spread, None)
    if spread is None or spread.estimate is None:
        return Answer(asked, *_worded(Judgement("not run")), spread, None)
    assert decision is not None
    look = taken[-1] if taken else LOOKS[-1]
    counted = bool(taken) and asked.tested
    judgement = judge(
        spread.estimate,
        decision.direction_corrected if counted else None,
        decision.equivalence_corrected if counted else None,
        expected=asked.claim.expected,
        alpha=look.alpha / family,
        margin=asked.claim.margin,
    )
    if judgement.more_seeds is not None:
        judgement = replace(judgement, more_seeds=max(judgement.more_seeds, LOOKS[0].seeds - len(asked.seeds)))
    word = f"not ranked: {asked.not_ranked}" if asked.not_ranked else judgement.word
    return Answer(asked, word, judgement, spread, decision if counted else None)


def _worded(judgement: Judgement) -> tuple[str, Judgement]:
    return judgement.word, judgement
