"""Files: any name, any suffix, any error, and no other file than the one that was given."""

import contextlib
import gc
import io
import json
import socket
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps
from typer.testing import CliRunner

from tests.data.images import write_folder
from tests.data.video.made import encode, in_sequence, number_of, numbered, patch, remux
from timesformer.data import (
    FrameFolder,
    Preprocessing,
    Sample,
    Video,
    VideoDataset,
    VideoError,
    Views,
    open_video,
    read_annotations,
)
from timesformer.data.audit import audit, fingerprint
from timesformer.data.survey import survey
from timesformer.data.video.display import UPRIGHT, display_matrix
from timesformer.data.video.error import guarded
from timesformer.data.video.find import find_videos
from timesformer.data.video.open import frames_key
from timesformer.data.video.verdict import examine, worst
from timesformer.errors import InputError
from timesformer_experiments.cli.main import app

CHECKPOINT = str(Path(__file__).parents[3] / "results" / "checkpoints" / "divided-motion")
RECORD = Preprocessing(num_frames=2, short_side=32, crop=32)
NO_UTF8 = "n\udcffo.mp4"


@pytest.mark.parametrize("name", ["12:30.mp4", "http:z.mp4", "file:x.mp4", "pipe:0", NO_UTF8, "-i.mp4"])
def test_a_relative_name_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    encode(tmp_path / "a.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with Video(name) as video:
        assert video.num_frames == 20


def test_no_network_is_reached(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        lines = ("#EXTM3U", "#EXT-X-TARGETDURATION:9", "#EXTINF:9,", address, "#EXT-X-ENDLIST", "")
        (tmp_path / "list.m3u8").write_text("\n".join(lines))
        (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {address}\n")
        (tmp_path / "list.sdp").write_text("v=0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\nc=IN IP4 127.0.0.1\n")
        for name in ("list.m3u8", "list.mp4", "list.sdp"):
            with pytest.raises(VideoError):
                Video(tmp_path / name)
        with pytest.raises(BlockingIOError):  # nobody has called
            server.accept()


ERRORS = [ValueError("31 is not a valid Type"), KeyError("x"), MemoryError(), AssertionError()]


@pytest.mark.parametrize("error", ERRORS)
def test_whatever_a_decoder_raises_is_one_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    good, bad = encode(tmp_path / "good.mp4"), encode(tmp_path / "bad.mp4", size=(64, 64))

    def convert(frame: av.VideoFrame, _: object) -> np.ndarray:
        if frame.height == 64:
            raise error
        return frame.to_ndarray(format="rgb24")

    monkeypatch.setattr("timesformer.data.video.video.rgb", convert)
    samples = [Sample(bad, 0, start_frame=0, end_frame=1), Sample(good, 1)]
    dataset = VideoDataset(samples, RECORD, train=False, allow_unreadable=True)
    batch = dataset.get_batch(0, [0, 1])
    assert batch["index"].tolist() == [1]
    ((path, reason),) = batch["unreadable"]
    assert path == f"{bad}[0:1]"
    assert type(error).__name__ in reason
    assert worst(list(examine(bad).findings)) == "damaged"
    with pytest.raises(VideoError, match=type(error).__name__):
        VideoDataset(samples, RECORD, train=False)[0]


def test_errors_of_the_system_are_named() -> None:
    for error, said in ((OSError(5, "Input/output error"), "cannot be read"), (RuntimeError(), "no description")):
        with pytest.raises(VideoError, match=said), guarded("a.mp4"):
            raise error


def test_a_name_that_no_file_can_have_is_missing(tmp_path: Path) -> None:
    for name in ("a\0b.mp4", "h\ud800.mp4", "x" * 300 + ".mp4"):
        sample = Sample(tmp_path / name, 0)
        assert worst(list(examine(sample.path).findings)) in ("missing", "unreadable")
        assert audit([sample])["num_unreadable"] == 1
        assert len(survey([sample]).unreadable) == 1
        assert not isinstance(VideoDataset([sample], RECORD, train=False, allow_unreadable=True)[0], dict)


def test_names_that_are_not_utf8_are_written(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4").rename(tmp_path / NO_UTF8)
    sample = Sample(path, 0, start_frame=2, end_frame=9)
    assert sample.name == sample.place.partition("[")[0] == str(tmp_path / r"n\xffo.mp4")
    assert json.dumps(audit([sample]), ensure_ascii=False).encode()
    assert fingerprint([sample]).sha256
    with pytest.raises(VideoError, match=r"n\\xffo\.mp4\[30:\]") as caught:
        open_video(Sample(path, 0, start_frame=30))
    assert str(caught.value).encode()


@pytest.mark.parametrize("name", [NO_UTF8, "12:30.mp4"])
def test_commands_take_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = tmp_path / "videos" / "class"
    folder.mkdir(parents=True)
    encode(folder / "a.mp4", size=(40, 40)).rename(folder / name)
    monkeypatch.chdir(folder)
    shown = name.replace("\udcff", r"\xff")
    for words in (
        ["predict", name, "--checkpoint", CHECKPOINT, "--json"],
        ["predict", name, "--checkpoint", CHECKPOINT, "--timeline", "--json"],
        ["features", str(folder), "--checkpoint", CHECKPOINT, "--out", str(tmp_path / "f.parquet")],
        ["audit", str(tmp_path / "videos"), "--state", str(tmp_path / "s"), "--out", str(tmp_path / "a.csv"), "--json"],
    ):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, (words, result.output, result.exception)
    assert shown in (tmp_path / "a.csv").read_text(encoding="utf-8")


SUFFIXES = (".MTS", ".m2ts", ".gif", ".ogv", ".vob", ".asf", ".mxf", ".dv", ".f4v", ".3g2", ".mpe", ".hevc", ".rmvb")


def test_a_class_of_any_suffix_is_found(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        (tmp_path / suffix[1:]).mkdir()
        (tmp_path / suffix[1:] / f"a{suffix}").touch()
    found = read_annotations("folder", tmp_path)
    assert sorted(sample.path.suffix for sample in found) == sorted(SUFFIXES)
    assert (found.passed_over, found.empty) == ((), ())
    assert len(find_videos([tmp_path])) == len(SUFFIXES)


def test_what_is_passed_over_is_told(tmp_path: Path) -> None:
    for name in ("run/a.mp4", "run/notes.txt", "run/.hidden", "jump/a.xyz", "jump/b.xyz", "sit/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "stand").mkdir()
    with pytest.warns(UserWarning, match="no video") as told:
        found = read_annotations("folder", tmp_path)
    assert found.empty == ("jump", "sit", "stand")
    assert [path.name for path in found.passed_over] == ["a.xyz", "b.xyz", "notes.txt", "c"]
    classes, files = (str(warning.message) for warning in told)
    assert "3 classes have no video: jump, sit, stand" in classes
    assert "4 files are no videos by their suffix (2 with .xyz, 1 with .txt, 1 with no suffix): jump/a.xyz" in files
    with pytest.warns(UserWarning, match="4 files are no videos"):
        assert find_videos([tmp_path]) == [tmp_path / "run" / "a.mp4"]
    for read in (lambda: find_videos([tmp_path / "jump"]), lambda: read_annotations("folder", tmp_path, labels=None)):
        (tmp_path / "run" / "a.mp4").unlink(missing_ok=True)
        with pytest.raises(InputError, match=r"no video, only files with .*\.xyz"):
            read()
    result = CliRunner().invoke(app, ["audit", str(tmp_path)])
    assert result.exit_code == 2


def test_the_audit_lists_what_was_passed_over(tmp_path: Path) -> None:
    (tmp_path / "videos" / "run").mkdir(parents=True)
    (tmp_path / "videos" / "jump").mkdir()
    encode(tmp_path / "videos" / "run" / "a.mp4")
    (tmp_path / "videos" / "jump" / "b.xyz").touch()
    words = ["audit", str(tmp_path / "videos"), "--state", str(tmp_path / "state"), "--json"]
    with pytest.warns(UserWarning, match="no video"):
        summary = json.loads(CliRunner().invoke(app, words).stdout)
    assert (summary["passed_over"], summary["classes_without_video"]) == (["jump/b.xyz"], ["jump"])
    with pytest.warns(UserWarning, match="no video"):
        shown = CliRunner().invoke(app, words[:-1]).stdout
    assert "jump/b.xyz" in shown


def photograph(pixels: np.ndarray, orientation: int, form: str) -> bytes:
    data, exif = io.BytesIO(), Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    how = {"quality": 95, "subsampling": 0} if form == "JPEG" else {}
    Image.fromarray(pixels).save(data, form, exif=exif, **how)
    return data.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("form", "suffix"), [("JPEG", ".jpg"), ("PNG", ".png")])
def test_images_are_turned_as_exif_says(tmp_path: Path, orientation: int, form: str, suffix: str) -> None:
    data = photograph(numbered(1)[0], orientation, form)
    (tmp_path / f"1{suffix}").write_bytes(data)
    right = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    with FrameFolder(tmp_path) as video:
        assert (video.height, video.width) == right.shape[:2]
        assert np.abs(video.frames([0])[0].astype(int) - right).max() <= 2


def test_a_frame_is_given_back_when_it_was_read(tmp_path: Path) -> None:
    with av.open(str(encode(tmp_path / "a.mp4"))) as container:
        gc.collect()
        gc.disable()
        try:
            for frame in container.decode(video=0):
                assert display_matrix(frame) == UPRIGHT
            del frame
            assert gc.collect() == 0  # a cycle would keep every frame until the next collection
        finally:
            gc.enable()


def test_images_beside_one_another_may_be_turned_differently(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", frames=1)
    (folder / "frame_2.jpg").write_bytes(photograph(numbered(1, (64, 48))[0], 6, "JPEG"))
    with FrameFolder(folder) as video:
        assert video.frames([0, 1]).shape == (2, 48, 64, 3)


SHAPES = [("mp4", Fraction(16, 11), (48, 93)), ("mkv", Fraction(1, 2), (96, 64)), ("mpg", Fraction(4, 3), (48, 85))]


@pytest.mark.parametrize(("suffix", "stated", "size"), SHAPES)
def test_pixels_that_are_not_square(tmp_path: Path, suffix: str, stated: Fraction, size: tuple[int, int]) -> None:
    def state(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = stated

    codec = "mpeg2video" if suffix == "mpg" else "libx264"
    path = encode(tmp_path / f"a.{suffix}", codec, prepare=state)
    with Video(path) as video:
        height, width = size
        assert abs(float(video.pixel_aspect) - width * video.height / (height * video.width)) < 0.02
        whole = video.frames([3])[0]
    kinds = {finding.kind: finding.reason for finding in examine(path).findings}
    assert f"displayed as {size[1]} x {size[0]}" in kinds["not-square"]
    plain, square = Sample(path, 0), Sample(path, 0, square=True)
    assert frames_key(plain) != frames_key(square)
    with open_video(plain) as video, open_video(square) as wide:
        assert (video.height, video.width, wide.height, wide.width) == (48, 64, *size)
        found = wide.frames([3, 5, 3])
        assert found.shape == (3, *size, 3)
        resized = np.asarray(Image.fromarray(whole).resize(size[::-1], Image.Resampling.BICUBIC))
        assert np.abs(found[0].astype(int) - resized).mean() < 3
        assert number_of(found[1]) == 5
    record = replace(RECORD, square_pixels=True)
    shapes = [VideoDataset([plain], each, train=False, views=Views(1, 3))[0]["clip"].shape for each in (RECORD, record)]
    assert shapes[0] == shapes[1]
    assert not np.array_equal(*(VideoDataset([plain], each, train=False)[0]["clip"] for each in (RECORD, record)))


def test_square_pixels_of_a_turned_video(tmp_path: Path) -> None:
    def state(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)

    path = encode(tmp_path / "a.mp4", prepare=state)
    turned = remux(path, tmp_path / "b.mp4", prepare=lambda stream: stream.set_display_rotation(90, False))
    with open_video(Sample(path, 0, square=True)) as video, open_video(Sample(turned, 0, square=True)) as other:
        assert (video.height, video.width) == (48, 128)
        assert (other.height, other.width) == (128, 48)


def test_a_ratio_that_nothing_has_is_not_believed(tmp_path: Path) -> None:
    def state(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(1, 500)

    with open_video(Sample(encode(tmp_path / "a.mkv", "ffv1", prepare=state), 0, square=True)) as video:
        assert (video.height, video.width) == (48, 64)


def test_a_count_of_edits_in_the_billions_takes_no_time(tmp_path: Path) -> None:
    def damage(content: bytearray) -> None:
        place = content.find(b"elst") + 8
        content[place : place + 4] = b"\xff\xff\xff\xff"

    path = patch(encode(tmp_path / "a.mp4"), tmp_path / "b.mp4", damage)
    began = time.process_time()
    with contextlib.suppress(VideoError), Video(path) as video:
        assert video.num_frames <= 20
    assert time.process_time() - began < 5  # it was minutes


def test_an_index_of_avi_that_points_to_other_frames(tmp_path: Path) -> None:
    def damage(content: bytearray) -> None:
        first = content.find(b"idx1") + 8  # entries of 16 bytes: name, flags, offset, size
        content[first + 16 * 13] ^= 0x22  # the name of entry 13: it is no longer one of this stream

    path = patch(encode(tmp_path / "a.avi", "utvideo"), tmp_path / "b.avi", damage)
    right = in_sequence(path)
    with Video(path) as video:
        assert video.num_frames == len(right.frames)
        for index in (17, 3, 18, 16):
            np.testing.assert_array_equal(video.frames([index])[0], right.frames[index])
