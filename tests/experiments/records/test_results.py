"""`load_results`: a row a run, typed columns, the record that holds; errors name file and line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import timesformer_experiments
from tests.experiments.sweep_records import AXES, BASE, VIDEOS, jobs, write_cell, write_failure, write_sweep
from timesformer.errors import InputError
from timesformer_experiments import load_results
from timesformer_experiments.records.log import LOG, append_record, make_record
from timesformer_experiments.records.read import CELLS_FILE
from timesformer_experiments.specs.cost import CostSpec

FEW: dict[str, list[Any]] = {"model.attention": ["space", "divided"], "seed": [0, 1]}
TABLE1 = Path(__file__).parents[3] / "results" / "table1"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def edit(path: Path, number: int, **fields: Any) -> None:
    """Changes fields of a record; number: of the line, from 1."""
    records = lines(path)
    records[number - 1] |= fields
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_row_a_cell_with_typed_columns(tmp_path: Path) -> None:
    cells = list(jobs(AXES).values())
    for job in cells[:-1]:
        write_cell(tmp_path, job, scores=False)
    write_failure(tmp_path, cells[-1], "MemoryError: none left", "out_of_memory")
    frame = load_results(tmp_path)
    assert len(frame) == len(cells) == 36
    assert list(frame["hash"]) == [job.hash() for job in cells]
    kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert {name: kinds[name] for name in ("seed", "params", "model.depth", "model.image_height", "test_videos")} == (
        dict.fromkeys(("seed", "params", "model.depth", "model.image_height", "test_videos"), "Int64")
    )
    for name in ("top1_percent", "tflops_total", "wall_seconds", "train_seconds", "recipe.lr", "model.mlp_ratio"):
        assert kinds[name] == "float64", name
    for name in ("model.attention", "outcome", "kind", "data.probe", "protocol", "cell.model.attention", "sweep"):
        assert kinds[name] == "category", name
    assert kinds["model.temporal_fc"] == kinds["environment.git_dirty"] == "boolean"
    assert kinds["hash"] == kinds["name"] == kinds["reason"] == "str"
    assert isinstance(frame["finished_utc"].dtype, pd.DatetimeTZDtype)
    assert str(frame["finished_utc"].dt.tz) == "UTC"
    done, failed = frame.iloc[0], frame.iloc[-1]
    assert (done["outcome"], failed["outcome"], failed["reason_kind"]) == ("done", "failed", "out_of_memory")
    assert pd.isna(done["reason"])
    assert pd.isna(failed["top1_percent"])
    assert pd.isna(failed["params"])
    assert (done["cell.model.num_frames"], done["model.num_frames"], done["cell.seed"], done["seed"]) == (4, 4, 0, 0)
    assert (done["dataset.test.fingerprint"], done["dataset.test.num_videos"]) == ("test", VIDEOS)
    assert done["environment.torch"] and done["environment.processes"] == 1  # noqa: PT018
    assert done["log"] == LOG
    assert not [name for name in frame if name.startswith("spec")]


def test_a_field_that_came_later_has_its_default_where_a_record_lacks_it(tmp_path: Path) -> None:
    for job in jobs({"model.registers": [0, 4], "model.gate": [None, "head"]}).values():
        write_cell(tmp_path, job, scores=False)
    frame = load_results(tmp_path)
    assert list(frame["model.registers"]) == [0, 0, 4, 4]
    assert list(frame["model.gate"].isna()) == [True, False, True, False]


def test_the_record_that_holds(tmp_path: Path) -> None:
    first, second, third, fourth = jobs(FEW).values()
    write_failure(tmp_path, first)
    write_cell(tmp_path, first, scores=False)
    write_failure(tmp_path, first)  # by a driver that did not know
    write_failure(tmp_path, second, "first")
    write_failure(tmp_path, second, "second")
    write_cell(tmp_path, third, scores=False)
    write_cell(tmp_path, third, scores=False, change=lambda metrics: metrics.update(params=7))
    frame = load_results(tmp_path).set_index("hash")
    assert list(frame["outcome"]) == ["done", "failed", "done"]
    assert frame.loc[second.hash(), "reason"] == "second"
    assert frame.loc[third.hash(), "params"] == 7
    assert fourth.hash() not in frame.index


def test_logs_below_a_folder_and_a_log_itself(tmp_path: Path) -> None:
    first, second, third, _ = jobs(FEW).values()
    write_cell(tmp_path / "a", first, scores=False)
    write_failure(tmp_path / "b" / "deeper", first)
    write_cell(tmp_path / "b" / "deeper", second, scores=False)
    write_cell(tmp_path / ".hidden", third, scores=False)
    write_cell(tmp_path / "0123456789abcdef", third, scores=False)  # a run's own folder
    frame = load_results(tmp_path)
    assert sorted(zip(frame["hash"], frame["outcome"], frame["log"], strict=True)) == sorted(
        [(first.hash(), "done", f"a/{LOG}"), (second.hash(), "done", f"b/deeper/{LOG}")]
    )
    assert list(load_results(tmp_path / "a" / LOG)["log"]) == [LOG]


def test_of_two_logs_the_later_record_holds(tmp_path: Path) -> None:
    job = next(iter(jobs(FEW).values()))
    for folder, when, count in (("a", "2026-01-03", 3), ("b", "2026-01-02", 2)):
        write_cell(tmp_path / folder, job, scores=False, change=lambda metrics, n=count: metrics.update(params=n))
        edit(tmp_path / folder / LOG, 1, finished_utc=f"{when}T00:00:00Z")
    frame = load_results(tmp_path)
    assert list(frame["params"]) == [3]


def test_the_order_is_that_of_the_cells_and_old_cells_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cells = write_sweep(tmp_path, FEW, scores=False)
    order = [*list(cells)[::-1][:3]]
    (tmp_path / CELLS_FILE).write_text(json.dumps({"cells": [{"hash": key} for key in order]}))
    assert list(load_results(tmp_path)["hash"]) == order
    assert "left out 1 records of cells that the sweep no longer has" in caplog.text
    (tmp_path / CELLS_FILE).write_text("{}")
    with pytest.raises(InputError, match=r"cells\.json: not the cells of a sweep \(KeyError"):
        load_results(tmp_path)


def test_runs_that_others_start_from_are_no_cells(tmp_path: Path) -> None:
    start = {"name": "image", **BASE}
    cells = jobs({"model.attention": ["space"], "seed": [0, 1]}, base={**BASE, "init_from": start})
    for job in cells.values():
        write_cell(tmp_path, job, scores=False)
    assert list(load_results(tmp_path)["init_from_name"]) == ["image", "image"]
    both = load_results(tmp_path, starts=True)
    assert both.iloc[0]["name"] == "image"
    assert len(both) == 3
    assert pd.isna(both.iloc[0]["sweep"])


def test_committed_records_from_before_there_were_sweeps() -> None:
    frame = load_results(TABLE1)
    assert set(frame["log"]) == {f"full/{LOG}", f"quick/{LOG}"}
    assert (frame["outcome"] == "done").all()
    assert (frame["kind"] == "accuracy").all()
    row = frame[frame["name"] == "table1-full-motion-divided-s0"].iloc[0]
    stored = next(r for r in lines(TABLE1 / "full" / LOG) if r["name"] == "table1-full-motion-divided-s0")
    assert row["top1_percent"] == stored["metrics"]["top1_percent"]
    assert row["data.difficulty.clutter"] == json.dumps(stored["spec"]["data"]["difficulty"]["clutter"])
    assert row["init_from_name"] == stored["init_from"]["name"]


def test_costs_other_sizes_and_several_heads(tmp_path: Path) -> None:
    sizes = {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    for name, size, classes in (("square", 16, 4), ("wide", [8, 16], [3, 5])):
        spec = CostSpec.parse({"name": name, "model": {**sizes, "image_size": size, "num_classes": classes}})
        record = make_record(spec, started_utc="2026-01-01T00:00:00Z", wall_seconds=1, metrics={"macs_per_view": 1})
        append_record(tmp_path / LOG, record)
    frame = load_results(tmp_path)
    assert list(frame["kind"]) == ["cost", "cost"]
    assert frame["seed"].isna().all()
    assert list(frame["model.image_height"]) == [16, 8]
    assert list(frame["model.image_width"]) == [16, 16]
    assert list(frame["model.num_classes"]) == ["4", "[3, 5]"]  # numbers and lists: text
    assert "model.image_size" not in frame


def test_a_folder_without_records_and_an_empty_log(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no records there \(no file records\.jsonl in it or below it\)"):
        load_results(tmp_path)
    (tmp_path / LOG).write_text("")
    frame = load_results(tmp_path)
    assert len(frame) == 0
    assert {"hash", "outcome", "seed", "finished_utc"} <= set(frame.columns)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{broken", r":2: not a record, expected one JSON object"),
        ("[1]", r":2: not a record, expected an object with hash and outcome"),
        ('{"hash": "a", "outcome": "done"}, {"hash": "b", "outcome": "done"}', r":2: not a record, expected one JSON"),
        ({"spec": []}, r":2: spec: expected an object, got \[\]"),
        ({"cell": "x"}, r':2: cell: expected an object or null, got "x"'),
        ({"hash": 3}, r":2: hash: expected text, got 3"),
        ({"outcome": "maybe"}, r":2: outcome: expected one of done, failed, got 'maybe'"),
        ({"record_version": 9}, r":2: record_version: expected 1 or 2, got 9"),
        ({"finished_utc": "yesterday"}, r":2: finished_utc: expected a time such as .*, got 'yesterday'"),
        ({"seed": "one"}, r":2: seed: expected a whole number, got 'one'"),
        ({"metrics": {"top1_percent": "high"}}, r":2: top1_percent: expected a number, got 'high'"),
    ],
)
def test_a_corrupted_line_is_named(tmp_path: Path, line: str | dict[str, Any], said: str) -> None:
    write_sweep(tmp_path, FEW, scores=False)
    log = tmp_path / LOG
    if isinstance(line, dict):
        edit(log, 2, **line)
    else:
        texts = log.read_text().splitlines()
        texts[1] = line
        log.write_text("\n".join([*texts, ""]))
    with pytest.raises(InputError, match=rf"records\.jsonl{said}"):
        load_results(tmp_path)


def test_a_torn_last_line_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_sweep(tmp_path, FEW, scores=False)
    with (tmp_path / LOG).open("a") as log:
        log.write('{"hash": "half')
    assert len(load_results(tmp_path)) == 4
    assert "records.jsonl:5: the last line is torn" in caplog.text


@pytest.mark.integration
def test_the_package_is_imported_without_pandas() -> None:
    code = "import sys, timesformer_experiments; print('pandas' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = timesformer_experiments.nothing
