"""Artefact of the paper, a table or a figure: its runs, its report and further files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from timesformer_experiments.report.report import Report
    from timesformer_experiments.specs.run import RunSpec

Profile = Literal["smoke", "quick", "full"]
PROFILES: tuple[Profile, ...] = get_args(Profile)


@dataclass(frozen=True)
class Folders:
    """Folders.  data: probes and decoded frames; runs: folders of the runs; out: results."""

    data: Path
    runs: Path
    out: Path


def _nothing_more(records: Sequence[dict[str, Any]], profile: Profile, folders: Folders) -> Sequence[Path]:
    return ()


def _nothing_measured(
    records: Sequence[dict[str, Any]], profile: Profile, folders: Folders, jobs: int
) -> Sequence[dict[str, Any]]:
    return ()


@dataclass(frozen=True)
class Artefact:
    """Table or figure of the paper.

    `plan(profile)` returns the required runs, none if everything is counted. `measure(records, profile, folders, jobs)`
    measures the models of the finished runs with `jobs` processes and returns further records, with `hash` and
    `outcome`. `report(records, profile)` makes the report from these records only. `finish(records, profile, folders)`
    writes further files to the results and returns their paths.
    """

    name: str
    title: str
    plan: Callable[[Profile], Sequence[RunSpec]]
    report: Callable[[Sequence[dict[str, Any]], Profile], Report]
    finish: Callable[[Sequence[dict[str, Any]], Profile, Folders], Sequence[Path]] = _nothing_more
    measure: Callable[[Sequence[dict[str, Any]], Profile, Folders, int], Sequence[dict[str, Any]]] = _nothing_measured
