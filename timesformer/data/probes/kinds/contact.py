"""`contact`: whether twins that lie an offset apart have one colour, for every offset in one dataset.

Every patch has a random pattern, and is red or blue.  Some pairs of places, x and x + d, are twins: both show one
pattern.  The offset d of a clip, in frames, rows and columns, is that of all its pairs, and where they lie is drawn at
random.  `equal`: twins have one colour, so that they are the same; `unequal`: one of the two is red and the other blue.
As many first twins are red as are blue, and so it is with the second ones, in both classes.  What a place shows has one
distribution in both, and so has what one of each two twins shows.

The test set holds four clips of a source: as it is, with the colours of all twins exchanged, and with those of the
second or of the first twin of each pair alone.  Each patch has the same pattern in all four, noise included.  So

- whoever sees one twin of each pair alone, as in one frame of a clip with an offset in time, is at one half, exactly;
- whoever adds up what parts of a clip say, none of which sees a first twin and a second one, is at three quarters at
  most, exactly: the sums of the two equal clips are together as large as those of the two unequal ones, so that no
  threshold has all four on the right side.

clips.csv says the offset of each clip, so that accuracy can be read for each.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import ClassVar

import numpy as np

from timesformer.data.preprocessing import Preprocessing
from timesformer.data.probes.difficulty import Difficulty
from timesformer.data.probes.kind import Clip, Kind, in_groups
from timesformer.data.probes.scene import Scene
from timesformer.data.probes.textures import LOSSLESS, PATCH, laid_out, textures
from timesformer.data.views import Views

Place = tuple[int, int, int]

COLOURS = np.array([(-0.035, 0.07), (0.07, -0.035)], np.float32)
"""Colours (cb, cr) of red and blue patches."""
STRENGTH = (0.6, 1.2)
"""Range of the factors of a patch's colour."""
TURNED = ((0, 0), (1, 1), (0, 1), (1, 0))
"""In which of the four clips of a source the colours of the first and of the second twins are exchanged."""


