"""The report on what schemes see: from records that no one has trained to its table, maps and sentences."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.experiments.paper.skills.skill_files import in_place, records_of, share
from timesformer.data.probes.kinds.contact import Contact
from timesformer.errors import InputError
from timesformer_experiments.paper.artefact import Folders
from timesformer_experiments.paper.artefacts.skills.skills import ARTEFACT
from timesformer_experiments.paper.skills import beside as files
from timesformer_experiments.paper.skills.bounds import met, share_met
from timesformer_experiments.paper.skills.measured import CHEAP, CURVE, dial_said
from timesformer_experiments.paper.skills.plan import Cell, cells, followups
from timesformer_experiments.paper.skills.registered import Value, skills
from timesformer_experiments.report.report import Report, write

FOLLOWUPS = [
    {"probe": "match", "scheme": "divided", "value": "axis", "depth": 2, "says": "?", "change": {"recipe.steps": 90}},
    {"probe": "bind", "scheme": "joint", "value": 1, "depth": 2, "says": "slowly?", "change": {"recipe.steps": 90}},
    {"probe": "cue", "scheme": "joint", "value": 7, "depth": 2, "says": "a start?", "start": 5},
    {"probe": "contact", "scheme": "joint", "value": "place", "depth": 2, "says": "?", "change": {"recipe.lr": 0.01}},
]
PLANTED: dict[tuple[str, Value, str, int], float] = {
    ("match", "axis", "divided", 2): 90.0,  # predicted 26
    ("bind", 1, "joint", 2): 55.0,  # predicted 99
    ("cue", 7, "joint", 2): 30.0,  # predicted 60
    ("cue", 3, "joint", 2): 30.0,  # predicted 50
    ("spin", 2, "space", 2): 80.0,  # which no weights can have
}
"""Misses, by probe, value, scheme and depth."""
AFTER = {"match": 91.0, "bind": 96.0, "cue": 31.0, "contact": 90.0}
"""Accuracy of the follow-ups."""


def told(cell: Cell, count: int) -> list[bool]:
    """Contact: right where twins meet in at least half of an offset's clips, else every other group."""
    kind = Contact()
    pairs = met(cell.spec.model)
    sees = {offset: share_met(kind, pairs, offset) >= 0.5 for offset in kind.offsets}
    clips = sorted(kind.clips(1, count), key=lambda clip: clip.name)
    rounds = [clip.source // len(kind.offsets) for clip in clips]
    return [sees[kind.offset(clip)] or turn % 2 == 0 for clip, turn in zip(clips, rounds, strict=True)]


def right(cell: Cell, count: int) -> list[bool]:
    """As predicted, but for what is planted."""
    if cell.follow is not None:
        return share(AFTER[cell.probe], count)
    if cell.probe == "contact":
        return told(cell, count)
    predicted = skills().probes[cell.probe].prediction(cell.scheme, cell.depth, cell.value).predicted_percent
    return share(PLANTED.get(cell.point, predicted), count)


@pytest.fixture(scope="module")
def entries() -> list[dict[str, Any]]:
    """Classifiers without attention: at 30 % everywhere, but nearly as good as the best scheme on bind at speed 3."""
    found = [
        {"kind": CHEAP, "probe": probe, "value": str(value), "classifier": "mean_frame", "top1_percent": 30.0}
        for probe, skill in skills().probes.items()
        for value in skill.values
    ]
    return [*found, {"kind": CHEAP, "probe": "bind", "value": "3", "classifier": "a forest", "top1_percent": 86.0}]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, Any]]) -> Iterator[Report]:
    with in_place(tmp_path_factory.mktemp("skills"), FOLLOWUPS):
        records = records_of([*cells("quick"), *followups("quick")], right)
        yield ARTEFACT.report([*records, *entries], "quick")


def row(made: Report, **where: Any) -> dict[str, Any]:
    frame = made.table.frame
    for name, value in where.items():
        frame = frame[frame[name] == value]
    (found,) = frame.to_dict(orient="records")
    return {str(key): value for key, value in found.items()}


def part(made: Report, name: str) -> Any:
    return next(each for each in made.parts if each.name == name)


def test_columns_and_rows(made: Report) -> None:
    wanted = (
        "probe dial scheme depth seeds measured_top1_percent measured_top1_low_percent measured_top1_high_percent "
        "bound_percent predicted_percent cheap_best_percent"
    )
    frame = made.table.frame
    assert list(frame.columns[:11]) == wanted.split()
    points = sum(len(skill.points("quick")) for skill in skills().probes.values())
    assert len(frame) == 6 * points == 168
    assert not frame.duplicated(["probe", "dial", "scheme", "depth"]).any()
    assert (frame["seeds"] == 1).all()
    assert frame[wanted.split()].notna().all(axis=None)
    assert (frame["measured_top1_low_percent"] <= frame["measured_top1_percent"]).all()


