"""Memory that reading one clip takes: three times the clip's own decoded size and 100 MB, however long the video is."""

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from timesformer.data import FrameCache, Preprocessing, Sample, Video, VideoDataset, Views

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is Linux's")
RECORD = Preprocessing(num_frames=8, short_side=256, crop=224)


def repeated(path: Path, size: tuple[int, int], group: int, groups: int) -> Path:
    """A long video, made quickly: one group of pictures over and over."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"preset": "ultrafast", "bf": "0", "g": str(group)})
        (stream.height, stream.width), stream.pix_fmt = size, "yuv420p"
        rows = np.arange(size[0])[:, None, None] % 200
        packets = []
        for index in range(group):
            image = np.broadcast_to((rows + 2 * index) % 256, (*size, 3)).astype(np.uint8)
            packets += stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24"))
        packets += stream.encode(None)
        for number in range(groups):
            for index, packet in enumerate(packets):
                new = av.Packet(bytes(packet))
                new.pts = new.dts = number * group + index
                new.time_base, new.duration, new.is_keyframe, new.stream = Fraction(1, 30), 1, index == 0, stream
                out.mux(new)
    return path


def peak_of(work: Callable[[], object]) -> float:
    """Peak of this process's memory above what it had before, in MB."""

    def state(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(name)))

    Path("/proc/self/clear_refs").write_text("5")
    before = state("VmRSS")
    work()
    return (state("VmHWM") - before) / 1000


def clip_bytes(num_frames: int, size: tuple[int, int]) -> float:
    return 3 * num_frames * size[0] * size[1] / 1e6


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("cache", ["none", "kept", "full"])
def test_a_clip_of_a_long_video(tmp_path: Path, cache: str, suffix: str) -> None:
    size = (360, 640)
    path = repeated(tmp_path / f"a.{suffix}", size, 30, 20)  # 415 MB decoded
    frames = None if cache == "none" else FrameCache(tmp_path / "c", max_bytes=10**9)
    if frames is not None and cache == "full":
        frames._used, frames._said = 10**9, {"full"}
    dataset = VideoDataset([Sample(path, 0)], RECORD, train=True, cache=frames)
    limit = 3 * clip_bytes(8, size) + 100
    assert peak_of(lambda: dataset[0, 0]) < limit
    assert peak_of(lambda: dataset[1, 0]) < limit
    kept = sum(512 * file.stat().st_blocks for file in tmp_path.rglob("*.frames")) / 1e6
    assert kept <= (clip_bytes(17, size) if cache == "kept" else 0.1)


def test_many_large_frames_are_resized_a_few_at_a_time(tmp_path: Path) -> None:
    size = (480, 852)
    path = repeated(tmp_path / "a.mp4", size, 30, 2)
    record = Preprocessing(num_frames=48, short_side=128, crop=112)
    dataset = VideoDataset([Sample(path, 0)], record, train=False, views=Views(crops=3))
    assert peak_of(lambda: dataset[0]) < 3 * clip_bytes(48, size) + 100


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_ten_minutes_of_1080p(tmp_path: Path, suffix: str) -> None:
    size = (1080, 1920)
    path = repeated(tmp_path / f"a.{suffix}", size, 60, 300)
    with Video(path) as video:
        assert video.num_frames == 18_000
        assert video.clock.lasting == pytest.approx(600)
    for cache in (None, FrameCache(tmp_path / "c")):
        dataset = VideoDataset([Sample(path, 0)], RECORD, train=True, cache=cache)
        if cache is None:
            assert peak_of(lambda: dataset[0, 0]) < 3 * clip_bytes(8, size) + 100  # noqa: B023
            continue
        with pytest.warns(UserWarning, match="are decoded each time"):
            assert peak_of(lambda: dataset[0, 0]) < 3 * clip_bytes(8, size) + 100  # noqa: B023
