"""The table of a simulation: rows, csv and markdown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

TEXTS = {
    "coverage": "How often 95 % intervals for new seeds and new test videos cover the truth, with a number of seeds "
    "that is settled before [%]; goal 93 to 97 %.",
    "coverage where the looks end": "How often the 95 % interval with which a claim is reported, at the look that "
    "decides it or at the last, covers its difference [%]: less often than with a number of seeds that is settled "
    "before, since seeds stop where the difference looks large, or small.",
    "the level of the first look": "How often two equal variants are called different at a level of 0.005, where "
    "0.5 % is meant: by the critical value in use and by Satterthwaite's degrees of freedom.",
    "false direction in a family": "How often at least one claim of a family without a difference is called "
    "supported or contradicted, over all looks [%]; goal at most 5 %.",
    "false equivalence in a family": "How often at least one claim of a family with a difference of the margin or "
    "more is called equivalent, over all looks [%]; goal at most 5 %.",
    "near claims": "How often at least one claim of a family that two variants are near is called contradicted, which "
    "is wrong up to the margin, or supported, which is wrong beyond it, all true differences being exactly the margin "
    "[%]; goal at most 5 %.",
    "either in a family": "How often a family has a false direction or a false equivalence [%]; goal at most 5 %.",
    "directions found in a family": "How often a claim of such a family that has a difference is called supported or "
    "contradicted, and not equivalent [%].",
    "power: direction": "How often a single claim's direction is found, and not equivalence [%].",
    "power: equivalent": "How often a single claim is called equivalent [%]; at a true difference of 2 points or more "
    "that is an error.",
    "two of nine fail": "Each training fails with a probability of two in nine, 40 points below the others [%].",
}
"""Meaning of each part of the table, in its order."""


@dataclass(frozen=True)
class Row:
    """One simulated share.

    spread: standard deviation between seeds [points]; seeds: None over all looks.  percent: of `trials`.
    goal: from and to [percent].  width: mean width of the intervals [points, of shares percent].
    seeds_used: mean number until a claim was decided or the looks ended.
    """

    part: str
    what: str
    spread: float
    seeds: int | None
    percent: float
    trials: int
    goal: tuple[float, float] | None
    claims: int | None = None
    width: float | None = None
    seeds_used: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the row of the csv."""
        share = self.percent / 100
        low, high = self.goal or (None, None)
        return {
            "part": self.part,
            "what": self.what,
            "spread_points": self.spread,
            "seeds": self.seeds,
            "claims": self.claims,
            "percent": self.percent,
            "error_points": 100 * math.sqrt(share * (1 - share) / self.trials),
            "goal_low_percent": low,
            "goal_high_percent": high,
            "holds": None if low is None or high is None else low <= self.percent <= high,
            "width_points": self.width,
            "seeds_used": self.seeds_used,
        }


def to_csv(frame: pd.DataFrame) -> str:
    """Return the table as csv."""
    return frame.astype({"seeds": "Int64", "claims": "Int64"}).to_csv(index=False, float_format="%.6g")


def to_markdown(frame: pd.DataFrame, trials: int) -> str:
    """Return the table as markdown: a table for each part, a row for each setting, a column for each spread."""
    judged = frame[frame["holds"].notna()]
    missed = judged[~judged["holds"].astype(bool)]
    lines = [
        "# What the statistics keep of what they promise",
        "",
        f"{trials:,} simulated trials each, so a share of 5 % is known to ± {200 * math.sqrt(0.0475 / trials):.1f} "
        "points. Written by `python -m timesformer_experiments.analysis.statistics.simulate`; full precision in "
        "`simulation.csv`. "
        "Columns: standard deviation between seeds; in brackets the mean width of the interval or the mean number of "
        "seeds used. A share in bold misses its goal.",
        "",
        f"{len(judged) - len(missed)} of {len(judged)} shares with a goal are within it"
        + (f"; the farthest of the others: {_worst(missed)}." if len(missed) else "."),
    ]
    for part, text in TEXTS.items():
        rows = frame[frame["part"] == part]
        if len(rows) == 0:
            continue
        spreads = sorted(rows["spread_points"].unique())
        heads = ["Setting", "Seeds", "Claims", *(f"SD {spread:g}" for spread in spreads)]
        lines += ["", f"## {part[0].upper()}{part[1:]}", "", text, ""]
        lines += [f"| {' | '.join(heads)} |", f"|{'---|' * 3}{'---:|' * len(spreads)}"]
        for (what, seeds, claims), setting in rows.groupby(["what", "seeds", "claims"], dropna=False, sort=False):
            by_spread = {row["spread_points"]: _cell(row) for row in setting.to_dict("records")}
            cells = [what, _count(seeds), _count(claims), *(by_spread.get(spread, "") for spread in spreads)]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _cell(row: dict[Any, Any]) -> str:
    shown = f"{row['percent']:.2f}" if row["percent"] < 10 else f"{row['percent']:.1f}"
    if row["holds"] is False:
        shown = f"**{shown}**"
    if not pd.isna(row["width_points"]):
        return f"{shown} ({row['width_points']:.1f})"
    return shown if pd.isna(row["seeds_used"]) else f"{shown} ({row['seeds_used']:.1f})"


def _count(value: Any) -> str:
    return "" if pd.isna(value) else str(int(value))


def _worst(missed: pd.DataFrame) -> str:
    rows = missed.to_dict("records")
    row = max(
        rows, key=lambda row: max(row["goal_low_percent"] - row["percent"], row["percent"] - row["goal_high_percent"])
    )
    seeds = "" if pd.isna(row["seeds"]) else f", {int(row['seeds'])} seeds"
    return f"{row['part']}, {row['what']}, SD {row['spread_points']:g}{seeds}: {row['percent']:.1f} %"
