"""`detail`: the class is a fine texture, which averages out when a video is downsampled.

Videos have 64 x 64 pixels and are stored without loss.  The object carries a pattern of bright and dark squares in
cells of c x c pixels (c one of `scales`): horizontal stripes, vertical stripes, a chequerboard, or a mixture of these.
Every cell has two bright and two dark quarters, whatever the class.  Cells are grouped into blocks; each block has a
background of one colour, and in the mixture the kind of cell changes from block to block only.  When a video is resized
(bilinear, without antialiasing) to 1 / f of its size, f a power of two, each pixel is the mean of the four pixels
around its position.  For f >= c two of these are bright and two are dark, so videos that differ only in class become
identical up to float rounding.

The test set contains every scene once in each class.  At a short side of 1 / f of the videos' size, a model gives all
four versions of a scene with c <= f the same answer, which is right for one of them.  The ceiling is therefore the
share of scenes with c > f plus a quarter of the rest: 25, 62.5 and 100 % at short sides of 16, 32 and 64 with scales 2
and 4.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from timesformer.data.preprocessing import Preprocessing
from timesformer.data.probes.difficulty import Difficulty
from timesformer.data.probes.kind import Clip, Kind, clip_name, is_power_of_two
from timesformer.data.probes.scene import MOTIONS, SIZE, Scene, render
from timesformer.data.views import Views

Array = np.ndarray
MAGNIFIED = 2
"""Magnification in each direction: video pixels per pixel of the scene, which is the centre of the usual frame."""
SEEN = slice(4, SIZE - 4)
SMALLEST_BLOCK = 4


@dataclass(frozen=True)
class Detail(Kind):
    """Probe of spatial detail: the class is a texture that is visible only at higher resolution.

    scales: sizes of the pattern's cells in pixels, used in turn: one or more of 2, 4, 8
    pattern_contrast: difference between the bright (or dark) squares and their mean, as luma on a scale of 0 to 1
    """

    scales: tuple[int, ...] = (2, 4)
    pattern_contrast: float = 0.1

    name: ClassVar[str] = "detail"
    labels: ClassVar[tuple[str, ...]] = ("horizontal", "vertical", "chequered", "mixed")
    seed_index: ClassVar[int] = 3
    together: ClassVar[int] = 4
    why_together: ClassVar[str] = "each scene in every class"

    def __post_init__(self) -> None:
        listed = isinstance(self.scales, tuple) and len(self.scales) > 0
        fitting = listed and all(is_power_of_two(scale) and 2 <= scale <= 8 for scale in self.scales)
        self._require("scales", fitting, "a list of one or more of 2, 4, 8")
        number = isinstance(self.pattern_contrast, int | float) and not isinstance(self.pattern_contrast, bool)
        self._require("pattern_contrast", number and 0 < self.pattern_contrast <= 0.4, "above 0, at most 0.4")

    @property
    def block(self) -> int:
        """Side of a block of cells in pixels, which is also the largest downsampling factor with a known bound."""
        return max(SMALLEST_BLOCK, *self.scales)

    @property
    def size(self) -> int:
        """Height and width of a video in pixels."""
        return MAGNIFIED * len(range(SIZE)[SEEN])

    def clips(self, split: int, count: int) -> list[Clip]:
        """List the clips of a split: the classes in turn; in the test set four clips per source, one of each class."""
        if split == 0:
            return super().clips(split, count)
        return [
            Clip(clip_name(i), split, i // 4, i % 4, i % 4, clip_name(i // 4 * 4) if i % 4 else "")
            for i in range(count)
        ]

    def scale(self, clip: Clip) -> int:
        """Return the side of a cell of the clip's pattern in pixels."""
        a_round = clip.source // len(self.labels) if clip.split == 0 else clip.source
        return self.scales[a_round % len(self.scales)]

    def draw(self, clip: Clip, rng: np.random.Generator, dial: Difficulty) -> Scene:
        """Draw a blob that moves at random, at twice the usual size, with the pattern on it."""
        scene = render(str(rng.choice(MOTIONS)), "blob", rng, clip.split, dial)
        luma, mask = (_enlarged(plane[:, SEEN, SEEN], MAGNIFIED) for plane in (scene.luma, scene.mask))
        half = slice(SEEN.start // 2, SEEN.stop // 2)  # chroma is stored for 2 x 2 pixels together
        cb, cr = (_enlarged(plane[:, half, half], MAGNIFIED) for plane in (scene.cb, scene.cr))
        inside = _enlarged(np.all(_cells(mask, self.block), axis=(2, 4)), self.block)
        height = max(1, round(219 * self.pattern_contrast))
        ground = np.clip(_ground(luma, self.block), 16 + height, 235 - height)
        pattern = _pattern(clip.label, self.scale(clip), self.block, self.size, rng)
        luma = np.where(inside, ground + height * pattern, luma).astype(np.uint8)
        cb, cr = (
            np.where(inside[:, ::2, ::2], _ground(plane, self.block // 2), plane).astype(np.uint8) for plane in (cb, cr)
        )
        facts = scene.facts | {"scale": self.scale(clip), "partner": clip.partner}
        return replace(scene, luma=luma, cb=cb, cr=cr, mask=mask, facts=facts)

    def quantiser(self, dial: Difficulty) -> int:
        """Return 0 (lossless) whatever the difficulty: lossy coding would change the means that the classes share."""
        return 0

    def default_short_side(self, crop: int) -> int:
        """Return the crop size, so that whole frames are seen at any resolution."""
        return crop

    def ceiling_percent(self, record: Preprocessing, views: Views, order_blind: bool = False) -> float | None:
        """Return the ceiling at the record's short side; None where no part of the pattern is certain to be lost."""
        factor, rest = divmod(self.size, record.short_side)
        exact = record.interpolation == "bilinear" and not record.antialias
        if rest or not exact or not is_power_of_two(factor) or factor > self.block:
            return None
        ceiling = self._ceiling(factor)
        return ceiling if ceiling < 100 else None

    def cheap_limits(self) -> dict[str, float | None]:
        """Return the ceiling at half resolution for all but the file size.

        File size has no limit because it depends on how hard the texture is to code.
        """
        return dict.fromkeys(super().cheap_limits(), self._ceiling(2)) | {"file_size": None}

    def _ceiling(self, factor: int) -> float:
        """Return the ceiling in percent at 1 / factor of the videos' size."""
        lost = sum(scale <= factor for scale in self.scales)
        return 100.0 - 100.0 * lost / len(self.scales) * (1 - 1 / len(self.labels))


def _enlarged(plane: Array, times: int) -> Array:
    """Replace every pixel of (t, H, W) with a square of `times` x `times` pixels."""
    return plane.repeat(times, axis=1).repeat(times, axis=2)


def _cells(plane: Array, cell: int) -> Array:
    """Reshape (t, H, W) to (t, rows, cell, columns, cell)."""
    frames, height, width = plane.shape
    return plane.reshape(frames, height // cell, cell, width // cell, cell)


def _ground(plane: Array, cell: int) -> Array:
    """Replace every pixel with the rounded mean of its cell."""
    return _enlarged(np.rint(_cells(plane, cell).mean(axis=(2, 4))).astype(np.int16), cell)


def _pattern(label: int, scale: int, block: int, size: int, rng: np.random.Generator) -> Array:
    """Return the pattern (H, W): +1 in two quarters of each cell, -1 in the other two.

    The random draws are the same for every label.
    """
    axis = np.arange(size) // (scale // 2) % 2 * 2 - 1
    rows, columns = np.broadcast_arrays(axis[:, None], axis[None, :])
    kinds = np.stack([rows, columns, rows * columns])
    blocks = (1, size // block, size // block)
    chosen, sign = (
        _enlarged(rng.integers(3, size=blocks), block),
        _enlarged(2 * rng.integers(2, size=blocks) - 1, block),
    )
    return kinds[label] if label < len(kinds) else (np.take_along_axis(kinds, chosen, axis=0) * sign)[0]
