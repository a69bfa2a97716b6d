"""The gate before schemes are ranked: a probe that a cheap classifier nearly solves does not tell them apart.

A cheap classifier (of the mean frame, the first frame, the file's size, …) sees next to nothing of a video in time.  If
one of them comes near the best scheme, the scheme's accuracy need not come from what sets it apart from the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from timesformer.data.probes.diagnostics import gate
from timesformer.errors import InputError

KIND = "cheap classifier"


def not_ranked(cheap_percent: float, best_percent: float, classifier: str = "a cheap classifier") -> str:
    """Return why a probe may not rank schemes; empty where it may.

    cheap_percent: of the best cheap classifier; best_percent: of the best scheme.
    """
    if gate(cheap_percent, best_percent):
        return ""
    return f"{classifier} reaches {cheap_percent:.1f} %, the best scheme {best_percent:.1f} %"


def cheap_classifiers(results: Path, profile: str, probes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the best cheap classifier of each probe, as entries beside records, from `probes/` in a results folder.

    A probe that has no file there has no entry.  Raises InputError for a file without these columns.
    """
    found = []
    for probe in probes:
        path = results / "probes" / f"{probe}-{profile}.csv"
        if not path.is_file():
            continue
        rows = pd.read_csv(path)
        lacking = {"classifier", "measured_top1_percent"} - set(rows.columns)
        if lacking or rows.empty:
            raise InputError(f"{path}: no {' and no '.join(sorted(lacking)) or 'row'} (expected cheap classifiers)")
        percents = dict(zip(rows["classifier"].astype(str), rows["measured_top1_percent"].astype(float), strict=True))
        best = max(percents, key=lambda name: percents[name])
        found.append({"kind": KIND, "probe": probe, "classifier": best, "top1_percent": percents[best]})
    return found


def told_apart(entries: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the records of runs, and the entries on cheap classifiers beside them."""
    cheap = [entry for entry in entries if entry.get("kind") == KIND]
    return [entry for entry in entries if entry.get("kind") != KIND], cheap


def reasons(entries: Sequence[Mapping[str, Any]], best: Mapping[str, float]) -> dict[str, str]:
    """Return, by probe that may not rank schemes, why.  best: accuracy of the best scheme by probe [percent]."""
    found = {}
    for entry in entries:
        probe, name = entry["probe"], f"a classifier of {entry['classifier']}"
        if probe in best and (why := not_ranked(entry["top1_percent"], best[probe], name)):
            found[probe] = why
    return found
