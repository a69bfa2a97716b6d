"""Numbers of docs/skills.md are those of the committed records."""

import re
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[4]
SCHEMES = ("joint", "divided", "local_global", "axial", "trajectory", "space")


def test_the_table_of_the_page_is_that_of_the_records() -> None:
    frame = pd.read_csv(ROOT / "results" / "skills" / "quick" / "skills.csv")
    found = frame.set_index(["probe", "dial", "depth", "scheme"])["measured_top1_percent"]
    lines = re.findall(
        r"^\| `(\w+)` \(\d+\) \| `([^`]+)`(, one block)? \| (.*) \|$", (ROOT / "docs/skills.md").read_text(), re.M
    )
    told = {(probe, dial, 1 if one else 2) for probe, dial, one, _ in lines}
    for probe, dial, one, numbers in lines:
        expected = [f"{found[probe, dial, 1 if one else 2, scheme]:.1f}" for scheme in SCHEMES]
        assert [number.strip() for number in numbers.split("|")] == expected, (probe, dial)
    parts = {("contact", f"offset={part}", 1) for part in ("frame", "place", "elsewhere")}
    assert told == set(found.index.droplevel("scheme")) - parts


def test_bounds_and_the_count_of_hits() -> None:
    frame = pd.read_csv(ROOT / "results" / "skills" / "quick" / "skills.csv")
    assert (frame["measured_top1_low_percent"] <= frame["bound_percent"]).all()
    hits, every = int((frame["outcome"] == "hit").sum()), len(frame)
    assert f"{hits} of {every} predictions" in " ".join((ROOT / "docs/skills.md").read_text().split())


def test_what_classifiers_without_attention_have() -> None:
    frame = pd.read_csv(ROOT / "results" / "skills" / "quick" / "skills.csv")
    solved = frame["probe"].eq("cue") | (frame["probe"].eq("shell") & frame["dial"].eq("patches_per_frame=0"))
    best = frame.assign(of=frame["probe"].eq("match")).loc[~solved].groupby("of")["cheap_best_percent"].max()
    text = " ".join((ROOT / "docs/skills.md").read_text().split())
    assert (
        f"at most {best[True]:.1f} % on `match` and {best[False]:.1f} % on `shell`, `contact`, `bind` and `spin`"
        in text
    )
    assert f"has up to {frame.loc[frame['probe'] == 'cue', 'cheap_best_percent'].max():.1f} %" in text
    nothing = {"patches_per_frame=0", "ring=2", "gap=3", "gap=5", "gap=7"}
    assert set(frame.loc[frame["ranks_nothing"].notna(), "dial"]) == nothing


def test_no_scheme_is_far_ahead_of_trajectory_where_a_probe_ranks() -> None:
    frame = pd.read_csv(ROOT / "results" / "skills" / "quick" / "skills.csv")
    ranked = frame.loc[frame["ranks_nothing"].isna() & frame["depth"].eq(2)]
    table = ranked.pivot(index=["probe", "dial"], columns="scheme", values="measured_top1_percent")
    ahead = table.drop(columns="trajectory").sub(table["trajectory"], axis=0).stack()
    probe, dial, scheme = ahead.idxmax()
    assert (probe, dial, scheme, ahead.max() < 1) == ("bind", "speed=3", "joint", True)
    best = table.loc[probe, dial]
    text = " ".join((ROOT / "docs/skills.md").read_text().split())
    assert f"{best[scheme]:.1f} against {best['trajectory']:.1f} %), which says little with one seed" in text
