"""Claims on the runs of a sweep: what each look makes of them, from which test videos every seed has right."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from timesformer.errors import InputError
from timesformer.evaluation.scores import read_scores
from timesformer_experiments.analysis.chance import chance_of
from timesformer_experiments.analysis.seeds import design_of, students_interval
from timesformer_experiments.analysis.statistics.equivalence import (
    Judgement,
    beyond_margin_p,
    direction_p,
    equivalence_p,
    judge,
)
from timesformer_experiments.analysis.statistics.estimators import Estimate, crossed_difference, nested_difference
from timesformer_experiments.analysis.statistics.looks import LOOKS, Decision, Taken, decide
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.records.hits import groups_of, join_clusters, names_of, right_of
from timesformer_experiments.specs.claims import Claim

Records = Mapping[int, Mapping[str, Any]]
"""Finished runs of one variant by seed."""


@dataclass(frozen=True)
class Evidence:
    """A claim with the runs that it has so far.

    estimates: first minus second at each look that both variants have all seeds for, in order.  at_chance: the numbers
    of seeds at which neither variant was above chance: nothing is tested there.
    """

    claim: Claim
    estimates: tuple[Estimate, ...] = ()
    at_chance: frozenset[int] = frozenset()

    @property
    def seeds(self) -> int:
        """Seeds of the last look."""
        return LOOKS[len(self.estimates) - 1].seeds if self.estimates else 0

    def taken(self) -> Taken:
        """Return the p-values at the looks."""
        claim = self.claim

        def tested(test: Callable[[Estimate], float | None]) -> tuple[float | None, ...]:
            return tuple(None if each.seeds in self.at_chance else test(each) for each in self.estimates)

        return Taken(
            claim.name,
            claim.family,
            tested(lambda each: direction_p(each, claim.expected, claim.margin)),
            tested(lambda each: equivalence_p(each, claim.margin)),
            tested(lambda each: beyond_margin_p(each, claim.margin)),
            self.seeds,
            claim.most_seeds,
        )


@dataclass(frozen=True)
class Standing:
    """Where a claim stands.  family: number of claims that are corrected together."""

    evidence: Evidence
    decision: Decision
    family: int = 1

    @property
    def estimate(self) -> Estimate | None:
        """The difference at the look that decided the claim, else at the last one; None before the first."""
        known, decided = self.evidence.estimates, self.decision.decided_at
        if decided is not None:  # later seeds are ignored
            known = tuple(each for each in known if each.seeds <= decided)
        return known[-1] if known else None

    def judgement(self) -> Judgement:
        """Return the word for the claim; the power is that of its last look within its family."""
        claim, estimate, decision = self.evidence.claim, self.estimate, self.decision
        if estimate is None:
            return Judgement("undecided", margin=claim.margin)
        level = LOOKS[len(self.evidence.estimates) - 1].alpha / self.family
        p_values = (decision.direction_corrected, decision.equivalence_corrected)
        return judge(estimate, *p_values, expected=claim.expected, alpha=level, margin=claim.margin)

    def sentence(self) -> str:
        """Return it in words, with what restricts it."""
        estimate = self.estimate
        if estimate is None:
            return "undecided: no look yet, as runs of the first are missing or have failed"
        chance = "neither side is above chance" if estimate.seeds in self.evidence.at_chance else ""
        remark = "; ".join(filter(None, (estimate.remark(), chance)))
        return f"{self.judgement().text()}{f' ({remark})' if remark else ''}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the claim, and what is known of it."""
        decision, judged = self.decision, self.judgement()
        return {
            **self.evidence.claim.model_dump(mode="json"),
            "seeds": judged.seeds,
            "decided_at_seeds": decision.decided_at,
            "decided_by": decision.decided_by,
            "difference_points": judged.difference,
            "difference_low_points": None if judged.interval is None else judged.interval[0],
            "difference_high_points": None if judged.interval is None else judged.interval[1],
            "direction_p": judged.direction_p,
            "equivalence_p": judged.equivalence_p,
            "smallest_difference_points": judged.smallest_difference,
            "more_seeds": judged.more_seeds,
            "verdict": judged.word,
            "sentence": self.sentence(),
        }


def stand(evidence: Sequence[Evidence]) -> list[Standing]:
    """Return where all claims stand, corrected for looks and families."""
    decisions = decide([each.taken() for each in evidence])
    sizes = Counter(each.claim.family for each in evidence)
    return [Standing(each, found, sizes[each.claim.family]) for each, found in zip(evidence, decisions, strict=True)]


def at_chance(*variants: Records) -> bool:
    """Return True if no variant is known to be above chance: neither the interval of its mean over seeds lies above it,
    nor that of each seed over test videos.  False where the records do not say what chance is."""
    for records in variants:
        runs = list(records.values())
        levels = [level for record in runs if (level := chance_of(record)) is not None]
        if not levels:
            return False
        ends = students_interval([float(record["metrics"]["top1_percent"]) for record in runs])
        lows = [float(record["metrics"].get("top1_low_percent", 0.0)) for record in runs]
        if max(min(lows), ends[0] if ends is not None else 0.0) > max(levels):
            return False
    return True


def difference(first: Records, second: Records, runs_dir: Path) -> Estimate:
    """Return the difference of two variants over common seeds, videos that belong together averaged.

    Nested, where each seed has test videos of its own, crossed, where all have the same.

    Raises InputError where a run has left no scores, where the two were not tested on the same videos, and where some
    seeds share test videos and others do not.
    """
    groups: dict[str, str] = {}
    sides = []
    for records in (first, second):
        runs = {}
        for seed, record in records.items():
            scores, data = RunFolder(runs_dir, str(record["hash"])).scores, record["spec"].get("data", {})
            runs[seed], of_run = _right(scores, _fingerprint(record), json.dumps(data, sort_keys=True))
            join_clusters(groups, of_run)
        sides.append(runs)
    estimate = crossed_difference if design_of(*sides) == "crossed" else nested_difference
    return estimate(sides[0], sides[1], groups)


def _fingerprint(record: Mapping[str, Any]) -> str:
    return str(record["dataset"][record.get("evaluated_on") or "test"]["fingerprint"])


@lru_cache(maxsize=4096)
def _right(scores: Path, fingerprint: str, data: str) -> tuple[dict[str, float], dict[str, str]]:
    """Return by test video whether it was right, and the group of each; names begin with what tells sets apart.

    data: the run's data as JSON, of which a probe's kind says what belongs together.
    """
    if not scores.is_file():
        raise InputError(f"{scores}: no such file, which a finished run leaves; the claims need it")
    rows = read_scores(scores).per_video.sort_values("path", kind="stable")
    names = [f"{fingerprint}:{name}" for name in names_of(rows["path"].astype(str).tolist())]
    right = [float(each) for each in right_of(rows)]
    kept = rows["group"].tolist() if "group" in rows else None
    labels = [f"{fingerprint}:{group}" for group in groups_of(json.loads(data), len(rows), kept)]
    return dict(zip(names, right, strict=True)), dict(zip(names, labels, strict=True))