def test_hits_and_misses(made: Report) -> None:
    others = made.table.frame[made.table.frame["probe"] != "contact"]
    missed = others[others["outcome"] == "miss"]
    found = set(zip(missed["probe"], missed["dial"], missed["scheme"], missed["depth"], strict=True))
    assert found == {(probe, dial_said(probe, value), *rest) for probe, value, *rest in PLANTED}
    said = "\n".join(made.findings)
    assert "Miss: bind, speed=1, joint, 2 blocks: predicted 99 % (learnt), measured" in said
    assert "Miss: cue, gap=3, joint, 2 blocks" in said
    assert row(made, probe="cue", dial="gap=3", scheme="joint")["followup"].startswith("left open")
    assert "One seed: a difference says that these two models differ, and ranks no schemes" in said
    assert "better" not in said


def test_followups_stand_beside_their_misses(made: Report) -> None:
    table = part(made, "followups").table.frame
    answers = dict(zip(table["probe"], table["answer"], strict=True))
    assert re.fullmatch(r"learns slowly: 9[56]\.\d % with recipe.steps=90", answers["bind"])
    assert answers["cue"].startswith("not seen to learn")
    assert answers["cue"].endswith("weights of gap=5")
    assert answers["match"].startswith("stays above the prediction")
    assert row(made, probe="bind", dial="speed=1", scheme="joint", depth=2)["followup"] == answers["bind"]
    assert row(made, probe="bind", dial="speed=1", scheme="axial", depth=2)["outcome"] == "hit"


def test_a_probe_that_classifiers_solve_ranks_nothing(made: Report) -> None:
    shut = made.table.frame[made.table.frame["ranks_nothing"].notna()]
    assert set(zip(shut["probe"], shut["dial"], strict=True)) == {("bind", "speed=3")}
    said = [finding for finding in made.findings if "ranks nothing" in finding]
    assert len(said) == 1
    assert said[0].startswith("bind, speed=3, 2 blocks ranks nothing: a classifier without attention reaches 86.0 %")
    ranked = part(made, "beaten").table.frame
    assert "speed=3" not in set(ranked["dial"])
    overview = part(made, "overview").table.frame
    assert overview.set_index(["probe", "dial", "depth"])["ranks"].value_counts().to_dict() == {"yes": 27, "nothing": 1}


def test_without_classifiers_nothing_is_ranked() -> None:
    bare = ARTEFACT.report(records_of(cells("smoke"), lambda cell, count: share(50, count)), "smoke")
    assert bare.table.frame["ranks_nothing"].notna().all()
    assert "beaten" not in {each.name for each in bare.parts}
    assert "Steps too few to learn anything: these accuracies mean nothing." in bare.findings


def test_where_one_scheme_sees_what_another_does_not(made: Report) -> None:
    found = part(made, "beaten").table.frame.set_index(["scheme", "other"])
    ahead = found.loc[("axial", "joint")]
    assert ahead["measured_ahead_points"] > 50
    assert ahead["verdict"] == "one seed; these two models differ"
    assert ahead["measured_ahead_low_points"] > 0
    assert {scheme for scheme, _ in found.index} == {"joint", "divided", "local_global", "axial", "trajectory"}
    assert found.loc[("divided", "space")]["measured_points_tried"] == found["measured_points_tried"].max() == 18


def test_the_map_of_contact_shows_quadrants_parities_and_columns(made: Report) -> None:
    found = part(made, "contact").table.frame
    deep = found[found["depth"] == 2].set_index(["scheme", "offset_frames", "offset_rows", "offset_columns"])
    percent, meeting = deep["measured_top1_percent"], deep["counted_meeting_percent"]
    assert percent["divided", 1, 0, 0] == 100  # a column
    assert percent["divided", 1, 1, 1] == percent["divided", 1, 0, 1] == 50
    assert percent["local_global", 1, 0, 1] == 100  # inside of a quadrant, mostly
    assert percent["local_global", 1, 1, 1] == 50  # across a border, mostly
    assert percent["local_global", 0, 2, 2] == 100  # parity, across the border
    assert percent["local_global", 0, 2, 1] == percent["local_global", 1, 2, 2] == 50
    assert (percent["joint"] == 100).all()
    assert ((percent == 100) == (meeting >= 50)).all()
    assert len(deep) == 6 * 37
    said = next(line for line in part(made, "contact").findings if line.startswith("local_global, 2 blocks"))
    assert "100.0 % at the" in said
    own = deep.loc["local_global"]
    expected = np.corrcoef(own["counted_meeting_percent"], own["measured_top1_percent"])[0, 1]
    assert f"correlation with the declared share {expected:.2f}" in said
    whole = row(made, probe="contact", dial="offset=frame", scheme="divided", depth=2)
    assert whole["measured_top1_percent"] == 100
    parts = made.table.frame[(made.table.frame["probe"] == "contact") & (made.table.frame["depth"] == 2)]
    counts = parts[parts["scheme"] == "joint"].set_index("dial")["measured_test_videos"].to_dict()
    assert counts == {"offset=all": 2368, "offset=frame": 768, "offset=place": 64, "offset=elsewhere": 1536}


