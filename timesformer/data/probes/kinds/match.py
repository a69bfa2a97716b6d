"""`match`: which way a field of random textures moves, by whole patches, from frame to frame.

Every patch of the first frame has a fresh random texture.  Each further frame is the one before moved by the class's
move, with fresh textures where the field has left patches empty.  So in every class each single frame is a field of
independent textures, and so is what one place shows over time: both have one distribution, whatever the class, and only
who compares a patch with a patch of another place and another frame can do better than chance.

Bounds:
- One frame of each video: a quarter, in expectation over test sets, by equal distributions.
- The frames as a set: one half, exactly.  The test set holds each clip's reversal, which is of the opposite class.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from timesformer.data.preprocessing import Preprocessing
from timesformer.data.probes.difficulty import Difficulty
from timesformer.data.probes.kind import ORDER_BLIND_CEILING_PERCENT, Clip, Kind, in_groups
from timesformer.data.probes.scene import Scene
from timesformer.data.probes.textures import LOSSLESS, PATCH, laid_out, textures
from timesformer.data.views import Views

MOVES: dict[str, tuple[int, int]] = {"axis": (0, 1), "diagonal": (1, 1), "knight": (1, 2)}
"""Rows down and columns to the right of the class `right`; the other classes are turned by quarters, clockwise."""


@dataclass(frozen=True)
class Match(Kind):
    """The class is the direction in which random textures move by whole patches.

    move: "axis", "diagonal" (the class's direction and as much to its right-hand side) or "knight" (half as much to its
        right-hand side); distance: patches by which the smaller part of a move goes
    grid: patches of 8 x 8 pixels along each side of a video
    video_frames: frames of a video
    patch_noise: standard deviation of the noise in each pixel of each frame, in place of the difficulty's

    Videos are stored without loss, whatever the difficulty says.
    """

    move: str = "axis"
    distance: int = 1
    grid: int = 4
    video_frames: int = 2
    patch_noise: float = 0.02

    name: ClassVar[str] = "match"
    labels: ClassVar[tuple[str, ...]] = ("right", "down", "left", "up")
    seed_index: ClassVar[int] = 5
    together: ClassVar[int] = 2
    why_together: ClassVar[str] = "each clip and its reversal"
    mirrored: ClassVar[bool] = False
    val_revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self._require("move", self.move in MOVES, f"one of {', '.join(MOVES)}")
        self._require_whole("grid", 3, 8)
        self._require_whole("video_frames", 2, 96)
        self._require_whole("distance", 1, (self.grid - 1) // max(MOVES[self.move]))
        self._require_number("patch_noise", 0.0, 0.2)

    @property
    def frames(self) -> int:
        """Frames of a video."""
        return self.video_frames

    @property
    def size(self) -> int:
        """Height and width of a video in pixels."""
        return PATCH * self.grid

    def clips(self, split: int, count: int) -> list[Clip]:
        """Classes in turn; the test set in pairs."""
        return super().clips(split, count) if split == 0 else in_groups(split, count, [(0, 2), (1, 3), (2, 0), (3, 1)])

    def step(self, label: int) -> tuple[int, int]:
        """Rows down and columns to the right of a class's move."""
        down, right = (self.distance * part for part in MOVES[self.move])
        for _ in range(label):
            down, right = right, -down
        return down, right

    def draw(self, clip: Clip, rng: np.random.Generator, dial: Difficulty) -> Scene:
        """A field that moves, or the clip that it reverses played backwards."""
        down, right = self.step((clip.label + 2 * clip.variant) % 4)
        patches = textures(rng, self.frames, self.grid, self.grid)
        to_rows, from_rows = _overlap(down)
        to_columns, from_columns = _overlap(right)
        for frame in range(1, self.frames):
            patches[frame, to_rows, to_columns] = patches[frame - 1, from_rows, from_columns]
        down, right = self.step(clip.label)
        facts: dict[str, object] = {"rows_down": down, "columns_right": right, "reverses": clip.partner}
        shown = np.ones(patches.shape[:3], bool)
        order = range(self.frames)[:: -1 if clip.variant else 1]
        return laid_out(patches, shown, rng, self.patch_noise, facts, order)

    def quantiser(self, dial: Difficulty) -> int:
        """Without loss: coding would carry something of a patch into its neighbours."""
        return LOSSLESS

    def ceiling_percent(self, record: Preprocessing, views: Views, order_blind: bool = False) -> float | None:
        """A quarter for one frame of each video, in expectation; one half for a model blind to order, exactly."""
        if len({frame for clip in self.clips_seen(record, views) for frame in clip}) == 1:
            return 100 / len(self.labels)
        return ORDER_BLIND_CEILING_PERCENT if self.reversal_hides_order(record, views, order_blind) else None

    def cheap_limits(self) -> dict[str, float | None]:
        """One half for what is blind to order, chance for the first frame."""
        limits: dict[str, float | None] = dict.fromkeys(super().cheap_limits(), ORDER_BLIND_CEILING_PERCENT)
        return limits | {"first_frame": 100 / len(self.labels)}


def _overlap(by: int) -> tuple[slice, slice]:
    """Where a field that moves by so many places arrives, and where that came from."""
    return (slice(by, None), slice(None, -by or None)) if by >= 0 else (slice(None, by), slice(-by, None))
