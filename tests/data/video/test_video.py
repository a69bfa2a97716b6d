"""Frames of ordinary encoded files, in any order, and every way in which a file can be unreadable."""

import pickle
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from tests.data.conftest import write_video
from timesformer.data import Video, VideoError
from timesformer.data.video import index as index_module
from timesformer.data.video.mp4 import Track


def levels(frames: np.ndarray) -> list[int]:
    """Which frames these are, told by their grey level."""
    return [round((float(frame[-8:, -8:].mean()) - 20) / 4) for frame in frames]


@pytest.mark.parametrize("threads", [1, 0])
def test_frames_in_any_order(plain_video: Path, threads: int) -> None:
    with Video(plain_video, threads=threads) as video:
        assert (video.num_frames, video.height, video.width, video.fps) == (30, 48, 64, 30.0)
        assert video.key_frames == [0, 10, 20]
        for wanted in ([0, 1, 2], [29], [5, 25, 5, 0], [28, 3, 12, 11, 10, 9], list(range(30))):
            frames = video.frames(wanted)
            assert frames.shape == (len(wanted), 48, 64, 3)
            assert frames.dtype == np.uint8
            assert levels(frames) == wanted
        assert np.array_equal(video.all_frames(), video.frames(np.arange(30)))
        assert video.frames([]).shape == (0, 48, 64, 3)


def test_skips_ahead_by_key_frames(plain_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Video(plain_video) as video:
        sought: list[int] = []
        seek = video.reader.seek
        monkeypatch.setattr(
            video.reader, "seek", lambda place: (sought.append(video.key_frames[place]), seek(place))[1]
        )
        assert levels(video.frames([1, 3, 25, 26])) == [1, 3, 25, 26]
        assert sought == [0, 20]


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "libvpx"), ("a.avi", "mpeg4"), ("a.mkv", "libx264")])
def test_other_containers(tmp_path: Path, name: str, codec: str) -> None:
    with Video(write_video(tmp_path / name, codec=codec)) as video:
        assert video.num_frames == 30
        assert levels(video.frames([17, 2, 29, 0])) == [17, 2, 29, 0]


def test_frame_outside(plain_video: Path) -> None:
    with Video(plain_video) as video, pytest.raises(VideoError, match=r"frame 30 requested.*0 to 29"):
        video.frames([30])


