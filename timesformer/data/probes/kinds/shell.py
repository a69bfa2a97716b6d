"""`shell`: where the disc ends that was marked in the first frame; afterwards all discs look alike.

Discs move over a plain ground, each by `patches_per_frame` patches up, down, left or right from frame to frame, and
never meet.  In the first frame one is marked.  The class is the half of the video in which it ends.  Two discs of a
clip are drawn to end in different halves, and each may be the marked one: a clip's partner in the test set has the mark
on the other.  Where the two begin and where they end is drawn first, then a fair coin says which ends where, then their
paths are drawn, and drawn anew until every step of every disc can be told from its length alone.  So

- whoever does not see the first frame is at one half, exactly: partners have all other frames in common;
- whoever sees the first frame alone, or it and the last, is at one half, in expectation: the coin is fair whatever
  these two show.

Without the frames in between, and without following each disc from one to the next, there is nothing to know.
"""

from dataclasses import dataclass
from itertools import combinations, permutations
from typing import ClassVar

import numpy as np

from timesformer.data.preprocessing import Preprocessing
from timesformer.data.probes.difficulty import Difficulty
from timesformer.data.probes.kind import Clip, Kind, in_groups
from timesformer.data.probes.scene import Scene, to_planes
from timesformer.data.views import Views
from timesformer.errors import InputError

Array = np.ndarray

PATCH = 8
VIDEO = 48
RADIUS, ROOM = 3.0, 4
"""Radius of a disc, and least distance from its centre to the video's edge, in pixels."""
APART = 8
"""Pixels from disc to disc, at least, along one of the axes."""
FREE = VIDEO - 2 * ROOM
ASIDE = 4
"""Pixels from the middle, at least, at which the first two discs end."""
STEPS = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)])
GROUND, DISC, MARKED = 0.35, 0.65, 0.92
RED = (-0.12, 0.25)
DRAWS, BATCH, MOST, TRIES = 400, 2048, 8, 64
"""Numbers of draws of places, of places per draw, of those that are tried, and of paths for each."""


