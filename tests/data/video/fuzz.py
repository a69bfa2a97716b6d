"""Damaged and hostile files: bytes of the matrix's files flipped, cut, swapped, and what became of reading them.

    python -m tests.data.video.fuzz --files 5000 --out results/video/fuzz.json

A file is made from its seed alone.  It is read in a process of its own, which may take 10 seconds and 1 GB.  It must be
read right, that is as FFmpeg decodes it in sequence, or be refused with a VideoError; anything else is a failure.
"""

import argparse
import json
import os
import resource
import select
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from tests.data.video.matrix import ODD, PLAIN, Case
from timesformer.data import Video, VideoError
from timesformer.data.video.colour import rgb
from timesformer.data.video.container import choose_stream, open_container
from timesformer.data.video.display import upright
from timesformer.data.video.verdict import UNREADABLE, examine, worst
from timesformer.files import write_json
from timesformer_experiments.records.log import environment, now_utc

SECONDS, MEMORY_BYTES = 10.0, 2**30
"""A file is failed above these: seconds to read it, growth of the resident set."""
LEFT_OUT = ("dvvideo", "gxf", "dnxhd")  # large files, in which few bytes mean anything
RIGHT, REPORTED = "read right", "reported"
CONCEALED = "damage that the decoder conceals, told by audit --decode"
UNDETERMINED = "damage after which FFmpeg's own decodes differ"
FINE = (RIGHT, REPORTED, CONCEALED, UNDETERMINED)


def flip(content: bytearray, rng: np.random.Generator) -> None:
    """Flip single bits anywhere."""
    for place in rng.integers(0, len(content), rng.integers(1, 12)):
        content[place] ^= 1 << int(rng.integers(8))


def flip_head(content: bytearray, rng: np.random.Generator) -> None:
    """Write random bytes into the first 300, where containers describe themselves."""
    for place in rng.integers(0, min(len(content), 300), rng.integers(1, 5)):
        content[place] = int(rng.integers(256))


def flip_tail(content: bytearray, rng: np.random.Generator) -> None:
    """Write random bytes into the last 800, where MP4 and AVI have their index."""
    for place in len(content) - rng.integers(1, min(len(content), 800) + 1, rng.integers(1, 5)):
        content[place] = int(rng.integers(256))


def extreme(content: bytearray, rng: np.random.Generator) -> None:
    """Set four bytes to an extreme number: sizes, counts and times."""
    place = int(rng.integers(0, len(content) - 4))
    number = rng.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 0x10000])
    content[place : place + 4] = int(number).to_bytes(4, "big" if rng.integers(2) else "little")


def cut(content: bytearray, rng: np.random.Generator) -> None:
    """Cut off the end."""
    del content[int(rng.integers(1, len(content))) :]


def remove(content: bytearray, rng: np.random.Generator) -> None:
    """Take out a piece."""
    start = int(rng.integers(0, len(content)))
    del content[start : start + int(rng.integers(1, 400))]