def unreadable(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that cannot be read, with a part of the reason expected."""
    whole = write_video(folder / "whole.mp4").read_bytes()
    contents = {"empty": (b"", "empty"), "text": (b"these are words\n" * 50, "not a video")}
    contents["cut"] = (whole[: len(whole) // 2], "not a video")  # the index, at the end of the file, is lost
    files = {}
    for name, (content, reason) in contents.items():
        path = folder / f"{name}.mp4"
        path.write_bytes(content)
        files[name] = (path, reason)
    files["missing"] = (folder / "missing.mp4", "no such file")
    files["folder"] = (folder, "no such file")
    sound = folder / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    files["sound"] = (sound, "no video stream")
    return files


def test_unreadable_files(tmp_path: Path) -> None:
    for path, reason in unreadable(tmp_path).values():
        with pytest.raises(VideoError, match=reason) as caught:
            Video(path)
        assert caught.value.path == str(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx"), ("a.mkv", "libx264")])
def test_file_cut_off_behind_its_header(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, frames=58, codec=codec, rate=15)
    if name == "a.mp4":  # move the index to the front, as files made for streaming have it
        with (
            av.open(str(path)) as source,
            av.open(str(tmp_path / "b.mp4"), "w", options={"movflags": "faststart"}) as out,
        ):
            stream = out.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
        path = tmp_path / "b.mp4"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(VideoError, match="truncated"):
        Video(path)


def test_file_cut_off_whose_index_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = remux(write_video(tmp_path / "a.mp4"), tmp_path / "b.mp4", movflags="faststart")
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(VideoError, match=r"truncated: has \d+ of 30 frames"):
        Video(path)
    monkeypatch.setattr(index_module, "read_track", lambda *_: None)
    with pytest.raises(VideoError, match=r"truncated: has \d+ of 30 frames") as caught:
        Video(path)
    assert caught.value.kind == "truncated"


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", gop=1)
    content = bytearray(path.read_bytes())
    with Video(path) as video:
        before = video.all_frames()
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(bytes(content))
    with pytest.raises(VideoError, match="damaged"), Video(path) as video:
        video.frames(range(len(before)))


def test_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(VideoError("a b.mp4", "gone", "missing")))
    assert (error.path, error.reason, error.kind, str(error)) == ("a b.mp4", "gone", "missing", "a b.mp4: gone")


def remux(source: Path, out: Path, shift: int = 0, **stream_options: object) -> Path:
    """The same packets in another file, earlier by `shift` ticks; turned: (degrees, hflip)."""
    options = {"movflags": str(stream_options["movflags"])} if "movflags" in stream_options else {}
    with av.open(str(source)) as container, av.open(str(out), "w", options=options) as copy:
        stream = copy.add_stream_from_template(container.streams.video[0])
        if "turned" in stream_options:
            stream.set_display_rotation(*stream_options["turned"])  # type: ignore[misc]
        for packet in container.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = stream
                copy.mux(packet)
    return out


def natural_video(
    path: Path,
    codec: str,
    options: dict[str, str],
    size: tuple[int, int] = (64, 96),
    frames: int = 70,
    pix_fmt: str = "yuv420p",
    times: list[int] | None = None,
) -> Path:
    """Texture that moves, so that predicted frames depend on one another; times: of the frames, in 1/30 s."""
    rng = np.random.default_rng(0)
    scene = np.cumsum(rng.normal(0, 6, (size[0] + 80, size[1] + 150, 3)), 1) % 256
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        (stream.height, stream.width), stream.pix_fmt = size, pix_fmt
        for index in range(frames):
            image = scene[index : index + size[0], 2 * index : 2 * index + size[1]].astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def one_by_one(path: Path) -> np.ndarray:
    """Every frame as FFmpeg gives it."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def assert_exact(path: Path, threads: int = 1) -> Video:
    expected = one_by_one(path)
    rng = np.random.default_rng(1)
    with Video(path, threads=threads) as video:
        assert video.num_frames == len(expected)
        for draw in range(40):
            wanted = {
                0: rng.integers(0, len(expected), rng.integers(1, 9)),
                1: np.arange(8) + rng.integers(0, len(expected) - 8),
                2: np.sort(rng.choice(len(expected), 8, replace=False)),
                3: np.array([(7 * draw) % len(expected)]),
            }[draw % 4]
            assert np.array_equal(video.frames(wanted), expected[wanted]), wanted
        for index in range(len(expected)):  # one call a frame
            assert np.array_equal(video.frames([index])[0], expected[index])
        assert np.array_equal(video.all_frames(), expected)
    with Video(path, strict=True) as strict:
        strict.check()
    return video


STREAMS = [
    ("mp4", "libx264", {"g": "12"}, "index"),
    ("mp4", "libx264", {"g": "1"}, "index"),
    ("mp4", "libx264", {"g": "3", "x264-params": "keyint_min=2:bframes=2"}, "index"),
    ("mp4", "libx264", {"g": "250", "bf": "0"}, "index"),
    ("mp4", "libx264", {"g": "20", "x264-params": "b-pyramid=none:bframes=3"}, "index"),
    ("mp4", "libx264", {"g": "15", "x264-params": "open-gop=1:bframes=5:b-pyramid=normal"}, "index"),
    ("mp4", "libx264", {"g": "20", "x264-params": "interlaced=1"}, "index"),
    ("mp4", "libx264", {"g": "20", "x264-params": "intra-refresh=1"}, "index"),
    ("mp4", "mpeg4", {"g": "12", "bf": "2"}, "index"),
    ("mp4", "libx265", {"g": "20", "x265-params": "log-level=none"}, "index"),
    ("mov", "mjpeg", {}, "index"),
    ("mkv", "libx264", {"g": "12"}, "packets"),
    ("avi", "mpeg4", {"g": "12", "bf": "2"}, "packets"),
    ("avi", "libx264", {"g": "12"}, "packets"),
    ("ts", "libx264", {"g": "12"}, "packets"),
    ("mpg", "mpeg2video", {"g": "12", "bf": "2"}, "packets"),
    ("webm", "libvpx", {"g": "30", "auto-alt-ref": "1", "lag-in-frames": "16"}, "packets"),
    ("webm", "libvpx-vp9", {"g": "20", "cpu-used": "8", "deadline": "realtime"}, "packets"),
]


@pytest.mark.parametrize(("container", "codec", "options", "index"), STREAMS)
def test_frames_are_those_of_a_whole_decode(
    tmp_path: Path, container: str, codec: str, options: dict[str, str], index: str
) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = natural_video(tmp_path / f"a.{container}", codec, options, pix_fmt=pix_fmt, frames=50)
    assert assert_exact(path).index == index


def test_frames_with_several_threads(tmp_path: Path) -> None:
    assert_exact(natural_video(tmp_path / "a.mp4", "libx264", {"g": "12"}), threads=3)


def test_fragments_and_edit_lists_are_read_by_their_packets(tmp_path: Path) -> None:
    source = natural_video(tmp_path / "a.mp4", "libx264", {"g": "12"})
    fragments = remux(source, tmp_path / "fragments.mp4", movflags="frag_keyframe+empty_moov")
    assert assert_exact(fragments).index == "packets"
    cut = remux(source, tmp_path / "cut.mp4", shift=5 * 512)  # starts before zero: an edit list cuts five frames
    video = assert_exact(cut)
    assert (video.index, video.num_frames) == ("packets", 65)


def test_an_index_that_leaves_something_open_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = natural_video(tmp_path / "a.mp4", "libx264", {"g": "12"})
    expected = one_by_one(path)
    for told in (
        None,
        Track(2, None),
        Track(1, np.zeros(3, np.int64)),
        Track(1, np.full(70, 512) * np.arange(70, 0, -1)),
    ):
        monkeypatch.setattr(index_module, "read_track", lambda *_, told=told: told)
        with Video(path) as video:
            assert video.index == "packets"
            assert np.array_equal(video.frames([40, 3]), expected[[40, 3]])


class Counting:
    """A decoder that counts the frames that come out of it."""

    def __init__(self, codec: av.VideoCodecContext) -> None:
        object.__setattr__(self, "codec", codec)
        object.__setattr__(self, "count", 0)

    def __getattr__(self, name: str) -> object:
        return getattr(self.codec, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.codec, name, value)

    def decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        found = self.codec.decode(packet)
        object.__setattr__(self, "count", self.count + len(found))
        return found


def test_decodes_as_few_frames_as_key_frames_and_references_allow(tmp_path: Path) -> None:
    path = natural_video(
        tmp_path / "a.mp4", "libx264", {"g": "20", "x264-params": "b-adapt=0:bframes=3:b-pyramid=none"}
    )
    with Video(path) as video:
        video.reader.codec = counted = Counting(video.reader.codec)  # type: ignore[assignment]
        video.frames([5, 45])
        # Of 0 to 5 the frames 0, 4 and 8 (which 5 refers to) and 5 itself, the same again from key frame 40.
        assert counted.count == 8
    with Video(path, threads=2) as video:
        video.reader.codec = counted = Counting(video.reader.codec)  # type: ignore[assignment]
        video.frames([5, 45])
        assert 12 <= counted.count <= 24


def test_reading_on_does_not_seek(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = natural_video(tmp_path / "a.mp4", "libx264", {"g": "30"})
    expected = one_by_one(path)
    with Video(path) as video:
        sought: list[int] = []
        seek = video.reader.seek
        monkeypatch.setattr(video.reader, "seek", lambda place: (sought.append(place), seek(place))[1])
        for start in range(0, 70, 10):
            assert np.array_equal(video.frames(range(start, start + 10)), expected[start : start + 10])
        assert sought == [0]


TURNS = [(0, False), (90, False), (180, False), (-90, False), (0, True), (90, True), (180, True), (-90, True)]


@pytest.mark.parametrize("turn", TURNS)
def test_rotated_and_mirrored_files_give_upright_frames(tmp_path: Path, turn: tuple[int, bool]) -> None:
    path = remux(write_video(tmp_path / "a.mp4"), tmp_path / "b.mp4", turned=turn)
    coded = one_by_one(path)
    degrees, mirrored = turn
    # FFmpeg's own matrix: turned counterclockwise, then mirrored left to right.
    expected = np.rot90(coded, degrees // 90, axes=(1, 2))
    expected = expected[:, :, ::-1] if mirrored else expected
    with Video(path) as video:
        assert (video.height, video.width) == expected.shape[1:3]
        assert video.turned == (turn != (0, False))
        assert video.coded_size == (48, 64)
        assert np.array_equal(video.frames([17, 2, 29]), expected[[17, 2, 29]])
        video.check()


def test_an_angle_between_is_left_as_it_is(tmp_path: Path) -> None:
    path = remux(write_video(tmp_path / "a.mp4"), tmp_path / "b.mp4", turned=(30, False))
    with Video(path) as video:
        assert video.turned
        assert np.array_equal(video.frames([4]), one_by_one(path)[[4]])


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"), [("a.mp4", "libx264", "yuv444p"), ("a.webm", "libvpx", "yuv420p")]
)
def test_odd_sizes(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    rows, columns = np.mgrid[:35, :51]
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=30, options={"qp": "4"} if codec == "libx264" else {})
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 35, 51, pix_fmt, 8_000_000
        for index in range(20):
            image = np.repeat((2 * rows + 2 * columns + 3 * index)[..., None], 3, 2).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    with Video(tmp_path / name) as video:
        frames = video.frames(range(20))
        assert (video.height, video.width) == (35, 51)
    assert frames.shape == (20, 35, 51, 3)
    for index, frame in enumerate(frames):
        assert np.abs(frame.mean(2) - (2 * rows + 2 * columns + 3 * index)).max() < 12


def test_one_frame(tmp_path: Path) -> None:
    with Video(write_video(tmp_path / "a.mp4", frames=1)) as video:
        assert video.num_frames == 1
        assert levels(video.frames([0] * 8)) == [0] * 8


def test_variable_frame_rate_counts_in_the_order_of_showing(tmp_path: Path) -> None:
    times = np.cumsum([0] + [1, 1, 7, 1, 2, 30] * 12)[:70].tolist()
    path = natural_video(tmp_path / "a.mp4", "libx264", {"g": "12"}, times=times)
    video = assert_exact(path)
    assert video.num_frames == 70
    assert video.stamps is not None
    assert np.array_equal(np.diff(video.stamps) * video.time_base * 30, np.diff(times))


def test_change_of_size_is_an_error(tmp_path: Path) -> None:
    parts = [write_video(tmp_path / "a.ts"), write_video(tmp_path / "b.ts", size=(64, 80))]
    path = tmp_path / "c.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with Video(path) as video, pytest.raises(VideoError, match="changes from 64 x 48 to 80 x 64 pixels"):
        video.all_frames()
    with Video(path) as video, pytest.raises(VideoError, match="changes from"):
        video.check()


def test_the_cover_of_a_piece_of_music_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=16000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        for packet in (*sound.encode(frame), *sound.encode(None)):
            container.mux(packet)
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux(cover.encode(picture))
        container.mux(cover.encode(None))
    with pytest.raises(VideoError, match="no video stream") as caught:
        Video(path)
    assert caught.value.kind == "audio-only"
