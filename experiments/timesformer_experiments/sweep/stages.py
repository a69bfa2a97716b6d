"""Runs of a sweep, as far as they are known: with `tune` and `until` it depends on what came of earlier runs.

It is worked out from the records alone, so a sweep that was interrupted goes on, drivers that share a folder agree, and
the end is that of an undisturbed sweep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from timesformer.errors import InputError
from timesformer_experiments.analysis.claims import Standing
from timesformer_experiments.records.log import LOG, latest, read_records
from timesformer_experiments.specs.claims import Claims
from timesformer_experiments.specs.job import Job
from timesformer_experiments.specs.levels import level_of
from timesformer_experiments.specs.run import RunSpec
from timesformer_experiments.specs.sweep import Cell, Sweep
from timesformer_experiments.sweep.tune import Choice, Outcomes, Tuning, key_of, tuning
from timesformer_experiments.sweep.until import Looked, estimator_of, look, require_registered


@dataclass(frozen=True)
class Known:
    """State of knowledge of a sweep.

    jobs: to be run, or run.  expected: jobs that stand for final runs whose recipe is not chosen yet, with that of the
    first draw and on validation; they are never run.  most_runs: if no claim is decided.  standings: of the claims.
    held: variants whose draws have failed.
    """

    jobs: dict[str, Job]
    expected: dict[str, Job] = field(default_factory=dict)
    most_runs: int = 0
    standings: list[Standing] = field(default_factory=list)
    held: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stages:
    """A sweep with its file, and the folder of its runs.

    Raises InputError for claims that do not suit the sweep, or that were changed after the first final run.
    """

    sweep: Sweep
    file: Path
    runs_dir: Path

    def __post_init__(self) -> None:
        if self.claims is not None:
            assert self.sweep.until is not None
            require_registered(self.sweep, self.sweep.until, self.claims)
            self._require_frozen(self.claims.digest())

    @cached_property
    def claims(self) -> Claims | None:
        """The registered claims."""
        return None if self.sweep.until is None else self.sweep.until.registered(self.file.parent)

    @cached_property
    def _tuning(self) -> Tuning | None:
        return None if self.sweep.tune is None else tuning(self.sweep, self.file, self.file.parent)

    def known(self, outcomes: Outcomes) -> Known:
        """Return what is known, given the records of finished and failed runs by hash."""
        if not self.sweep.staged:
            return Known(self.sweep.jobs(self.file, self.file.parent))
        tuned, choices = self._tuning, dict[str, Choice]()
        variants = [key_of(variant) for variant in self.sweep.variants()]
        seeds = self._first_seeds(variants)
        jobs: dict[str, Job] = {}
        if tuned is not None:
            if not tuned.ended(outcomes):
                expected = self._finals(seeds, None)
                return Known(dict(tuned.jobs), expected, self._most(tuned.jobs, expected))
            choices, jobs = tuned.choices(outcomes), dict(tuned.jobs)
            variants = [variant for variant in variants if variant in choices]
        looked = Looked({variant: seeds[variant] for variant in variants}, [])
        if self.claims is not None:

            def runs_of(wanted: Mapping[str, int]) -> dict[str, list[str]]:
                return self._hashes(self._finals(wanted, choices), wanted)

            looked = look(self.sweep, self.claims, variants, runs_of, outcomes, estimator_of(self.runs_dir))
        finals = self._finals(looked.seeds, choices)
        held = tuple(variant for variant in seeds if variant not in looked.seeds)
        return Known(jobs | finals, {}, self._most(jobs, finals), looked.standings, held)

    def _first_seeds(self, variants: list[str]) -> dict[str, int]:
        if self.sweep.until is not None:
            return dict.fromkeys(variants, self.sweep.until.seeds[0])
        return {key_of(variant): len(self.sweep.seeds(variant)) for variant in self.sweep.variants()}

    def _finals(self, seeds: Mapping[str, int], choices: Mapping[str, Choice] | None) -> dict[str, Job]:
        """Return the jobs of the final runs; without choices those of the first draw."""
        tune, cells = self.sweep.tune, []
        notes = {} if self.claims is None else {"claims_digest": self.claims.digest()}
        for variant in self.sweep.variants():
            key = key_of(variant)
            if key not in seeds:
                continue
            more: dict[str, Any] = {}
            if tune is not None:
                expected = tune.draws()[0] | {"evaluate_on": tune.on}  # the test list is not opened yet
                more = expected if choices is None else choices[key].fields(tune)
            cells += [
                Cell(variant | seed, more | self.sweep.drawn_by(seed), notes)
                for seed in self.sweep.seeds(variant, seeds[key])
            ]
        if self.sweep.seed_axes():  # in the order of the axes
            order = self.sweep.values()
            cells = sorted(cells, key=lambda cell: order.index({path: cell.values[path] for path in self.sweep.axes}))
        jobs = self.sweep.jobs(self.file, self.file.parent, cells)
        return {key: self._with_level(job) for key, job in jobs.items()}

    def _with_level(self, job: Job) -> Job:
        """Return the job with the level that is registered for it, below which a training counts as failed."""
        if self.claims is None or job.cell is None or not isinstance(job.spec, RunSpec):
            return job
        level = level_of(self.claims.failed_below_percent, job.spec)
        return job if level is None else replace(job, notes=job.notes | {"failed_below_percent": level})

    def _hashes(self, finals: Mapping[str, Job], seeds: Mapping[str, int]) -> dict[str, list[str]]:
        """Return the hashes of the final runs by variant, in the order of the seeds."""
        place = {key_of(job.cell): key for key, job in finals.items() if job.cell is not None}
        return {
            key_of(variant): [
                place[key_of(variant | seed)] for seed in self.sweep.seeds(variant, seeds[key_of(variant)])
            ]
            for variant in self.sweep.variants()
            if key_of(variant) in seeds
        }

    def _most(self, jobs: dict[str, Job], finals: dict[str, Job]) -> int:
        """Return the runs of the sweep if all seeds are asked for."""
        until = self.sweep.until
        more = 0
        if until is not None and self.claims is not None:
            sides = require_registered(self.sweep, until, self.claims)
            most: dict[str, int] = {}
            for claim in self.claims.claims:
                last = max([count for count in until.seeds if count <= claim.most_seeds], default=until.seeds[0])
                for side in sides[claim.family, claim.name]:
                    most[side] = max(most.get(side, 0), last)
            all_seeds = sum(max(count, until.seeds[0]) for count in most.values())
            all_seeds += until.seeds[0] * (len(self.sweep.variants()) - len(most))
            more = max(0, all_seeds - sum(job.cell is not None for job in finals.values()))
        return len(jobs | finals) + more

    def superseded(self, outcomes: Outcomes) -> int:
        """Return how many final runs the folder has of recipes that were chosen by another tuning: their test results
        were known before these are chosen.  0 while draws are missing."""
        log = self.runs_dir / LOG
        if self._tuning is None or not self._tuning.ended(outcomes) or not log.exists():
            return 0
        digests = {choice.digest for choice in self._tuning.choices(outcomes).values()}
        finals = [each for each in latest(read_records(log)).values() if each.get("cell") and each.get("selection")]
        return sum(each["outcome"] == "done" and each["selection"]["tuning_sha256"] not in digests for each in finals)

    def _require_frozen(self, digest: str) -> None:
        log = self.runs_dir / LOG
        for record in latest(read_records(log)).values() if log.exists() else ():
            final = record["outcome"] == "done" and record.get("sweep") == self.sweep.name and record.get("cell")
            if final and record.get("claims_digest") != digest:
                before = record.get("claims_digest")
                known = f"claims with digest {before[:16]}" if before else "no claims"
                raise InputError(
                    f"{self.file}: until.claims: changed after the first final run: {record['name']!r} was made under "
                    f"{known}, these have {digest[:16]}; claims are registered before the runs, so take another --out"
                )
