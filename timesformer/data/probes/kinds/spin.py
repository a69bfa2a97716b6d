"""`spin`: which way a ring of random textures turns, with nothing else to go by.

On grey lies a ring of whole patches, the rim of a square, each with a fresh random texture.  From frame to frame every
texture goes on to the next patch of the ring, clockwise or anticlockwise, while the ring as a whole drifts by whole
patches.  Where the ring lies and which way it drifts are drawn alike in both classes.  So what a single frame shows,
and what one place shows over time, has one distribution whichever way the ring turns, and only who compares a patch
with a patch of another place and another frame can do better than chance.

Bounds:
- One frame of each video: one half, in expectation, by equal distributions.
- The frames as a set: one half, exactly.  The test set holds each clip's reversal, which turns the other way.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from timesformer.data.preprocessing import Preprocessing
from timesformer.data.probes.difficulty import Difficulty
from timesformer.data.probes.kind import ORDER_BLIND_CEILING_PERCENT, Clip, Kind, in_groups
from timesformer.data.probes.scene import Scene
from timesformer.data.probes.textures import LOSSLESS, PATCH, empty, laid_out, textures
from timesformer.data.views import Views

WAYS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Ways of a drift: rows down and columns to the right."""


@dataclass(frozen=True)
class Spin(Kind):
    """The class is the direction in which a ring of textures turns; each test clip is followed by its reversal.

    ring: patches along each side of the ring
    drift: patches by which the ring moves besides, between two frames, which says nothing of its turn
    grid: patches of 8 x 8 pixels along each side of a video
    video_frames: frames of a video
    patch_noise: standard deviation of the noise in each pixel of each frame, in place of the difficulty's

    Videos are stored without loss, whatever the difficulty says.
    """

    ring: int = 3
    drift: int = 0
    grid: int = 4
    video_frames: int = 2
    patch_noise: float = 0.02

    name: ClassVar[str] = "spin"
    labels: ClassVar[tuple[str, ...]] = ("clockwise", "anticlockwise")
    seed_index: ClassVar[int] = 6
    together: ClassVar[int] = 2
    why_together: ClassVar[str] = "each clip and its reversal"
    mirrored: ClassVar[bool] = False
    revision: ClassVar[int] = 1
    val_revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self._require_whole("grid", 3, 8)
        self._require_whole("ring", 2, self.grid)
        # A texture comes to no place where it has been: frames of one place are independent.
        self._require_whole("video_frames", 2, 4 * (self.ring - 1) - 1)
        # In more than two frames, where a drifting texture stays would tell the turn of a place near the edge.
        self._require_whole("drift", 0, self.grid - self.ring if self.video_frames == 2 else 0)
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
    def places(self) -> np.ndarray:
        """Rows and columns of the ring's patches (patches, 2), clockwise from the top left."""
        last = self.ring - 1
        side = np.stack([np.zeros(last, int), np.arange(last)], axis=1)
        right, bottom = side[:, ::-1] + [0, last], last - side
        return np.concatenate([side, right, bottom, bottom[:, ::-1] - [0, last]])

    def clips(self, split: int, count: int) -> list[Clip]:
        """Classes in turn; the test set in pairs."""
        return super().clips(split, count) if split == 0 else in_groups(split, count, [(0, 1), (1, 0)])

    def draw(self, clip: Clip, rng: np.random.Generator, dial: Difficulty) -> Scene:
        """A ring that turns, or the clip that it reverses played backwards."""
        by = 1 - 2 * (clip.label ^ clip.variant)  # of the clip before it is reversed: 1 is clockwise
        way = np.array(WAYS[int(rng.integers(len(WAYS)))]) * self.drift
        room = self.grid - self.ring - np.abs(way) * (self.frames - 1)
        start = rng.integers(room + 1) + np.maximum(0, -way) * (self.frames - 1)
        shapes = textures(rng, len(self.places))
        shapes[:, 1:] = shapes[0, 1:]  # one colour: a patch's colour would be easier to follow than its texture
        patches = empty(self.frames, self.grid)
        shown = np.zeros(patches.shape[:3], bool)
        for frame in range(self.frames):
            rows, columns = (start + frame * way + self.places).T
            patches[frame, rows, columns] = np.roll(shapes, by * frame, axis=0)
            shown[frame, rows, columns] = True
        down, right = way * (-1 if clip.variant else 1)
        facts: dict[str, object] = {"drift_down": int(down), "drift_right": int(right), "reverses": clip.partner}
        order = range(self.frames)[:: -1 if clip.variant else 1]
        return laid_out(patches, shown, rng, self.patch_noise, facts, order)

    def quantiser(self, dial: Difficulty) -> int:
        """Without loss: coding would carry something of a patch into its neighbours."""
        return LOSSLESS

    def ceiling_percent(self, record: Preprocessing, views: Views, order_blind: bool = False) -> float | None:
        """One half, which is chance: exactly for a model blind to order, in expectation for one frame of each video."""
        one = len({frame for clip in self.clips_seen(record, views) for frame in clip}) == 1
        return ORDER_BLIND_CEILING_PERCENT if one or self.reversal_hides_order(record, views, order_blind) else None

    def cheap_limits(self) -> dict[str, float | None]:
        """One half for what is blind to order and for the first frame."""
        return dict.fromkeys(super().cheap_limits(), ORDER_BLIND_CEILING_PERCENT)
