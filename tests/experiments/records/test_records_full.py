"""The log of records on a full disk, and which of several records of a run holds."""

import errno
import json
import os

import pytest

from timesformer.errors import InputError
from timesformer_experiments.records import log as records
from timesformer_experiments.records.log import RESERVE, append_record, keep_reserve, latest, read_records, records_of


def record(key, outcome="done", **other):
    return {"hash": key, "outcome": outcome, **other}


@pytest.fixture
def disk(monkeypatch, tmp_path):
    """A log on a disk with so many bytes left; -1 for enough."""

    class Disk:
        left = -1
        log = tmp_path / "records.jsonl"

        def write(self, descriptor, content):
            if self.left == 0 and not self.reserve_gone():
                raise OSError(errno.ENOSPC, "No space left on device")
            take = len(content) if self.left < 0 or self.reserve_gone() else min(self.left, len(content))
            self.left = self.left if self.left < 0 else self.left - take
            return real(descriptor, bytes(content)[:take])

        kept = False

        def reserve_gone(self):
            return self.kept and not (tmp_path / RESERVE).exists()

    made, real = Disk(), os.write
    monkeypatch.setattr(records.os, "write", made.write)
    return made


def test_a_short_write_leaves_nothing(disk):
    append_record(disk.log, record("a"))
    before = disk.log.read_bytes()
    disk.left = 10
    with pytest.raises(InputError, match=r"cannot write the records .*No space left"):
        append_record(disk.log, record("b"))
    assert disk.log.read_bytes() == before
    disk.left = -1
    append_record(disk.log, record("c"))
    assert [each["hash"] for each in read_records(disk.log)] == ["a", "c"]


def test_the_reserve_has_room_for_records(disk, tmp_path):
    keep_reserve(tmp_path)
    keep_reserve(tmp_path)
    assert (tmp_path / RESERVE).stat().st_size == records.RESERVE_BYTES
    disk.left, disk.kept = 7, True
    append_record(disk.log, record("a"))
    assert not (tmp_path / RESERVE).exists()
    assert read_records(disk.log) == [record("a")]


def test_a_reserve_that_does_not_suffice(disk, tmp_path):
    keep_reserve(tmp_path)
    disk.left = 7
    with pytest.raises(InputError, match="No space left"):
        append_record(disk.log, record("a"))
    assert disk.log.read_bytes() == b""


def test_no_room_for_a_reserve(tmp_path, monkeypatch):
    def full(path, content):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records.Path, "write_bytes", full)
    keep_reserve(tmp_path)
    assert not (tmp_path / RESERVE).exists()


def test_other_errors_are_told_at_once(disk, monkeypatch):
    def broken(descriptor, content):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(records.os, "write", broken)
    with pytest.raises(InputError, match="Input/output error"):
        append_record(disk.log, record("a"))


def test_a_record_is_appended_once(tmp_path):
    log = tmp_path / "records.jsonl"
    append_record(log, record("a", loss=0.1), once=True)
    append_record(log, json.loads(json.dumps(record("a", loss=0.1))), once=True)
    append_record(log, record("a", loss=0.2), once=True)
    assert [each["loss"] for each in read_records(log)] == [0.1, 0.2]


def test_the_records_of_one_run_are_found(tmp_path):
    log = tmp_path / "records.jsonl"
    assert records_of(log, "a") == []
    wanted = [record("a", "failed"), record("b", init_from={"hash": "a"}), record("a")]
    for each in wanted:
        append_record(log, each)
    assert records_of(log, "a") == [wanted[0], wanted[2]]
    assert records_of(log, "a", since=len(json.dumps(wanted[0])) + 1) == [wanted[2]]
    with log.open("a") as file:
        file.write('{"hash": "a"')  # torn
    assert len(records_of(log, "a")) == 2


def test_a_finished_run_holds_over_its_failures():
    done = record("a", number=1)
    assert latest([record("a", "failed"), done, record("a", "failed")]) == {"a": done}
    assert latest([done, record("a", number=2)])["a"]["number"] == 2
    again = record("a", "failed", again=True)
    assert latest([done, again, record("a", "failed", number=3)])["a"]["number"] == 3
    assert latest([done, again]) == {"a": again}
    assert latest([done, again, record("a", number=2)])["a"]["number"] == 2
    assert latest([record("b", "failed", number=1), record("b", "failed", number=2)])["b"]["number"] == 2
