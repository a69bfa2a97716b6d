"""Readers of other libraries that users would pick, with one thread and their usual calls."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

Read = Callable[[Path, Sequence[int]], np.ndarray]
"""Function that returns frames of a file, uint8 (t, H, W, 3), RGB."""


def _decord(library: Any) -> dict[str, Read]:
    def read(path: Path, indices: Sequence[int]) -> np.ndarray:
        frames: np.ndarray = library.VideoReader(str(path), num_threads=1).get_batch(list(indices)).asnumpy()
        return frames

    return {"decord": read}


def _opencv(library: Any) -> dict[str, Read]:
    def opened(path: Path) -> Any:
        library.setNumThreads(1)
        return library.VideoCapture(str(path), library.CAP_FFMPEG, [library.CAP_PROP_N_THREADS, 1])

    def seek(path: Path, indices: Sequence[int]) -> np.ndarray:
        video, frames = opened(path), []
        for index in indices:
            video.set(library.CAP_PROP_POS_FRAMES, index)
            frames.append(library.cvtColor(video.read()[1], library.COLOR_BGR2RGB))
        video.release()
        return np.stack(frames)

    def grab(path: Path, indices: Sequence[int]) -> np.ndarray:
        video, frames, wanted = opened(path), [], set(indices)
        for number in range(max(indices) + 1):
            video.grab()
            if number in wanted:
                frames.append(library.cvtColor(video.retrieve()[1], library.COLOR_BGR2RGB))
        video.release()
        return np.stack(frames)

    return {"opencv_seek": seek, "opencv_grab": grab}


def _torchcodec(library: Any) -> dict[str, Read]:
    def read(path: Path, indices: Sequence[int]) -> np.ndarray:
        decoder = library.decoders.VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
        frames: np.ndarray = decoder.get_frames_at(list(indices)).data.numpy()
        return frames

    return {"torchcodec": read}


LIBRARIES: dict[str, tuple[tuple[str, ...], Callable[[Any], dict[str, Read]]]] = {
    "decord": (("decord", "eva-decord"), _decord),
    "cv2": (("opencv-python-headless", "opencv-python"), _opencv),
    "torchcodec.decoders": (("torchcodec",), _torchcodec),
}
"""Modules: (distributions that contain it, function from the module to its readers by name)."""


def peers() -> tuple[dict[str, Read], dict[str, str]]:
    """Return the readers that can be used here, and for each library its version or why it cannot be imported."""
    readers: dict[str, Read] = {}
    said: dict[str, str] = {}
    for module, (distributions, make) in LIBRARIES.items():
        name = distributions[0]
        try:
            importlib.import_module(module)
            readers |= make(importlib.import_module(module.partition(".")[0]))
            said[name] = _version(distributions)
        except (ImportError, OSError, RuntimeError) as error:  # torchcodec needs FFmpeg's libraries in the system
            lines = str(error).strip().splitlines() or [type(error).__name__]
            said[name] = f"cannot be imported ({lines[0]})"
    return readers, said


def _version(distributions: tuple[str, ...]) -> str:
    for distribution in distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "unknown version"
