"""Speed of reading clips from H.264 files on one core, compared with other libraries and two common loops.

`plain` is the loop of transformers' documentation (`read_video_pyav`): decode from the first frame, keep the wanted
ones, stop after the last.  `seeking` seeks the key frame before each wanted frame and decodes from there.  These return
the same pixels, which is checked before timing.  decord, OpenCV (which seeks or grabs) and torchcodec take part where
they can be imported; their pixels may differ by a rounding.  The videos are generated: a camera over a textured scene,
moving objects and grain, at 340 x 256 and 30 frames per second, with a key frame at every `gop`-th frame.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pandas as pd
import torch

from timesformer.data import FrameCache, Preprocessing, Sample, Video, VideoDataset, collate
from timesformer.data.loading import batches
from timesformer.data.sampling import dense_indices
from timesformer.files import write_atomic
from timesformer_experiments.bench.readers import Read, peers
from timesformer_experiments.records.log import environment, now_utc
from timesformer_experiments.report.tables import Column, Table

Side = Literal["ours", "cached"]
LOOPS = ("plain", "seeking")
MOST_DIFFERENCE = 1.0  # grey levels, on average, between the pixels of another library and ours
SOURCE_VERSION = 1  # to be raised when the generated videos change


@dataclass(frozen=True)
class Source:
    """Parameters of a video to generate."""

    seconds: int
    gop: int
    height: int = 256
    width: int = 340
    rate: int = 30


@dataclass(frozen=True)
class Case:
    """Clips of one video; their starts are spaced evenly within `spread` (a share of all starts) of the middle.

    side: reader that is compared with the others; `cached` is measured from the second epoch on.
    wanted_to_best, wanted_to_plain: required ratio to the fastest of all others, and to plain.
    """

    source: Source
    side: Side = "ours"
    wanted_to_best: float | None = 1.0
    wanted_to_plain: float | None = None
    clips: int = 5
    spread: float = 0.5
    num_frames: int = 8
    frame_rate: int = 32

    @property
    def label(self) -> str:
        """Short text, such as `10 s, key frame every 60`."""
        where = "" if self.spread == 0.5 else ", from the middle"
        epoch = ", second epoch, cached" if self.side == "cached" else ""
        return f"{self.source.seconds} s, key frame every {self.source.gop}{where}{epoch}"

    def clip_indices(self) -> list[np.ndarray]:
        """Return the frame indices of each clip."""
        total = self.source.seconds * self.source.rate
        first = dense_indices(total, self.num_frames, self.frame_rate, self.source.rate, start="first")
        free = total - 1 - int(first[-1])
        low, high = round(free * (0.5 - self.spread)), round(free * (0.5 + self.spread))
        return [first + int(start) for start in np.linspace(low, high, self.clips).round()]


NAMES = {
    "plain": "plain loop",
    "seeking": "key-frame seeking",
    "decord": "decord",
    "opencv_seek": "OpenCV, seeking",
    "opencv_grab": "OpenCV, grabbing",
    "torchcodec": "torchcodec",
}
_PEERS = {"decord": "decord", "opencv": "OpenCV (faster way)", "torchcodec": "torchcodec"}
TEN = {gop: Source(10, gop) for gop in (12, 60, 250)}
SIXTY = {gop: Source(60, gop) for gop in (12, 60, 250)}
CASES = (
    *(Case(TEN[gop]) for gop in (60, 12, 250)),
    Case(SIXTY[60], wanted_to_plain=5.0, spread=0.05),
    Case(SIXTY[12], wanted_to_plain=5.0, spread=0.05),
    Case(SIXTY[250], spread=0.05),
    Case(TEN[60], "cached", wanted_to_plain=20.0),
)


def make_video(source: Source, folder: Path) -> Path:
    """Return the video of a source, and make it unless it exists; its name is a digest of the source."""
    text = json.dumps(asdict(source) | {"version": SOURCE_VERSION}, sort_keys=True)
    path = folder / f"loader-{hashlib.sha256(text.encode()).hexdigest()[:16]}.mp4"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, _encoded(source))
    return path


def _encoded(source: Source) -> bytes:
    options = {"g": str(source.gop), "keyint_min": str(source.gop), "sc_threshold": "0", "threads": "1"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as container:
            stream = container.add_stream("libx264", rate=source.rate, options=options)
            stream.width, stream.height, stream.pix_fmt = source.width, source.height, "yuv420p"
            for image in _images(source):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
        return path.read_bytes()


def _images(source: Source) -> Iterator[np.ndarray]:
    """Yield frames, uint8 (H, W, 3): a moving camera over a textured scene with two moving objects and grain."""
    rng = np.random.default_rng(0)
    height, width = source.height, source.width
    scene = np.kron(rng.uniform(20, 235, (height // 4 + 1, width // 4 + 1, 3)), np.ones((8, 8, 1)))
    for axis in (0, 1):
        scene = np.mean([np.roll(scene, shift, axis) for shift in range(-4, 5)], axis=0)
    grain = rng.normal(0, 4, (8, height, width, 1))
    size = min(height, width) // 4
    for number in range(source.seconds * source.rate):
        seconds = number / 30
        y, x = (int(side / 2 * (1 + np.sin(seconds * speed))) for side, speed in ((height, 0.49), (width, 0.64)))
        image = scene[y : y + height, x : x + width] + grain[number % 8]
        for speed in (1.8, 2.3):
            top = int((height - size) * (0.5 + 0.5 * np.cos(speed * seconds)))
            left = int((width - size) * (0.5 + 0.5 * np.sin(1.3 * speed * seconds)))
            image[top : top + size, left : left + size] = 255 - image[top : top + size, left : left + size]
        yield image.clip(0, 255).astype(np.uint8)


def read_plain(path: Path, indices: Sequence[int]) -> np.ndarray:
    """Read a clip with the loop of transformers' documentation and one thread; return uint8 (t, H, W, 3)."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        frames = []
        container.seek(0)
        for number, frame in enumerate(container.decode(video=0)):
            if number > indices[-1]:
                break
            if number >= indices[0] and number in indices:
                frames.append(frame)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def read_seeking(path: Path, indices: Sequence[int]) -> np.ndarray:
    """Read a clip by seeking the key frame before each wanted frame, with one thread; return uint8 (t, H, W, 3).

    The frame rate must be constant.
    """
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.average_rate is not None
        assert stream.time_base is not None
        ticks = 1 / (stream.average_rate * stream.time_base)
        frames = []
        for index in indices:
            wanted = round(index * ticks)
            container.seek(wanted, stream=stream)
            frames.append(next(f for f in container.decode(stream) if f.pts is not None and f.pts >= wanted))
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def read_ours(path: Path, indices: Sequence[int]) -> np.ndarray:
    """Read a clip as the loader does; return uint8 (t, H, W, 3)."""
    with Video(path) as video:
        return video.frames(indices)


