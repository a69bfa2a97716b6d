"""Videos of maps: the film next to the same film with the map over it, as mp4 or gif."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from timesformer.errors import InputError
from timesformer.files import write_atomic
from timesformer.maps.overlay import overlay
from timesformer.maps.seen import Seen

LEAST_SIDE = 224
"""Approximate shorter side, in pixels, to which small films are enlarged by a whole number."""


def side_by_side(seen: Seen, weights: np.ndarray, *, smooth: bool = False) -> np.ndarray:
    """Put the film on the left, and on the right the film under the map of the nearest frame that the model saw.

    weights: (tokens in time, h, w).  The result is uint8 (n, H, W, 3).
    """
    tubelet = len(seen.frames) // len(weights)
    under = seen.film
    nearest = weights[seen.film_frames // tubelet]
    shaded = overlay(under, nearest, top=float(weights.max()), smooth=smooth)
    times = max(1, LEAST_SIDE // min(under.shape[1:3]))
    gap = np.full((len(under), under.shape[1], 1, 3), 255, np.uint8)
    both = np.concatenate([under, gap, shaded], 2)
    return both.repeat(times, 1).repeat(times, 2)


def write_film(path: Path | str, frames: np.ndarray, fps: float) -> Path:
    """Write frames (n, H, W, 3) as .mp4 (H.264) or .gif, according to the suffix of the path.

    Raises:
        InputError: another suffix, or a folder that cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".mp4", ".gif"):
        raise InputError(f"{path}: expected a name that ends in .mp4 or .gif")
    return write_atomic(path, lambda to: _mp4(to, frames, fps) if path.suffix == ".mp4" else _gif(to, frames, fps))


def _mp4(path: Path, frames: np.ndarray, fps: float) -> None:
    height, width = (side + side % 2 for side in frames.shape[1:3])  # 4:2:0 needs even sides
    padded = np.pad(frames, ((0, 0), (0, height - frames.shape[1]), (0, width - frames.shape[2]), (0, 0)), mode="edge")
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": "16"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for pixels in padded:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        out.mux(stream.encode(None))


def _gif(path: Path, frames: np.ndarray, fps: float) -> None:
    first, *rest = (Image.fromarray(pixels) for pixels in frames)
    # Durations are whole hundredths of a second; viewers slow down frames that are shorter than two of them.
    ends = np.round(np.arange(len(frames) + 1) * 100 / min(fps, 50.0))
    lasting = (10 * np.diff(ends)).astype(int).tolist()
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=lasting, loop=0)
