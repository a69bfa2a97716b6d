"""Difference of two models' maps of the same clip: where the first has more weight, and where the second."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from timesformer.files import write_atomic
from timesformer.maps.overlay import COVER, DIM, HIGH, LOW, grey, over_frames, upsample
from timesformer.maps.pictures import frame_rows, name_row, offset, shown_frames, strip, write_title
from timesformer.maps.seen import Seen

LOW_SECOND, HIGH_SECOND = (0, 114, 178), (190, 235, 255)
"""Glow of the smallest and of the largest weight that the second model has more, RGB."""
UNIT = "share of the weight on all patches"
SIGN = "first minus second: above 0 where the first model has more weight"
MARKED = 0.5
"""Patches with at least this share of the largest difference carry its sign, so that no colour is needed."""
SAME_AREA = 0.01
"""Tolerance of the edges of two crops, as a share of the frame."""


@dataclass(frozen=True)
class Difference:
    """Differences of two models' maps.

    maps: by method, (t, h, w): first minus second, in shares of the weight on all patches, so that each sums to 0; on
    the finer of the two grids along each axis
    names: of the two models
    """

    maps: dict[str, np.ndarray]
    names: tuple[str, str]

    def described(self) -> dict[str, Any]:
        """Return the differences' sizes as plain data.

        moved: share of the weight that the second model has on other patches; largest: difference of a single patch
        """
        return {
            "first": self.names[0],
            "second": self.names[1],
            "sign": SIGN,
            "unit": UNIT,
            "methods": {
                name: {"moved": float(np.abs(one).sum() / 2), "largest": float(np.abs(one).max())}
                for name, one in self.maps.items()
            },
        }


def not_comparable(first: Seen, second: Seen) -> str:
    """Return why two clips of a video do not show the same, so that maps have no difference; empty if they do."""
    if len(first.seconds) != len(second.seconds):
        counts = f"{len(first.seconds)} and {len(second.seconds)} frames"
        return f"the models read {counts} (expected as many; --frames makes them read the same)"
    if not np.allclose(first.seconds, second.seconds, atol=1e-3):
        return "the models read frames of other moments (expected the same sampling)"
    if max(abs(one - other) for one, other in zip(first.area, second.area, strict=True)) > SAME_AREA:
        return "the models read other parts of the frames (expected the same crop in proportion to the short side)"
    return ""


def difference(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], names: tuple[str, str]) -> Difference:
    """Subtract the second model's maps from the first's, of each method that both have.

    first, second: {method: weights (t, h, w)} of the same frames; negative weights count as 0, and each map is divided
    by its sum.  Grids may differ: weight is spread evenly within a patch and collected on the finer grid.
    """
    found = {}
    for name in first:
        if name in second:
            one, other = first[name], second[name]
            grid = tuple(map(max, zip(one.shape, other.shape, strict=True)))
            found[name] = resampled(_whole(one), grid) - resampled(_whole(other), grid)
    return Difference(found, names)


def _whole(weights: np.ndarray) -> np.ndarray:
    kept = np.maximum(weights.astype(np.float64), 0)
    total = kept.sum()
    return kept / total if total > 0 else kept


def resampled(weights: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """Spread weights over another grid of the same extent, by the parts that their cells share; their sum stays."""
    for axis, cells in enumerate(grid):
        if weights.shape[axis] != cells:
            shared = _overlap(weights.shape[axis], cells)
            weights = np.moveaxis(np.tensordot(shared, weights, (1, axis)), 0, axis)
    return weights


def _overlap(cells: int, wanted: int) -> np.ndarray:
    """Return the share of each cell that lies in each wanted one, (wanted, cells)."""
    starts, begins = np.arange(cells) / cells, np.arange(wanted)[:, None] / wanted
    common = np.minimum(starts + 1 / cells, begins + 1 / wanted) - np.maximum(starts, begins)
    return np.maximum(common, 0) * cells


def save_difference(path: Path, found: Difference, seen: Seen, checkpoints: tuple[str, str]) -> None:
    """Write each method's map (t, h, w) under its name, the frames' seconds, and sign, unit and models as JSON in
    `header`.  The file is written atomically."""
    stated = {"first": checkpoints[0], "second": checkpoints[1], "video": seen.path, "sign": SIGN, "unit": UNIT}

    def write(place: Path) -> None:
        arrays: dict[str, Any] = {name: one.astype(np.float32) for name, one in found.maps.items()}
        with place.open("wb") as file:
            np.savez_compressed(file, header=np.array(json.dumps(stated)), seconds=seen.seconds, **arrays)

    write_atomic(path, write)


def draw_difference(seen: Seen, found: Difference, *, smooth: bool = False) -> Figure:
    """Draw the frames in a row, and below it a row for each method: orange where the first model has more weight, blue
    where the second has, the brighter the more, on a scale of its own that is the same to both sides.

    Patches with at least half of the largest difference carry its sign.

    Raises:
        InputError: a map whose grid does not divide the frames or their pixels.
    """
    frames = seen.frames
    shown = shown_frames(len(frames))
    figure, axes = frame_rows(frames, shown, len(found.maps), seen.seconds)
    for ax, (name, weights) in zip(axes[1:], found.maps.items(), strict=True):
        top = float(np.abs(weights).max())
        strip(ax, overlay_difference(frames, weights, smooth=smooth)[shown])
        name_row(ax, name)
        _signs(ax, over_frames(weights, len(frames))[shown], frames.shape[1:3], top)
        _bar(figure, ax, top)
    first, second = found.names
    moved = ", ".join(f"{name} {100 * part['moved']:.0f} %" for name, part in found.described()["methods"].items())
    left_out = len(frames) - len(shown)
    more = f" ({len(shown)} of {len(frames)} frames)" if left_out else ""
    write_title(figure, f"+ orange: more in {first}; − blue: more in {second}; weight that differs: {moved}{more}")
    return figure


def overlay_difference(frames: np.ndarray, weights: np.ndarray, *, smooth: bool = False) -> np.ndarray:
    """Overlay differences (tokens in time, h, w) on frames (t, H, W, 3): uint8 (t, H, W, 3).

    Raises:
        InputError: frames or pixels that the weights do not divide.
    """
    weights = over_frames(weights, len(frames))
    top = float(np.abs(weights).max())
    relative = weights / top if top > 0 else np.zeros_like(weights)
    size = frames.shape[1:3]
    signed = upsample(relative.astype(np.float32), (size[0], size[1]), smooth)[..., None].clip(-1, 1)
    strength, ground = np.abs(signed), np.float32(DIM) * grey(frames)
    ends = [np.array(each, np.float32) for each in (LOW, HIGH, LOW_SECOND, HIGH_SECOND)]
    glow = np.where(signed >= 0, ends[0] + strength * (ends[1] - ends[0]), ends[2] + strength * (ends[3] - ends[2]))
    return np.round(ground + COVER * strength * (glow - ground)).astype(np.uint8)


def _signs(ax: Axes, weights: np.ndarray, size: tuple[int, ...], top: float) -> None:
    """Write + or − on the patches with large differences."""
    if top <= 0:
        return
    height, width = size[0] / weights.shape[1], size[1] / weights.shape[2]
    for column, row, place in np.argwhere(np.abs(weights) >= MARKED * top):
        left = offset(int(column), size[1]) + (place + 0.5) * width
        sign = "+" if weights[column, row, place] > 0 else "−"
        ax.text(left, (row + 0.5) * height, sign, ha="center", va="center", fontsize=7, color="black")


def _bar(figure: Figure, ax: Axes, top: float) -> None:
    """Draw a colour bar to the right of a row, from what the second model has more to what the first has."""
    colours = [HIGH_SECOND, LOW_SECOND, (0, 0, 0), LOW, HIGH]
    both = LinearSegmentedColormap.from_list("both", [tuple(level / 255 for level in each) for each in colours])
    box, width = ax.get_position(), figure.get_figwidth()
    bar = figure.add_axes((box.x1 + 0.1 / width, box.y0, 0.08 / width, box.height), label="scale")
    bar.imshow(np.linspace(0, 1, 65)[:, None], cmap=both, aspect="auto", origin="lower", extent=(0, 1, -1, 1))
    bar.set(xticks=[], yticks=[-1, 0, 1])
    most = f"{100 * top:.3g} %"
    bar.set_yticklabels([f"−{most}", "0", f"+{most}"] if top > 0 else ["", "0", ""])
    bar.yaxis.tick_right()
    bar.tick_params(labelsize=7)
