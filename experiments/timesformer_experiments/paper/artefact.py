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


def _nothing_beside(results: Path, profile: Profile) -> Sequence[dict[str, Any]]:
    return ()


def _nothing_measured(
    records: Sequence[dict[str, Any]], profile: Profile, folders: Folders, jobs: int
) -> Sequence[dict[str, Any]]:
    return ()


@dataclass(frozen=True)
class Artefact:
    """Table or figure of the paper.

    `plan(profile)`: the runs that it needs, none if everything is counted. `measure(records, profile, folders, jobs)`:
    more records, of what is measured on the finished runs' models by so many processes, with `hash` and `outcome`.
    `report(records, profile)`: what is shown, made from the records of the runs and these alone. `finish(records,
    profile, folders)`: leaves more files in the results and returns their paths. `beside(results, profile)`: entries
    from other files of the results folder, which `report` gets after the records and does not keep among them.
    """

    name: str
    title: str
    plan: Callable[[Profile], Sequence[RunSpec]]
    report: Callable[[Sequence[dict[str, Any]], Profile], Report]
    finish: Callable[[Sequence[dict[str, Any]], Profile, Folders], Sequence[Path]] = _nothing_more
    measure: Callable[[Sequence[dict[str, Any]], Profile, Folders, int], Sequence[dict[str, Any]]] = _nothing_measured
    beside: Callable[[Path, Profile], Sequence[dict[str, Any]]] = _nothing_beside