@dataclass(frozen=True)
class Contact(Kind):
    """The class is whether twins at an offset from one another have one colour.

    max_offset: largest offset in rows and columns, in patches; offsets in time go as far as the video
    pairs: twins in a clip, an even number of pairs
    grid: patches of 8 x 8 pixels along each side of a video
    video_frames: frames of a video
    patch_noise: standard deviation of the noise in each pixel of each frame, in place of the difficulty's

    Videos are stored without loss, whatever the difficulty says.
    """

    max_offset: int = 2
    pairs: int = 4
    grid: int = 4
    video_frames: int = 2
    patch_noise: float = 0.02

    name: ClassVar[str] = "contact"
    labels: ClassVar[tuple[str, ...]] = ("equal", "unequal")
    seed_index: ClassVar[int] = 7
    together: ClassVar[int] = 4
    why_together: ClassVar[str] = "two clips of equal twins and two of unequal ones"
    revision: ClassVar[int] = 2
    val_revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self._require_whole("grid", 3, 8)
        self._require_whole("video_frames", 1, 16)
        self._require_whole("max_offset", 1, self.grid - 1)
        self._require_one_of("pairs", 2, 4, 6, 8)
        self._require("pairs", bool(self.offsets), "few enough for an offset")
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

        One of each two opposite ones is there, and none that leaves no room for all pairs.
        """
        return _offsets(self.frames, self.grid, self.max_offset, self.pairs)

    def placings(self, offset: Place) -> tuple[Place, ...]:
        """The places x of an offset's clips, all equally likely."""
        return _placings(self.frames, self.grid, offset)

    def offset(self, clip: Clip) -> Place:
        """The offset of a clip; in training both classes have it in turn."""
        return self.offsets[(clip.source if clip.split else clip.source // 2) % len(self.offsets)]

    def clips(self, split: int, count: int) -> list[Clip]:
        """Classes in turn; the test set in fours."""
        return super().clips(split, count) if split == 0 else in_groups(split, count, [(0, 0, 1, 1)])

    def draw(self, clip: Clip, rng: np.random.Generator, dial: Difficulty) -> Scene:
        """A field of patterns with some twins."""
        offset = self.offset(clip)
        chosen = self._chosen(rng, offset)
        # The texture of each place, with noise of its own.  Twins show one pattern; colours are laid on in the end.
        patches = textures(rng, self.frames, self.grid, self.grid)
        for x in chosen:
            patches[plus(x, offset)] = patches[x]
        patches[..., 0, :, :] += self.patch_noise * rng.standard_normal((*patches.shape[:3], PATCH, PATCH))
        strength = rng.uniform(*STRENGTH, patches.shape[:3])
        looks = rng.permutation(np.arange(strength.size) % 2).reshape(strength.shape)
        pair_looks = rng.permutation(np.arange(self.pairs) % 2)  # as many of one colour as of the other
        shown = np.zeros(patches.shape[:3], bool)
        for look, x in zip(pair_looks, chosen, strict=True):
            turns = TURNED[clip.variant if clip.split else 2 * clip.label]
            for place, turned in zip((x, plus(x, offset)), turns, strict=True):
                looks[place] = look ^ turned
                shown[place] = True
        patches[..., 1:, :, :] = (COLOURS[looks] * strength[..., None])[..., None, None]
        facts: dict[str, object] = {f"offset_{axis}": part for axis, part in zip("thw", offset, strict=True)}
        facts["places"] = " ".join(str(self._number(x)) for x in chosen)
        return laid_out(patches, shown, rng, 0.0, facts | {"partner": clip.partner})

    def _number(self, place: Place) -> int:
        return (place[0] * self.grid + place[1]) * self.grid + place[2]

    def _chosen(self, rng: np.random.Generator, offset: Place) -> list[Place]:
        """Places x of `pairs` pairs that share no patch."""
        places = self.placings(offset)
        while True:
            found: list[Place] = []
            taken: set[Place] = set()
            for index in rng.permutation(len(places)):
                pair = {places[index], plus(places[index], offset)}
                if len(found) < self.pairs and not pair & taken:
                    found.append(places[index])
                    taken |= pair
            if len(found) == self.pairs:
                return found

    def quantiser(self, dial: Difficulty) -> int:
        """Without loss: coding would carry something of a patch into its neighbours."""
        return LOSSLESS

    def ceiling_percent(self, record: Preprocessing, views: Views, order_blind: bool = False) -> float | None:
        """One half of the clips of which no first and second twin can both be in the frames that are seen."""
        seen = {frame for clip in self.clips_seen(record, views) for frame in clip}
        if len(seen) == self.frames:
            return None
        told = [any({x[0], x[0] + offset[0]} <= seen for x in self.placings(offset)) for offset in self.offsets]
        return 50.0 + 50.0 * sum(told) / len(told)


def plus(place: Place, offset: Place) -> Place:
    """The place at an offset from another."""
    return place[0] + offset[0], place[1] + offset[1], place[2] + offset[2]


@cache
def _placings(frames: int, grid: int, offset: Place) -> tuple[Place, ...]:
    return tuple(
        place
        for place in product(range(frames), range(grid), range(grid))
        if all(0 <= part < end for part, end in zip(plus(place, offset), (frames, grid, grid), strict=True))
    )


@cache
def _offsets(frames: int, grid: int, most: int, pairs: int) -> tuple[Place, ...]:
    sides = range(-most, most + 1)
    found = [offset for offset in product(range(frames), sides, sides) if offset > (0, 0, 0)]
    return tuple(offset for offset in found if _room(frames, grid, offset) >= pairs)


def _room(frames: int, grid: int, offset: Place) -> int:
    """Number of pairs at an offset that share no patch: in a row of places, an offset apart, every second one."""
    taken: set[Place] = set()
    count = 0
    for x in _placings(frames, grid, offset):
        pair = {x, plus(x, offset)}
        if not pair & taken:
            taken |= pair
            count += 1
    return count
