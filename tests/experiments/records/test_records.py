"""The log of records: append-only, whole lines, nothing lost in silence."""

import json
import logging
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.experiments.spec_fakes import image, small
from timesformer.errors import InputError
from timesformer_experiments.records.log import append_record, environment, make_record, read_records

RECORD = {"hash": "a", "outcome": "done", "metrics": {"top1_percent": 50.0}}


def test_append_and_read(tmp_path):
    path = tmp_path / "runs" / "records.jsonl"
    append_record(path, RECORD)
    append_record(path, RECORD | {"hash": "b", "name": "Zürich"})
    assert [record["hash"] for record in read_records(path)] == ["a", "b"]
    assert path.read_bytes().count(b"\n") == 2


def test_a_torn_last_line_is_reported_and_kept(tmp_path, caplog):
    path = tmp_path / "records.jsonl"
    append_record(path, RECORD)
    with open(path, "ab") as file:
        file.write(b'{"hash": "b", "outc')
    with caplog.at_level(logging.WARNING):
        assert read_records(path) == [RECORD]
    assert f"{path}:2: the last line is torn" in caplog.text
    append_record(path, RECORD | {"hash": "c"})
    assert [record["hash"] for record in read_records(path)] == ["a", "c"]
    assert Path(f"{path}.torn").read_bytes() == b'{"hash": "b", "outc\n'


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"hash": "a"}', ""])
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(RECORD) + "\n" + line + "\n" + json.dumps(RECORD) + "\n")
    with pytest.raises(InputError, match=re.escape(f"{path}:2: not a record")):
        read_records(path)


def test_no_such_log(tmp_path):
    with pytest.raises(InputError, match=r"records\.jsonl: cannot read the records"):
        read_records(tmp_path / "records.jsonl")


def test_an_unwritable_log_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write the records .*file"):
        append_record(tmp_path / "file" / "records.jsonl", RECORD)


def test_figures_are_finite(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_record(tmp_path / "records.jsonl", RECORD | {"metrics": {"loss": float("nan")}})


@pytest.mark.integration
def test_processes_append_side_by_side(tmp_path):
    path = tmp_path / "records.jsonl"
    code = (
        "import sys; from timesformer_experiments.records.log import append_record\n"
        "for i in range(20): append_record(sys.argv[1], {'hash': sys.argv[2], 'outcome': 'done', 'pad': 'x' * 20000})"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    names = [record["hash"] for record in read_records(path)]
    assert sorted(names) == ["a"] * 20 + ["b"] * 20


def test_what_a_record_says():
    start = image()
    spec = small(init_from=start, seed=3)
    record = make_record(spec, started_utc="2024-01-01T00:00:00Z", wall_seconds=1.23456, metrics={"top1_percent": 1.0})
    assert record["hash"] == spec.hash()
    assert record["init_from"] == {"name": "image", "hash": start.hash()}
    assert record["spec"]["model"]["attention"] == "divided"
    assert record["spec"]["recipe"]["steps"] == 4
    assert record["spec"]["init_from"] == start.hash()
    assert (record["seed"], record["protocol"], record["outcome"], record["reason"]) == (3, "clip", "done", None)
    assert record["wall_seconds"] == 1.235
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record["finished_utc"])
    json.dumps(record, allow_nan=False)


def test_the_environment_names_no_machine():
    found = environment()
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0] or found["versions"]["torch"]
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["threads"] == torch.get_num_threads()
    assert found["cpu_cores"] == os.cpu_count()
    assert found["memory_bytes"] > 2**28
    text = json.dumps(found)
    assert socket.gethostname() not in text
    assert str(Path.home()) + "/" not in text


def test_the_commit_is_recorded():
    root = Path(__file__).parents[3]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True)
    expected = head.stdout.strip() if head.returncode == 0 else None
    assert environment()["git_commit"] == expected
    assert (environment()["git_dirty"] is None) == (expected is None)