def swap(content: bytearray, rng: np.random.Generator) -> None:
    """Swap two pieces of one length."""
    length = int(rng.integers(1, max(2, min(600, len(content) // 3))))
    first, second = (int(place) for place in rng.integers(0, len(content) - length, 2))
    content[first : first + length], content[second : second + length] = (
        content[second : second + length],
        content[first : first + length],
    )


def repeat(content: bytearray, rng: np.random.Generator) -> None:
    """Insert a copy of a piece somewhere else."""
    start, place = (int(number) for number in rng.integers(0, len(content), 2))
    content[place:place] = content[start : start + int(rng.integers(1, 600))]


def erase(content: bytearray, rng: np.random.Generator) -> None:
    """Overwrite a piece with zeros, as a disk or a download leaves it."""
    start, length = int(rng.integers(0, len(content))), int(rng.integers(1, 500))
    content[start : start + length] = bytes(len(content[start : start + length]))


DAMAGES: tuple[Callable[[bytearray, np.random.Generator], None], ...] = (
    *(flip, flip_head, flip_tail, extreme, cut, remove, swap, repeat, erase),
)


@dataclass(frozen=True)
class Source:
    """A whole file."""

    case: str
    suffix: str
    content: bytes


def sources(cases: Iterable[Case] = (*PLAIN, *ODD)) -> list[Source]:
    """Make the whole files that are damaged, in the order of the matrix."""
    found = []
    for case in cases:
        if case.name.startswith(LEFT_OUT) or case.name.endswith(LEFT_OUT) or case.kind == "odd name":
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = case.make(Path(folder))
            found.append(Source(case.name, path.suffix, path.read_bytes()))
    return found


def damaged(source: Source, seed: int) -> tuple[bytes, str]:
    """Return the content of the file with this seed, and the names of what was done to it."""
    rng = np.random.default_rng([seed, len(source.content)])
    content, names = bytearray(source.content), []
    for number in rng.integers(0, len(DAMAGES), rng.integers(1, 4)):
        if len(content) > 16:
            DAMAGES[number](content, rng)
            names.append(DAMAGES[number].__name__)
    return bytes(content), " ".join(names)


def judge(path: Path, seed: int) -> str:
    """Read a file in every way that matters; return RIGHT, REPORTED or a description of what is wrong."""
    rng = np.random.default_rng(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    readable = worst(list(examine(path).findings)) not in UNREADABLE
    try:
        with Video(path) as video:
            frames = [video.frames([index])[0] for index in range(min(video.num_frames, 60))]
            count = video.num_frames
        for index in rng.integers(0, len(frames), 2):
            with Video(path) as video:
                alone = video.frames([int(index)])[0]
            if not np.array_equal(alone, frames[index]):
                return excused(path) or f"frame {index} differs if it is read alone"
    except VideoError:
        return REPORTED
    finally:
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if grown > MEMORY_BYTES:
        return f"memory grows by {grown >> 20} MB"
    if not readable:
        return "examine refuses what training reads"
    different = compare(path, frames, count)
    return (excused(path) or different) if different else RIGHT


def pictures(path: Path, most: int, skipped: int = 0, poison: int = 0, least: int | None = None) -> list[np.ndarray]:
    """Return the first pictures of a file as FFmpeg decodes it: packets before the first picture may be beyond it.

    skipped: number of packets to leave out at the start, where the next one is a key frame; otherwise none is decoded
    least: an error behind this many pictures ends the file, since a packet that is not shown may be damaged
    poison: if not 0, hold all frames in memory while decoding, and first leave this value in free memory
    """
    found: list[np.ndarray] = []
    holding: list[av.VideoFrame] = []
    if poison:
        del [np.full(size, poison, np.uint8) for size in range(512, 40_000, 97)][:]
    with open_container(path) as container:
        stream = choose_stream(container)
        assert stream is not None
        stream.thread_type = "NONE"
        for number, packet in enumerate(container.demux(stream)):
            if number < skipped:
                continue
            if number == skipped > 0 and not packet.is_keyframe:
                return []
            try:
                decoded = packet.decode()
            except FFmpegError:
                if least is not None and len(found) >= least:
                    break
                if found or holding:
                    raise
                decoded = []
            if poison:
                holding += decoded
            else:
                found += [upright(rgb(frame, VideoReformatter()), frame) for frame in decoded]
            decoded = []  # nothing is held while the next packet is decoded
            if len(found) + len(holding) >= most:
                break
    found += [upright(rgb(frame, VideoReformatter()), frame) for frame in holding]
    return found[:most]


def excused(path: Path) -> str:
    """Return why there is no right picture to compare with in a damaged file; empty if there is one."""
    if {found.kind for found in examine(path, decode=True).findings} & {"concealed", "repeated", *UNREADABLE}:
        return CONCEALED
    try:
        first = pictures(path, 60)
    except FFmpegError:
        return ""
    # A decoder fills holes with what was in its buffers before: that depends on where it begins, and on which frames
    # the caller still holds.
    ways = [*({"skipped": number} for number in range(1, len(first))), *({"poison": value} for value in (1, 99, 200))]
    for way in ways:
        try:
            again = pictures(path, 60, **way)
        except FFmpegError:
            continue
        rest = first[len(first) - len(again) :]
        if len(again) > len(first) or not all(map(np.array_equal, rest, again)):
            return UNDETERMINED
    return ""


def compare(path: Path, frames: list[np.ndarray], count: int) -> str:
    """Compare the first frames of a file with a decode in sequence by FFmpeg; return what is different, if anything.

    A picture that a damaged packet lacks may be the one before again, as a player shows it.
    """
    try:
        right = pictures(path, len(frames) + 1, least=count)
    except Exception as error:
        return f"read, though a decode in sequence fails ({type(error).__name__}: {error})"
    left, before = list(right), None
    for number, frame in enumerate(frames):
        if left and np.array_equal(frame, left[0]):
            before = left.pop(0)
        elif before is None or not np.array_equal(frame, before):
            return f"frame {number} of {count} differs from a decode in sequence"
    if left and count == len(frames):
        return f"{count} frames, in sequence {len(right)}"
    return ""


def judge_apart(path: Path, seed: int) -> str:
    """Return `judge` of a file, made in a process of its own that is watched."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(receive)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            try:
                said = judge(path, seed)
            except BaseException as error:
                said = f"traceback ({type(error).__name__}: {error})"
            os.write(send, ascii(said).encode()[:2000])
            code = 0
        finally:
            os._exit(code)
    os.close(send)
    try:
        if not select.select([receive], [], [], SECONDS)[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"hangs: not read in {SECONDS:g} seconds"
        said = os.read(receive, 4000).decode()
    finally:
        os.close(receive)
    status = os.waitpid(child, 0)[1]
    return said.strip("'\"") if said else f"crash (signal {os.WTERMSIG(status)})"


def fuzz(seeds: Iterable[int], folder: Path, seconds: float = float("inf")) -> Iterator[tuple[int, Source, str, str]]:
    """Yield (seed, source, damage, outcome) for each seed, until the time is over."""
    whole, end = sources(), time.monotonic() + seconds
    av.logging.set_libav_level(av.logging.PANIC)
    for seed in seeds:
        if time.monotonic() > end:
            return
        source = whole[seed % len(whole)]
        content, damage = damaged(source, seed)
        path = folder / f"damaged{source.suffix}"
        path.write_bytes(content)
        yield seed, source, damage, judge_apart(path, seed)


def record(first: int, files: int, out: Path | None) -> dict[str, Any]:
    """Run the seeds from `first` on; return what became of them, and write it."""
    began, outcomes, failures = time.time(), Counter[str](), []
    by_damage: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed, source, damage, outcome in fuzz(range(first, first + files), Path(folder)):
            kind = outcome if outcome in FINE else "failed"
            outcomes[kind] += 1
            for name in set(damage.split()):
                by_damage.setdefault(name, Counter())[kind] += 1
            if kind == "failed":
                failures.append({"seed": seed, "file": source.case, "damage": damage, "outcome": outcome})
                print(failures[-1], flush=True)
            if seed % 500 == 0:
                print(seed, dict(outcomes), flush=True)
    found = {
        "what": "files of the matrix with bytes flipped, cut and swapped, each read in a process of its own",
        "command": f"python -m tests.data.video.fuzz --first {first} --files {files}",
        "first_seed": first,
        "files": files,
        "whole_files": len(sources()),
        "limit_seconds": SECONDS,
        "limit_memory_bytes": MEMORY_BYTES,
        "outcomes": dict(outcomes),
        "outcomes_by_damage": {name: dict(counts) for name, counts in sorted(by_damage.items())},
        "failures": failures,
        "seconds": round(time.time() - began, 1),
        "finished_utc": now_utc(),
        "environment": environment(),
        "ffmpeg": {name: ".".join(map(str, version)) for name, version in av.library_versions.items()},
    }
    if out is not None:
        write_json(out, found)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--out", type=Path)
    words = parser.parse_args()
    print(json.dumps(record(words.first, words.files, words.out)["outcomes"]))