def readers(side: Side, cache: FrameCache) -> dict[str, Read]:
    """Return the readers to compare: ours or, from the second epoch on, `cached`; the loops; other libraries."""

    def read_cached(path: Path, indices: Sequence[int]) -> np.ndarray:
        with cache.open(path) as video:
            return video.pixels(indices).transpose(0, 2, 3, 1)

    ours = {"cached": read_cached} if side == "cached" else {"ours": read_ours}
    return ours | {"plain": read_plain, "seeking": read_seeking} | peers()[0]


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process on one core inside, if the system supports it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure(case: Case, path: Path, cache: FrameCache, repetitions: int) -> dict[str, Any]:
    """Measure clips per second of each side in interleaved repetitions, after comparing the frames that they read."""
    clips, read = [indices.tolist() for indices in case.clip_indices()], readers(case.side, cache)
    for indices in clips:
        expected = read_plain(path, indices)
        for side in read:
            found = read[side](path, indices)
            exact = side in ("ours", "cached", *LOOPS)
            same = np.array_equal(found, expected) if exact else _differ(found, expected) <= MOST_DIFFERENCE
            if not same:
                raise RuntimeError(f"{case.label}: {side} and plain read different frames")
    rates: dict[str, list[float]] = {side: [] for side in read}
    for repetition in range(repetitions):
        for side in list(read) if repetition % 2 else list(reversed(read)):
            start = time.perf_counter()
            for indices in clips:
                read[side](path, indices)
            rates[side].append(len(clips) / (time.perf_counter() - start))
    medians = {side: statistics.median(found) for side, found in rates.items()}
    to_plain = medians[case.side] / medians["plain"]
    best = max((side for side in medians if side != case.side), key=lambda side: medians[side])
    to_best = medians[case.side] / medians[best]
    wanted = ((to_best, case.wanted_to_best), (to_plain, case.wanted_to_plain))
    return {
        **asdict(case),
        "label": case.label,
        "first_frames": [indices[0] for indices in clips],
        "file_bytes": path.stat().st_size,
        **{f"{side}_clips_per_second": found for side, found in rates.items()},
        **{f"{side}_median_clips_per_second": found for side, found in medians.items()},
        "ratio_to_plain": to_plain,
        "best_of_the_others": best,
        "ratio_to_best": to_best,
        "reached": all(limit is None or ratio >= limit for ratio, limit in wanted),
    }


