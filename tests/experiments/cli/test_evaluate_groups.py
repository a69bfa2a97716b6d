"""`timesformer evaluate --group`: the accuracy of a checkpoint over groups of test videos."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.data.conftest import write_video
from tests.experiments.cli.test_evaluate_cli import found, model, refused, run

SIZES = [3, 1, 2, 1, 2, 2, 1]
"""Videos of each subject."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("groups")
    lines = []
    for subject, count in enumerate(SIZES):
        for number in range(count):
            name = f"s{subject}_{number}.mp4"
            write_video(folder / name, frames=4 + number + subject % 3, size=(32, 48))
            lines.append(f"{name} {(subject + number) % 3}")
    (folder / "all.csv").write_text("\n".join(lines) + "\n")
    (folder / "two.csv").write_text("\n".join(lines[:4]) + "\n")
    model(folder / "model")
    return folder


def rows(place: Path, out: Path, *words: object, data: str = "all.csv") -> tuple[dict, pd.DataFrame]:
    answer = found(place / data, "--checkpoint", place / "model", "--protocol", "clip", *words, "--scores", out)
    frame = pd.read_parquet(out)
    return answer, frame.assign(right=frame["label"] == frame["prediction"])


def test_groups_count_the_same_whatever_their_size(place: Path, tmp_path: Path) -> None:
    answer, frame = rows(place, tmp_path / "a.parquet", "--group", r"pattern=^(s\d+)_")
    means = 100 * frame.groupby("group")["right"].mean()
    assert len(means) == answer["groups"] == len(SIZES)
    assert answer["group_top1_percent"] == pytest.approx(means.mean())
    assert answer["top1_percent"] == pytest.approx(100 * frame["right"].mean())
    half = stats.t.ppf(0.975, len(SIZES) - 1) * np.std(means, ddof=1) / np.sqrt(len(SIZES))
    ends = [answer["group_top1_low_percent"], answer["group_top1_high_percent"]]
    assert ends == pytest.approx([max(0, means.mean() - half), min(100, means.mean() + half)])
    assert answer["group_note"] == ""
    same, _ = rows(place, tmp_path / "b.parquet", "--group", r"^(s\d+)_")  # no column of the file: a pattern
    assert same["group_top1_low_percent"] == answer["group_top1_low_percent"]


def test_few_groups_are_taken_as_given(place: Path, tmp_path: Path) -> None:
    answer, frame = rows(place, tmp_path / "a.parquet", "--group", r"^(s\d+)_", data="two.csv")
    assert answer["group_note"] == "conditional on these 2 groups of test videos, too few to speak of others"
    means = 100 * frame.groupby("group")["right"].mean()
    assert answer["group_top1_percent"] == pytest.approx(means.mean())
    words = (place / "two.csv", "--checkpoint", place / "model", "--protocol", "clip", "--group", r"^(s\d+)_")
    shown = run(*words)
    assert shown.exit_code == 0, shown.output
    assert "conditional on these 2 groups" in shown.stdout
    assert "where videos belong together" in " ".join(shown.stdout.split())
    alone = run(*words[:-1], r"^(s\d+_\d+)")  # groups of one video each have the accuracy of the videos
    assert alone.exit_code == 0, alone.output
    assert "where videos belong together" not in " ".join(alone.stdout.split())
    orders = json.loads(run(*words, "--frame-order", "all", "--json").stdout)["frame_orders"][0]["rows"][0]
    assert orders["normal_percent"] == pytest.approx(answer["group_top1_percent"])
    assert orders["groups"] == 2


def test_a_class_has_its_own_groups(place: Path, tmp_path: Path) -> None:
    from timesformer.evaluation.confusion import confusions
    from timesformer_experiments.analysis.classes import class_table

    _, frame = rows(place, tmp_path / "a.parquet", "--group", r"^(s\d+)_")
    table = class_table(confusions(frame, None, (), 3), "x", frame).frame
    for number, row in enumerate(table.to_dict(orient="records")):
        part = frame[frame["label"] == number]
        assert row["groups"] == part["group"].nunique()
        assert row["top1_percent"] == pytest.approx(100 * part.groupby("group")["right"].mean().mean())


def test_a_column_of_the_file(place: Path, tmp_path: Path) -> None:
    from timesformer.data import Annotations, Sample
    from timesformer_experiments.cli.shared.evaluated import with_groups

    file = tmp_path / "spoken.csv"
    file.write_text("path,speaker\na.mp4,anna\nb.mp4,ben\nc.mp4,anna\n")
    read = Annotations(tuple(Sample(Path(name), 0, name) for name in ("a.mp4", "b.mp4", "c.mp4")))
    for text in ("speaker", "column=speaker"):
        assert [sample.group for sample in with_groups(read, file, text)] == ["anna", "ben", "anna"]
    entries = tmp_path / "spoken.json"
    entries.write_text(json.dumps([{"id": 1, "speaker": who} for who in "aba"]))
    assert [sample.group for sample in with_groups(read, entries, "speaker")] == ["a", "b", "a"]


def test_what_is_no_group_is_refused(place: Path, tmp_path: Path) -> None:
    words = (place / "all.csv", "--checkpoint", place / "model", "--group")
    assert "finds nothing in this name" in refused(*words, "speaker")
    assert "no regular expression" in refused(*words, "pattern=(")
    assert "column" in refused(*words, "column=speaker")
    (tmp_path / "run.yaml").write_text("name: x\n")
    assert "--group: expected only with an annotation file" in refused(tmp_path / "run.yaml", "--group", "a")
