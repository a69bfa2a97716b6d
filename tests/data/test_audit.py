"""Files damaged in every way, odd ones and sound ones: the right word for each, and surveys taken up again."""

import json
import os
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from tests.data.conftest import write_video
from tests.data.video.test_video import natural_video, remux
from timesformer import InputError
from timesformer.data import Sample, Video
from timesformer.data import survey as survey_module
from timesformer.data.audit import audit, fingerprint
from timesformer.data.fingerprint import Digests
from timesformer.data.survey import survey
from timesformer.data.video.verdict import KINDS, ODD, UNREADABLE, FileFacts, examine, worst


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_header(path: Path) -> Path:
    """A header that announces a video stream, without any frame."""
    with av.open(str(path), "w", options={"movflags": "empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        container.start_encoding()
    return path


def header_of(source: Path, out: Path) -> Path:
    """What stands before the first fragment."""
    content = remux(source, out, movflags="frag_keyframe+empty_moov").read_bytes()
    out.write_bytes(content[: content.index(b"moof") - 4])
    return out


def uneven(path: Path) -> Path:
    return natural_video(path, "libx264", {}, frames=30, times=np.cumsum([1, 5, 1] * 10).tolist())


def index_first(source: Path, out: Path) -> Path:
    return remux(source, out, movflags="faststart")


def cut(source: Path, out: Path) -> Path:
    content = source.read_bytes()
    out.write_bytes(content[: len(content) * 2 // 3])
    return out


def broken(source: Path, out: Path) -> Path:
    """Frames in the middle overwritten; the header is whole."""
    content = bytearray(source.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 300] = bytes(range(256))[:300].ljust(300, b"\x55")
    out.write_bytes(bytes(content))
    return out


def every_kind(folder: Path) -> dict[str, tuple[Path, str]]:
    """Name -> file, and the word that is right for it."""
    whole = write_video(folder / "whole.mp4")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("these are words\n" * 50)
    webm = write_video(folder / "whole.webm", codec="libvpx", frames=58, rate=15)
    return {
        "whole": (whole, "ok"),
        "webm": (webm, "ok"),
        "missing": (folder / "missing.mp4", "missing"),
        "empty": (folder / "empty.mp4", "empty"),
        "text": (folder / "text.mp4", "not-video"),
        "sound": (write_sound(folder / "sound.mp4"), "audio-only"),
        "header alone": (header_of(whole, folder / "start.mp4"), "no-frames"),
        "header": (write_header(folder / "header.mp4"), "no-frames"),
        "index lost": (cut(whole, folder / "lost.mp4"), "truncated"),
        "index first": (cut(index_first(whole, folder / "first.mp4"), folder / "cut.mp4"), "truncated"),
        "webm cut": (cut(webm, folder / "cut.webm"), "truncated"),
        "rotated": (remux(whole, folder / "rotated.mp4", turned=(90, False)), "rotated"),
        "uneven": (uneven(folder / "uneven.mp4"), "variable-rate"),
        "one": (write_video(folder / "one.mp4", frames=1), "one-frame"),
        "few": (write_video(folder / "few.mp4", frames=5), "short"),
        "odd": (write_video(folder / "odd.webm", size=(35, 51), codec="libvpx"), "odd-size"),
        "tiny": (write_video(folder / "tiny.mp4", size=(16, 16)), "odd-size"),
        "slow": (write_video(folder / "slow.mp4", rate=2), "odd-rate"),
        "fast": (write_video(folder / "fast.mp4", rate=240), "odd-rate"),
    }


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    return every_kind(tmp_path_factory.mktemp("kinds"))


@pytest.mark.parametrize("decode", [False, True])
def test_each_file_gets_its_word(kinds: dict[str, tuple[Path, str]], decode: bool) -> None:
    samples = [Sample(path, number, name) for number, (name, (path, _)) in enumerate(kinds.items())]
    found = survey(samples, decode=decode, min_frames=8, workers=2)
    assert {one.sample.name: one.verdict for one in found.verdicts} == {name: word for name, (_, word) in kinds.items()}
    assert {one.sample.name for one in found.unreadable} == {name for name, (_, w) in kinds.items() if w in UNREADABLE}
    assert all(one.reason for one in found.verdicts if one.verdict != "ok")
    summary = found.summary()
    assert summary["num_unreadable"] == 9
    assert summary["verdicts"]["truncated"] == 3
    assert list(summary["verdicts"]) == [kind for kind in KINDS if kind in summary["verdicts"]]
    assert sum(summary["verdicts"].values()) == summary["num_samples"] == summary["num_files"] == len(samples)
    assert summary["decoded"] == decode
    assert json.loads(json.dumps([one.to_dict() for one in found.verdicts]))[0]["frames"] == 30


def test_damage_within_shows_when_every_frame_is_decoded(tmp_path: Path) -> None:
    path = broken(write_video(tmp_path / "a.mp4", gop=1), tmp_path / "b.mp4")
    (shallow,) = survey([Sample(path, 0)]).verdicts
    (deep,) = survey([Sample(path, 0)], decode=True).verdicts
    assert (shallow.verdict, deep.verdict) == ("ok", "damaged")


def test_a_file_may_be_odd_in_several_ways(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.webm", codec="libvpx", size=(35, 51), frames=5, rate=5)
    (found,) = survey([Sample(path, 0)], min_frames=8).verdicts
    assert found.verdict == "short"
    assert found.to_dict()["also"] == ["odd-rate", "odd-size"]
    assert found.reason == "5 frames per second; 51 x 35 pixels; 5 of at least 8 frames"


def test_duplicates(tmp_path: Path) -> None:
    path, copy = write_video(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    copy.write_bytes(path.read_bytes())
    samples = [Sample(path, 0, "a"), Sample(copy, 1, "b"), Sample(path, 0, "a again"), Sample(path, 2, "a with 2")]
    for whole in (True, False):
        found = survey(samples, whole=whole).verdicts
        assert [one.verdict for one in found] == ["ok", "duplicate", "duplicate", "duplicate"]
        assert found[1].reason == "same content as a, there with label 0"
        assert found[2].reason == "listed before"
        assert found[3].reason == "listed before, there with label 0"
    # Segments of one file are samples of their own.
    parts = [replace(samples[0], start_frame=start, end_frame=start + 9) for start in (0, 9, 9, 25)]
    found = survey(parts, min_frames=9).verdicts
    assert [one.verdict for one in found] == ["ok", "ok", "duplicate", "unreadable"]
    assert found[3].reason == "frames 25 to 33 requested, but the video has frames 0 to 29"
    (short,) = survey(parts[:1], min_frames=10).verdicts
    assert short.reason == "9 of at least 10 frames"


def test_fingerprint_is_that_of_the_records(kinds: dict[str, tuple[Path, str]]) -> None:
    samples = [Sample(path, 0, name) for name, (path, _) in kinds.items()]
    samples.append(replace(samples[0], start_frame=2, end_frame=9))
    report, found = audit(samples), survey(samples)
    assert found.summary()["fingerprint"] == report["fingerprint"]
    assert found.summary()["labels"] == report["labels"]
    assert found.summary()["num_unreadable"] == report["num_unreadable"]
    quick = survey(samples, whole=False).summary()
    assert (quick["fingerprint"], quick["content_fingerprint"]) == (report["fingerprint"], None)
    assert found.summary()["content_fingerprint"] == fingerprint(samples, Digests(full=True)).sha256


def test_folder_of_images(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    with Video(write_video(tmp_path / "a.mp4", frames=3)) as video:
        for index, pixels in enumerate(video.all_frames()):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuvj420p")
            context = av.CodecContext.create("mjpeg", "w")
            context.height, context.width, context.pix_fmt = 48, 64, "yuvj420p"
            context.time_base = 1 / video.reader.stream.average_rate  # type: ignore[operator]
            data = b"".join(bytes(packet) for packet in (*context.encode(picture), *context.encode(None)))
            (folder / f"{index}.jpg").write_bytes(data)
    state = tmp_path / "state.jsonl"
    for decode in (False, True):
        (found,) = survey([Sample(folder, 0, fps=12.0)], decode=decode, min_frames=3, state=state).verdicts
        assert (found.verdict, found.facts.frames, found.facts.fps) == ("ok", 3, 12.0)
        assert (found.facts.height, found.facts.width, found.facts.index) == (48, 64, "folder")
    assert not state.exists()  # an image may change without the folder showing it
    (folder / "1.jpg").write_bytes((folder / "1.jpg").read_bytes()[:-200])
    (found,) = survey([Sample(folder, 0)], decode=True).verdicts
    assert found.verdict in UNREADABLE


def test_survey_is_taken_up_where_it_stopped(
    kinds: dict[str, tuple[Path, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [Sample(path, 0, name) for name, (path, _) in kinds.items()]
    state = tmp_path / "new" / "state.jsonl"
    monkeypatch.setattr(survey_module, "_AT_ONCE", 4)
    seen: list[str] = []

    def stop(path: Path, **options: object) -> FileFacts:
        seen.append(path.name)
        if path == samples[9].path:
            raise KeyboardInterrupt
        return examine(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(survey_module, "examine", stop)
    with pytest.raises(KeyboardInterrupt):
        survey(samples, state=state, workers=1)
    stored = state.read_bytes()
    state.write_bytes(stored + b'{"version": 1, "path": "torn')  # as a crash leaves it
    monkeypatch.setattr(survey_module, "examine", examine)
    reports: list[tuple[int, int]] = []
    found = survey(samples, state=state, progress=lambda done, total: reports.append((done, total)))
    assert found.remembered == 7  # two fours, less the missing one, which has no size to go by
    assert found.examined == len(samples) - 7
    assert reports[0] == (7, len(samples))
    assert reports[-1] == (len(samples), len(samples))
    plain = survey(samples)
    assert found.verdicts == plain.verdicts
    again = survey(samples, state=state)
    assert (again.examined, again.verdicts) == (1, plain.verdicts)
    # What was asked for is more than what is known: looked at again.
    assert survey(samples, state=state, decode=True).examined == len(samples)
    assert survey(samples, state=state).examined == 1
    assert survey(samples, state=state, whole=False).examined == 1


def test_a_changed_file_is_looked_at_again(tmp_path: Path) -> None:
    path, state = write_video(tmp_path / "a.mp4"), tmp_path / "state.jsonl"
    survey([Sample(path, 0)], state=state)
    write_video(path, frames=9)
    (found,) = survey([Sample(path, 0)], state=state).verdicts
    assert found.facts.frames == 9
    with state.open("ab") as file:
        file.write(b'[]\n{"version": 1, "path": "x", "facts": {"unknown": 1}}\n{"version": 99}\n')
    assert survey([Sample(path, 0)], state=state).remembered == 1


def test_a_file_replaced_with_its_old_time_of_modification_is_examined_again(tmp_path: Path) -> None:
    path, state = tmp_path / "a.mp4", tmp_path / "state.jsonl"
    path.write_bytes(b"a" * 100)
    (before,) = survey([Sample(path, 0)], state=state).verdicts
    status = path.stat()
    (tmp_path / "other").write_bytes(b"b" * 100)
    os.utime(tmp_path / "other", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(tmp_path / "other", path)
    (after,) = survey([Sample(path, 0)], state=state).verdicts
    assert after.facts.content != before.facts.content


def test_state_that_cannot_be_used(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    with pytest.raises(InputError, match="cannot read"):
        survey([Sample(path, 0)], state=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot (read|remember)"):
        survey([Sample(path, 0)], state=tmp_path / "file" / "state.jsonl")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "state.jsonl")
    with pytest.raises(InputError, match="cannot write the state"):
        survey([Sample(path, 0)], state=tmp_path / "link")


def test_files_that_resist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4")

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("timesformer.data.video.verdict.sampled_hash", refuse)
    (finding,) = examine(path).findings
    assert (finding.kind, finding.reason) == ("unreadable", "cannot be read (Permission denied)")
    (finding,) = examine(tmp_path / ("x" * 300)).findings
    assert (finding.kind, finding.reason) == ("unreadable", "File name too long")
    monkeypatch.setattr("timesformer.data.video.container.av.open", refuse)
    with pytest.raises(InputError, match="cannot be read") as caught:
        Video(path)
    assert caught.value.kind == "unreadable"  # type: ignore[attr-defined]


def test_words() -> None:
    assert worst([]) == "ok"
    assert not set(UNREADABLE) & set(ODD)