def test_more_than_the_bound_contradicts_a_proof(made: Report) -> None:
    said = [finding for finding in made.findings if finding.startswith("Contradicts a proof")]
    assert len(said) == 1
    assert "spin, ring=2, space, 2 blocks" in said[0]


def test_a_probe_that_is_left_out_is_said_to_be(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    with in_place(tmp_path, left_out={"cue", "contact"}):
        records = records_of(cells("quick"), right)
        report = ARTEFACT.report([*records, *entries], "quick")
    assert set(report.table.frame["probe"]) == {"match", "shell", "bind", "spin"}
    assert "contact" not in {each.name for each in report.parts}
    assert "Not run in this profile, for want of time: contact, cue; their predictions stay." in report.findings


def test_a_missing_run_is_named() -> None:
    records = records_of(cells("smoke")[1:], lambda cell, count: share(50, count))
    with pytest.raises(InputError, match="no finished run of skills-smoke-match-axis-joint-d2-s0"):
        ARTEFACT.report(records, "smoke")


@pytest.mark.slow
def test_seeds_have_their_own_videos_and_are_more_at_the_registered_value(
    tmp_path: Path, entries: list[dict[str, Any]]
) -> None:
    with in_place(tmp_path):
        records = records_of(cells("full"), right)
        for record in records:
            record["dataset"]["test"]["fingerprint"] += str(record["seed"])
        full = ARTEFACT.report([*records, *entries], "full")
    seeds = full.table.frame.groupby(["probe", "dial", "depth"])["seeds"].unique().map(list)
    assert [place for place, many in seeds.items() if many == [5]] == [
        ("bind", "speed=1", 2), ("contact", "offset=all", 2), ("contact", "offset=elsewhere", 2),
        ("contact", "offset=frame", 2), ("contact", "offset=place", 2), ("cue", "gap=7", 2), ("match", "move=axis", 2),
        ("shell", "patches_per_frame=1", 2), ("spin", "ring=3", 2),
    ]  # fmt: skip
    assert set(map(tuple, seeds)) == {(3,), (5,)}
    assert not any("One seed" in line for line in full.findings)
    assert set(full.table.frame["depth"]) == {1, 2, 3, 4}


def test_the_report_is_written_from_records_and_files_beside_them(made: Report, tmp_path: Path) -> None:
    written = {path.name for path in write(made, tmp_path)}
    assert written == {
        "skills.csv", "skills.md", "skills.png", "report.html", "records.jsonl", "overview.csv", "beaten.csv",
        "followups.csv", "contact.csv", "contact.png",
    }  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    assert "What each scheme can and cannot see" in page
    assert page.index("in brackets, the prediction") < page.index("Runs, with 95 % intervals")
    assert list(pd.read_csv(tmp_path / "skills.csv").columns) == list(made.table.frame.columns)
    assert "## Contact: accuracy per offset beside who meets whom" in (tmp_path / "skills.md").read_text()


def test_files_beside_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are written once a run's curve is there, read again, and measured once for each probe."""
    asked: list[str] = []

    def cheap(info: Any, cache: Any) -> dict[str, Any]:
        asked.append(info.name)
        return {"mean_frame": type("Result", (), {"top1_percent": 31.5})}

    class Info:
        def __init__(self, data: Any) -> None:
            self.name, self.fingerprint = data.probe, f"of-{data.probe}"

    monkeypatch.setattr(files, "cheap_classifiers", cheap)
    monkeypatch.setattr(files, "prepare", lambda data, place: Info(data))
    places = Folders(tmp_path / "data", tmp_path / "runs", tmp_path / "out")
    cell = cells("smoke")[0]
    (places.runs / cell.spec.hash()).mkdir(parents=True)
    steps = pd.DataFrame({"step": range(100), "loss": 1.0, "accuracy": np.linspace(0, 1, 100)})
    steps.to_parquet(places.runs / cell.spec.hash() / "curve.parquet")
    for _ in range(2):
        assert files.measure([], "smoke", places, 1) == ()
    assert asked == ["match", "shell", "contact", "cue", "bind", "spin"]
    found = files.beside(places.out, "smoke")
    cheap_rows = [entry for entry in found if entry["kind"] == CHEAP]
    assert [(entry["probe"], entry["top1_percent"]) for entry in cheap_rows] == [(name, 31.5) for name in asked]
    curve = [entry for entry in found if entry["kind"] == CURVE]
    assert [entry["step"] for entry in curve] == list(range(5, 101, 5))
    assert curve[0]["measured_train_top1_percent"] == pytest.approx(2.02)
    assert files.beside(tmp_path / "nowhere", "smoke") == []
    (places.out / "skills" / "smoke" / "cheap.csv").write_text("a,value\n1,2\n")
    with pytest.raises(InputError, match=r"cheap\.csv: no column probe"):
        files.beside(places.out, "smoke")