@dataclass(frozen=True)
class Shell(Kind):
    """The class is the half in which the marked disc ends.

    patches_per_frame: by how many patches of 8 pixels each disc moves from frame to frame, in eighths: from 1 on a disc
        is in another patch in every frame
    discs: how many there are
    video_frames: frames of a video
    """

    patches_per_frame: float = 0.5
    discs: int = 2
    video_frames: int = 8

    name: ClassVar[str] = "shell"
    labels: ClassVar[tuple[str, ...]] = ("left", "right")
    seed_index: ClassVar[int] = 10
    together: ClassVar[int] = 2
    why_together: ClassVar[str] = "each clip with the mark on either disc"
    mirrored: ClassVar[bool] = False
    val_revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self._require_number("patches_per_frame", 0.25, 2.0)
        self._require("patches_per_frame", PATCH * self.patches_per_frame % 1 == 0, "a multiple of 0.125")
        self._require_whole("discs", 2, 4)
        self._require_whole("video_frames", 4, 16)

    @property
    def frames(self) -> int:
        """Frames of a video."""
        return self.video_frames

    @property
    def size(self) -> int:
        """Height and width of a video in pixels."""
        return VIDEO

    @property
    def pixels_per_frame(self) -> int:
        """By how many pixels a disc moves."""
        return int(PATCH * self.patches_per_frame)

    def clips(self, split: int, count: int) -> list[Clip]:
        """Classes in turn; the test set in pairs."""
        return super().clips(split, count) if split == 0 else in_groups(split, count, [(0, 1), (1, 0)])

    def draw(self, clip: Clip, rng: np.random.Generator, dial: Difficulty) -> Scene:
        """Discs on their paths; in variant 1 the mark is on the second."""
        marked = clip.variant
        paths = self._paths(rng, swapped=bool(clip.label ^ marked))
        axis = np.arange(VIDEO) + 0.5
        away = np.hypot(axis[:, None] - paths[..., 0, None, None], axis - paths[..., 1, None, None])
        cover = np.clip(RADIUS + 0.5 - away, 0, 1)  # discs, frames, H, W
        canvas = np.zeros((self.frames, 3, VIDEO, VIDEO), np.float32)
        canvas[:, 0] = GROUND + (DISC - GROUND) * cover.sum(axis=0)
        canvas[0, 0] += (MARKED - DISC) * cover[marked, 0]
        canvas[0, 1:] = np.array(RED)[:, None, None] * cover[marked, 0]
        first, last = paths[marked, 0], paths[marked, -1]
        facts: dict[str, object] = {
            "first_y": int(first[0]),
            "first_x": int(first[1]),
            "last_y": int(last[0]),
            "last_x": int(last[1]),
            "partner": clip.partner,
        }
        return Scene(*to_planes(canvas, rng, dial.noise), cover[marked] > 0.5, facts)

    def _paths(self, rng: np.random.Generator, swapped: bool) -> Array:
        """Centres (discs, frames, 2) in pixels, y before x.  Of the first two discs the first ends on the left, or, if
        `swapped`, on the right; the same draws for both."""
        unit = self.pixels_per_frame
        for _ in range(DRAWS):
            corner = ROOM + rng.integers(0, FREE % unit + 1, 2)
            for begin, end in self._ends(rng, VIDEO / 2 - corner[1]):
                # Places that only one way of the coin can join would tell the class: both must be possible.
                ways = [self._join(rng, begin, ends) for ends in (end, self._exchanged(end))]
                if ways[0] is not None and ways[1] is not None:
                    found: Array = corner + unit * (ways[1] if swapped else ways[0])
                    return found
        raise InputError(
            f"probe shell: no paths found for discs {self.discs}, video_frames {self.video_frames} and "
            f"patches_per_frame {self.patches_per_frame:g}; expected fewer discs or frames or other steps"
        )

    @property
    def _sites(self) -> int:
        """Places along each side of the board, `pixels_per_frame` apart."""
        return FREE // self.pixels_per_frame + 1

    @staticmethod
    def _exchanged(ends: Array) -> Array:
        """The first two of (discs, 2) exchanged."""
        return ends[[1, 0, *range(2, len(ends))]]

    def _ends(self, rng: np.random.Generator, middle: float) -> list[tuple[Array, Array]]:
        """Random places (discs, 2) to begin and to end at, which steps can join in both ways."""
        unit, steps = self.pixels_per_frame, self.frames - 1
        begin, end = rng.integers(0, self._sites, (2, BATCH, self.discs, 2))
        fits = (unit * end[:, 0, 1] <= middle - ASIDE) & (unit * end[:, 1, 1] >= middle + ASIDE)
        for ends in (end, end[:, [1, 0, *range(2, self.discs)]]):
            far = np.abs(begin - ends).sum(axis=-1)
            fits &= ((far <= steps) & (far % 2 == steps % 2)).all(axis=-1)
        for one, other in combinations(range(self.discs), 2):
            for places in (begin, end):
                fits &= unit * np.abs(places[:, one] - places[:, other]).max(axis=-1) >= APART
        return [(begin[index], end[index]) for index in np.flatnonzero(fits)[:MOST]]

    def _join(self, rng: np.random.Generator, begin: Array, end: Array) -> Array | None:
        """Paths in steps from one place to another for each disc, on which no disc can be taken for another."""
        paths = np.stack(
            [_bridges(rng, *places, self.frames - 1, self._sites) for places in zip(begin, end, strict=True)]
        )
        good = np.flatnonzero(self._told_apart(paths))
        if len(good) == 0:
            return None
        found: Array = paths[:, good[0]]
        return found

    def _told_apart(self, paths: Array) -> Array:
        """For paths (discs, tries, frames, 2): whether the discs stay apart, and one assignment alone from frame to
        frame has steps of the right length."""
        apart = np.ones(paths.shape[1], bool)
        for one, other in combinations(range(self.discs), 2):
            gaps = self.pixels_per_frame * np.abs(paths[one] - paths[other]).max(axis=-1)
            apart &= (gaps >= APART).all(axis=-1)
        # disc after, disc before, try, step
        steps = np.abs(paths[:, None, :, 1:] - paths[None, :, :, :-1]).sum(axis=-1) == 1
        own = tuple(range(self.discs))
        for order in permutations(own):
            if order != own:
                apart &= ~steps[list(order), list(own)].all(axis=0).any(axis=-1)
        return apart

    def ceiling_percent(self, record: Preprocessing, views: Views, order_blind: bool = False) -> float | None:
        """One half where the first frame is not seen, or nothing but it and the last; see there what is exact."""
        seen = {frame for clip in self.clips_seen(record, views) for frame in clip}
        return 50.0 if 0 not in seen or seen <= {0, self.frames - 1} else None

    def cheap_limits(self) -> dict[str, float | None]:
        """One half for the first frame."""
        return super().cheap_limits() | {"first_frame": 50.0}


def _bridges(rng: np.random.Generator, begin: Array, end: Array, steps: int, sites: int) -> Array:
    """Random paths (TRIES, steps + 1, 2) on a board, all ways of so many steps from place to place equally likely."""
    ways = np.zeros((steps + 1, sites + 2, sites + 2))  # with a rim from which no way leads on
    ways[0, end[0] + 1, end[1] + 1] = 1
    for left in range(1, steps + 1):
        before = ways[left - 1]
        ways[left, 1:-1, 1:-1] = before[2:, 1:-1] + before[:-2, 1:-1] + before[1:-1, 2:] + before[1:-1, :-2]
    places = np.empty((TRIES, steps + 1, 2), int)
    places[:, 0] = begin
    for step in range(steps):
        nexts = places[:, step, None] + STEPS  # tries, directions, 2
        weights = ways[steps - 1 - step, nexts[..., 0] + 1, nexts[..., 1] + 1].cumsum(axis=1)
        chosen = (rng.random((TRIES, 1)) * weights[:, -1:] >= weights).sum(axis=1)
        places[:, step + 1] = nexts[np.arange(TRIES), chosen]
    return places
