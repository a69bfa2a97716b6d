"""The list of columns: complete for real frames, as it stands on the page, with the types that are promised."""

import re
from pathlib import Path

import pandas as pd
import pytest

from tests.experiments.sweep_records import write_sweep
from timesformer_experiments import load_results
from timesformer_experiments.records.columns import NOT_DOCUMENTED, describe, documented, to_markdown
from timesformer_experiments.records.frame import MAKE, TYPES

ROOT = Path(__file__).parents[3]
FOLDERS = [
    ROOT / "results" / name for name in ("table1/full", "sweeps/cost_grid", "sweeps/probe_grid", "localisation/full")
]


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[pd.DataFrame]:
    made = tmp_path_factory.mktemp("made")
    write_sweep(made, {"model.attention": ["space", "divided"], "seed": [0, 1]}, scores=False)
    return [load_results(folder) for folder in (*FOLDERS, made)]


def test_every_column_of_real_frames_is_documented(frames: list[pd.DataFrame]) -> None:
    for frame in frames:
        found = describe(frame)
        assert found["column"].tolist() == list(frame.columns)
        assert found[found["meaning"] == NOT_DOCUMENTED]["column"].tolist() == []
        assert (found["values"] <= len(frame)).all()
        assert found.set_index("column").loc["top1_percent" if "top1_percent" in frame else "params", "values"] > 0
    frame = frames[0].assign(own=1)
    assert describe(frame).iloc[-1]["meaning"] == NOT_DOCUMENTED


def test_types_are_those_of_the_frame_and_units_those_of_the_names(frames: list[pd.DataFrame]) -> None:
    of_kinds = {kind: str(pd.Series(make([None])).dtype) for kind, make in MAKE.items()}
    for frame in frames:
        found = describe(frame).set_index("column")
        for name in set(TYPES) & set(found.index):
            if TYPES[name] == "time":
                assert re.fullmatch(r"datetime64\[\w+, UTC\]", found.loc[name, "type"]), name
            else:
                assert found.loc[name, "type"] == of_kinds[TYPES[name]], name
    units = describe(frames[0]).set_index("column")["unit"]
    assert units[["top1_percent", "wall_seconds", "train_clips_per_second", "environment.memory_bytes"]].tolist() == [
        "%", "s", "1/s", "bytes",
    ]  # fmt: skip
    assert units[["model.image_height", "started_utc", "name", "params"]].tolist() == ["pixels", "UTC", "", ""]


def test_names_come_once_and_the_page_has_the_list() -> None:
    names = [each.name for each in documented()]
    assert len(names) == len(set(names))
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"<!-- columns:begin -->\n(.*?)<!-- columns:end -->", page, flags=re.DOTALL)
    assert listed == to_markdown()  # `python -m timesformer_experiments.records.columns` writes it
