"""`contact`: whether textures that lie a fixed offset apart are the same, for every offset in one dataset.

Four patches of a grey video show two patterns, each of them twice.  They lie at x, x + d, y and y + d, where d is the
offset of the clip, in frames, rows and columns, and x and y are drawn at random; those at x and x + d are red, the
other two blue, or the other way round.  `equal`: x and x + d show one pattern, y and y + d the other, so that patches
of one colour have one pattern.  `crossed`: the patterns at x + d and y + d have changed places, and each pattern is
there in both colours.  A test clip is followed by its partner of the other class: the same four places in the same
colours, with the same patterns.  So

- whoever counts patterns, wherever and whenever they are, or colours, is at one half, exactly;
- whoever sees none of x + d and y + d is at one half, exactly, and whoever sees none of x and y is so in expectation,
  by equal distributions: no single frame shows anything of a clip with an offset in time whose x and y share a frame.

Who counts how often a pattern has which colour could tell the classes without regard to places.

clips.csv says the offset of each clip, and the offset from x to y, so that accuracy can be read for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import ClassVar

import numpy as np

from timesformer.data.preprocessing import Preprocessing
from timesformer.data.probes.difficulty import Difficulty
from timesformer.data.probes.kind import Clip, Kind, in_groups
from timesformer.data.probes.scene import Scene
from timesformer.data.probes.textures import LOSSLESS, PATCH, empty, laid_out, textures
from timesformer.data.views import Views

Place = tuple[int, int, int]

COLOURS = np.array([(-0.10, 0.18), (0.18, -0.10)], np.float32)
"""Colours (cb, cr) of the two pairs of places: red and blue."""


@dataclass(frozen=True)
class Contact(Kind):
    """The class is whether textures at an offset from one another are equal.

    max_offset: largest offset in rows and columns, in patches; offsets in time go as far as the video
    grid: patches of 8 x 8 pixels along each side of a video
    video_frames: frames of a video
    patch_noise: standard deviation of the noise in each pixel of each frame, in place of the difficulty's

    Videos are stored without loss, whatever the difficulty says.
    """

    max_offset: int = 2
    grid: int = 4
    video_frames: int = 2
    patch_noise: float = 0.02

    name: ClassVar[str] = "contact"
    labels: ClassVar[tuple[str, ...]] = ("equal", "crossed")
    seed_index: ClassVar[int] = 7
    together: ClassVar[int] = 2
    why_together: ClassVar[str] = "each clip and the one with crossed textures"
    revision: ClassVar[int] = 1
    val_revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self._require_whole("grid", 3, 8)
        self._require_whole("video_frames", 1, 16)
        self._require_whole("max_offset", 1, self.grid - 1)
        self._require_number("patch_noise", 0.0, 0.2)

    @property
    def frames(self) -> int:
        """Frames of a video."""
        return self.video_frames

    @property
    def size(self) -> int:
        """Height and width of a video in pixels."""
        return PATCH * self.grid

    @property
    def offsets(self) -> tuple[Place, ...]:
        """The offsets (frames, rows, columns), in the order in which clips take turns with them.

        One of each two opposite ones is there, and none that leaves room for one pair alone.
        """
        return _offsets(self.frames, self.grid, self.max_offset)

    def placings(self, offset: Place) -> list[tuple[Place, list[Place]]]:
        """The places x of an offset's clips, all equally likely, and for each the y, which are so too."""
        bases = _bases(self.frames, self.grid, offset)
        return [(x, _others(bases, x, offset)) for x in bases]

    def offset(self, clip: Clip) -> Place:
        """The offset of a clip; in training both classes have it in turn."""
        return self.offsets[(clip.source if clip.split else clip.source // 2) % len(self.offsets)]

    def clips(self, split: int, count: int) -> list[Clip]:
        """Classes in turn; the test set in pairs."""
        return super().clips(split, count) if split == 0 else in_groups(split, count, [(0, 1), (1, 0)])

    def draw(self, clip: Clip, rng: np.random.Generator, dial: Difficulty) -> Scene:
        """Four patches with two patterns on grey."""
        offset = self.offset(clip)
        bases = _bases(self.frames, self.grid, offset)
        x = bases[int(rng.integers(len(bases)))]
        others = _others(bases, x, offset)
        y = others[int(rng.integers(len(others)))]
        one, other = textures(rng, 2)
        colours = COLOURS[rng.permutation(2)]
        patches = empty(self.frames, self.grid)
        shown = np.zeros(patches.shape[:3], bool)
        for place, texture in ((x, one), (y, other)):
            for at in (place, _plus(place, offset)):
                patches[at] = texture
                shown[at] = True
        patches[..., 0, :, :] += self.patch_noise * rng.standard_normal((*shown.shape, PATCH, PATCH), dtype=np.float32)
        far = _plus(x, offset), _plus(y, offset)
        if clip.label:  # crossed, noise included: partners have the same patterns to the last bit
            patches[far[0]], patches[far[1]] = patches[far[1]].copy(), patches[far[0]].copy()
        for places, colour in zip(((x, far[0]), (y, far[1])), colours, strict=True):
            for at in places:
                patches[at][1:] = colour[:, None, None]
        facts: dict[str, object] = {}
        between = tuple(b - a for a, b in zip(x, y, strict=True))
        for what, value in (("offset", offset), ("between", between), ("x", x)):
            facts |= {f"{what}_{axis}": part for axis, part in zip("thw", value, strict=True)}
        return laid_out(patches, shown, rng, 0.0, facts | {"partner": clip.partner})

    def quantiser(self, dial: Difficulty) -> int:
        """Without loss: coding would carry something of a patch into its neighbours."""
        return LOSSLESS

    def ceiling_percent(self, record: Preprocessing, views: Views, order_blind: bool = False) -> float | None:
        """One half of the clips that do not show enough in the frames that are seen, and all others, in expectation."""
        seen = {frame for clip in self.clips_seen(record, views) for frame in clip}
        if len(seen) == self.frames:
            return None
        share = sum(self._both_seen(offset, seen) for offset in self.offsets) / len(self.offsets)
        return 50.0 + 50.0 * share

    def _both_seen(self, offset: Place, seen: set[int]) -> float:
        """The share of an offset's clips of which one of x and y and one of x + d and y + d are seen."""
        bases = _bases(self.frames, self.grid, offset)
        shares = []
        for x in bases:
            others = _others(bases, x, offset)
            told = [{x[0], y[0]} & seen and {x[0] + offset[0], y[0] + offset[0]} & seen for y in others]
            shares.append(sum(map(bool, told)) / len(told))
        return sum(shares) / len(shares)

    def cheap_limits(self) -> dict[str, float | None]:
        """One half for whoever counts patches by their brightness."""
        return super().cheap_limits() | dict.fromkeys(
            (name for name in super().cheap_limits() if name.startswith("patches")), 50.0
        )


def _plus(place: Place, offset: Place) -> Place:
    return place[0] + offset[0], place[1] + offset[1], place[2] + offset[2]


@cache
def _offsets(frames: int, grid: int, most: int) -> tuple[Place, ...]:
    sides = range(-most, most + 1)
    found = [offset for offset in product(range(frames), sides, sides) if offset > (0, 0, 0)]
    return tuple(offset for offset in found if _bases(frames, grid, offset))


@cache
def _bases(frames: int, grid: int, offset: Place) -> tuple[Place, ...]:
    """Places x of the video for which x + d is another, and for which there is a y."""
    inside = [
        place
        for place in product(range(frames), range(grid), range(grid))
        if all(0 <= part < end for part, end in zip(_plus(place, offset), (frames, grid, grid), strict=True))
    ]
    return tuple(x for x in inside if _others(inside, x, offset))


def _others(bases: Sequence[Place], x: Place, offset: Place) -> list[Place]:
    """The y for which x, x + d, y and y + d are four places."""
    far = _plus(x, offset)
    return [y for y in bases if y not in (x, far) and _plus(y, offset) != x]