def _differ(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the mean difference in grey levels; infinite for another shape."""
    same = found.shape == expected.shape
    return float(np.abs(found.astype(np.int16) - expected).mean()) if same else float("inf")


def whole_loader(source: Source, path: Path, workers: int, clips: int, cache: FrameCache | None = None) -> float:
    """Measure clips per second of the whole loader (decode, resize, crop, normalise) as in training.

    With one worker, a second process reads ahead; the clips that it reads before the clock starts are balanced by those
    left over at the end.
    """
    crop = source.height * 7 // 8
    record = Preprocessing(num_frames=8, sampling="dense", frame_rate=32, short_side=source.height, crop=crop)
    dataset = VideoDataset([Sample(path, 0)] * clips, record, train=True, cache=cache)
    keys: Any = [[(epoch, index)] for epoch in range(2) for index in range(clips)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        loaded = batches(dataset, keys, collate, workers)
        next(loaded)  # the worker has started
        start = time.perf_counter()
        for _ in range(clips):
            next(loaded)
        return clips / (time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)


def run(
    cases: tuple[Case, ...],
    data_dir: Path,
    *,
    repetitions: int = 5,
    loader_clips: int = 64,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Make the videos and measure all cases; return a record with repetitions, medians, ratios, versions and load."""
    folder = data_dir / "bench"
    for source in dict.fromkeys(case.source for case in cases):
        progress(f"making a video: {source.seconds} s, key frame every {source.gop}")
        make_video(source, folder)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    results = []
    with one_core():
        for case in cases:
            progress(f"reading: {case.label}")
            path = make_video(case.source, folder)
            results.append(measure(case, path, FrameCache(folder / "frames"), repetitions))
    source = cases[0].source
    progress("the whole loader")
    path = make_video(source, folder)
    cache = FrameCache(folder / "frames")
    with one_core():
        alone = whole_loader(source, path, 0, loader_clips)
        cached = whole_loader(source, path, 0, loader_clips, cache)
    return {
        "bench": "loader",
        "what": "clips of 8 frames at 8x32 sampling from 340x256 H.264 files, one core, one thread, opening the file "
        "included; medians of interleaved repetitions; plain: the loop of transformers' documentation; seeking: a seek "
        "to the key frame before each wanted frame; opencv_seek sets the position of each frame, opencv_grab grabs "
        "all up to the last; cached: decoded frames, from the second epoch on; whole_loader: decoding,"
        " resize, crop and normalisation of training clips, information alone",
        "load_average_before": load,
        "environment": environment(),
        "peers": peers()[1],
        "finished_utc": now_utc(),
        "results": results,
        "whole_loader": {
            "label": f"{source.seconds} s, key frame every {source.gop}",
            "alone_clips_per_second": alone,
            "cached_clips_per_second": cached,
            "one_worker_clips_per_second": whole_loader(source, path, 1, loader_clips),
        },
    }


def _has(record: dict[str, Any], peer: str) -> bool:
    return any(side.startswith(peer) for side in record["results"][0])


def _fastest(result: dict[str, Any], peer: str) -> float:
    """Return the median of a library, of the faster way where there are two."""
    return max(
        value for side, value in result.items() if side.startswith(peer) and side.endswith("_median_clips_per_second")
    )


def table(record: dict[str, Any]) -> Table:
    """Return the record as a table: medians of the sides, ratios and required ratios."""
    rows = [
        {
            "case": result["label"],
            "measured_ours_clips_per_second": result[f"{result['side']}_median_clips_per_second"],
            "measured_plain_clips_per_second": result["plain_median_clips_per_second"],
            "measured_seeking_clips_per_second": result["seeking_median_clips_per_second"],
            **{f"measured_{peer}_clips_per_second": _fastest(result, peer) for peer in _PEERS if _has(record, peer)},
            "measured_ratio_to_plain": result["ratio_to_plain"],
            "measured_ratio_to_best": result["ratio_to_best"],
            "best": NAMES[result["best_of_the_others"]],
            "wanted": _wanted(result),
            "reached": "yes" if result["reached"] else "NO",
        }
        for result in record["results"]
    ]
    whole = record["whole_loader"]
    ways = {"alone": "alone", "one_worker": "one worker reads ahead", "cached": "alone, second epoch, cached"}
    for way, name in ways.items():
        ours = {"measured_ours_clips_per_second": whole[f"{way}_clips_per_second"]}
        rows.append({"case": f"{whole['label']}: to the batch, {name}", **ours, "wanted": "–", "reached": "–"})
    columns = (
        Column("case", "8x32 clips of a 340x256 H.264 file", "label"),
        Column("measured_ours_clips_per_second", "Ours, clips/s", "measured"),
        Column("measured_plain_clips_per_second", "Plain loop", "measured"),
        Column("measured_seeking_clips_per_second", "Key-frame seeking", "measured"),
        *(
            Column(f"measured_{peer}_clips_per_second", name, "measured")
            for peer, name in _PEERS.items()
            if _has(record, peer)
        ),
        Column("measured_ratio_to_plain", "Ours / plain", "measured", decimals=2),
        Column("measured_ratio_to_best", "Ours / best of the others", "measured", decimals=2),
        Column("best", "Best of the others", "label"),
        Column("wanted", "Wanted", "label"),
        Column("reached", "Reached", "label"),
    )
    found = record["environment"]
    versions = ", ".join((f"PyAV {found['versions']['av']}", *(f"{n} {v}" for n, v in record["peers"].items())))
    return Table(pd.DataFrame(rows), columns, f"Reading clips, one core: {found['cpu_model']}, {versions}")


def _wanted(result: dict[str, Any]) -> str:
    limits = (("plain", result["wanted_to_plain"]), ("best", result["wanted_to_best"]))
    return ", ".join(f"{limit:g} x {name}" for name, limit in limits if limit is not None) or "–"
