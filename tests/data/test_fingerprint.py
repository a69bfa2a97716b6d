"""Fingerprints: what they see, what they remember, and that they are the same wherever the files lie."""

import json
import os
import shutil
from pathlib import Path

import pytest

from timesformer.data import Sample
from timesformer.data import fingerprint as module
from timesformer.data.audit import fingerprint
from timesformer.data.fingerprint import WHOLE_BYTES, Digests, Fingerprint, content_hash, sampled_hash
from timesformer.errors import InputError


def test_a_small_file_counts_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for size in (0, 1, WHOLE_BYTES):
        path.write_bytes(bytes(size))
        assert sampled_hash(path) == content_hash(path)
    path.write_bytes(bytes(WHOLE_BYTES + 1))
    assert sampled_hash(path) != content_hash(path)


def test_a_big_file_is_read_at_head_and_tail_and_between(tmp_path: Path) -> None:
    size = 3 << 20
    places = (0, 16 * 1024 - 1, size - 1, size - 16 * 1024, 16 * 1024, size - 20 * 1024, 1 << 20)
    hashes = {}
    for place in (None, *places):
        changed = bytearray(size)
        if place is not None:
            changed[place] = 1
        path = tmp_path / str(place)
        path.write_bytes(changed)
        hashes[place] = sampled_hash(path), Digests(full=True).of([path])[path]
    assert len({sampled for sampled, _ in hashes.values()}) == len(places)  # one place lies between the pieces
    assert hashes[1 << 20][0] == hashes[None][0]
    assert len({full for _, full in hashes.values()}) == len(places) + 1
    longer = tmp_path / "longer"
    longer.write_bytes(bytes(size + 1))
    assert sampled_hash(longer) != hashes[None][0]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "videos" / name for name in ("a.mp4", "b.mp4")]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 100)
    return paths


def test_nothing_is_read_again_while_path_size_and_time_hold(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLED_SECONDS", -1.0)
    store = tmp_path / "cache" / "fingerprints.jsonl"
    first = Digests(store)
    found = first.of([*files, tmp_path / "none.mp4", files[0] / "inside.mp4"])
    assert first.read == 2
    assert [found[tmp_path / "none.mp4"], found[files[0] / "inside.mp4"]] == ["missing", "missing"]
    second = Digests(store)
    assert (second.of(files), second.read) == ({path: found[path] for path in files}, 0)
    # Of the same size, and with the old time of modification, as rsync and cp -p leave it.
    status = files[0].stat()
    (tmp_path / "other").write_bytes(b"x" * 100)
    os.utime(tmp_path / "other", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(tmp_path / "other", files[0])
    third = Digests(store)
    assert third.of(files)[files[0]] != found[files[0]]
    assert third.read == 1
    store.write_bytes(store.read_bytes()[:-20])  # torn by a crash: what is lost is read again
    last = Digests(store)
    assert last.of(files) == third.of(files)
    assert last.read == 1
    assert Digests(store, full=True).of(files)[files[1]] == content_hash(files[1])


def test_a_file_that_has_just_changed_is_not_remembered(files: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "fingerprints.jsonl"
    Digests(store).of(files)
    again = Digests(store)
    again.of(files)
    assert again.read == 2


def test_a_store_that_cannot_be_used_is_an_error(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="cannot read the remembered digests"):
        Digests(tmp_path).of(files)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "x")
    monkeypatch.setattr(module, "SETTLED_SECONDS", -1.0)
    with pytest.raises(InputError, match="cannot remember the digests"):
        Digests(tmp_path / "link").of(files)


def samples(folder: Path) -> list[Sample]:
    return [Sample(folder / name, label, name) for label, name in enumerate(("a.mp4", "b.mp4"))]


def test_the_place_of_the_files_does_not_count_and_their_content_does(files: list[Path], tmp_path: Path) -> None:
    before = fingerprint(samples(files[0].parent))
    moved = shutil.copytree(files[0].parent, tmp_path / "moved")
    assert fingerprint(samples(moved)) == before
    assert before.changes(fingerprint(samples(moved))) == ""
    (moved / "b.mp4").write_bytes(b"y" * 100)
    assert before.changes(fingerprint(samples(moved))) == "1 of 2 files has changed: b.mp4"
    (moved / "a.mp4").unlink()
    assert before.changes(fingerprint(samples(moved))) == "2 of 2 files have changed, 1 of them missing: a.mp4, b.mp4"
    relabelled = fingerprint([Sample(one.path, 0, one.name) for one in samples(files[0].parent)])
    assert before.changes(relabelled) == "the labels have changed"


def test_folders_of_images_and_segments(files: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(bytes([number]))
    whole = [Sample(folder, 0, "frames")]
    part = [Sample(folder, 0, "part", 0, 2), Sample(files[0], 0, "a", 1, 3), Sample(files[0], 0, "a", 3, 5)]
    before = fingerprint(whole), fingerprint(part)
    assert len(before[1].files) == 3
    (folder / "3.jpg").write_bytes(b"x")
    assert fingerprint(part) == before[1]
    assert before[0].changes(fingerprint(whole)) == "1 of 1 files has changed: frames"


def test_it_is_kept_and_read(files: list[Path], tmp_path: Path) -> None:
    found = fingerprint(samples(files[0].parent))
    path = found.write(tmp_path / "data.json")
    assert Fingerprint.read_from(path) == found
    assert Fingerprint.read_from(tmp_path / "none.json") is None
    path.write_text("[]")
    with pytest.raises(InputError, match=r"data\.json: not a readable fingerprint"):
        Fingerprint.read_from(path)


def test_what_a_run_starts_from_is_a_part_of_it() -> None:
    one, other = Fingerprint("a"), Fingerprint("a", start="b")
    assert one.chain != other.chain
    assert one.changes(other) == "the run that it starts from was trained on other videos"
    assert one.changes(Fingerprint("c")) == "the probe's generator makes other videos today"


def test_a_link_that_leads_to_another_file_of_the_same_times_is_seen(tmp_path: Path) -> None:
    def state(inode: int) -> os.stat_result:
        return os.stat_result((0o100644, inode, 1, 1, 0, 0, 100, 7, 7, 7))

    assert module.file_state(state(1)) == module.file_state(state(1))
    assert module.file_state(state(1)) != module.file_state(state(2))


def test_lines_of_the_store_that_are_no_entries_count_for_nothing(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLED_SECONDS", -1.0)
    store = tmp_path / "fingerprints.jsonl"
    right = Digests(store).of(files)
    (kept, *_) = [line for line in store.read_text().splitlines() if line]
    entry = json.loads(kept)
    wrong = [[*entry[:-1], None], [*entry[:-1], entry[-1][:-1]], [*entry[:2], ["a"], *entry[3:]], entry[1:], {}, "text"]
    store.write_bytes(b"\xff\0\n" + "\n".join(map(json.dumps, wrong)).encode())
    assert Digests(store).of(files) == right
