"""`shell`: in which half the cups end that were marked in the first frame, and in no other.

Every patch is a cup with a random texture of its own.  Cups stand in pairs, at mirrored places of one row.  From frame
to frame each pair moves down by `patches_per_frame` rows, from the last row to the first, and its two cups keep their
sides or change them, at random.  In the first frame one cup of each pair is red and the other blue; afterwards nothing
but the textures tells them apart.  The class is the half, left or right, in which all cups end that were red.

Which cup of a pair is red, and on which side each ends, is drawn anew for each pair, and has one distribution in both
classes.  The test set holds four clips of a source: as it is, with red and blue exchanged, with the sides of all cups
exchanged from the second frame on, and with both.  So

- whoever does not see the first frame, or nothing but it, is at one half, exactly;
- whoever adds up what the frames say, each by itself, is at three quarters at most, exactly: the two clips of one class
  have the first frames and the later ones that the two of the other have, so that both have the same sum.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from timesformer.data.preprocessing import Preprocessing
from timesformer.data.probes.difficulty import Difficulty
from timesformer.data.probes.kind import Clip, Kind, in_groups
from timesformer.data.probes.scene import Scene
from timesformer.data.probes.textures import LOSSLESS, PATCH, laid_out, textures
from timesformer.data.views import Views

RED_BLUE = np.array([(-0.10, 0.18), (0.18, -0.10)], np.float32)
"""Colours (cb, cr) of the marked cups and of the others, in the first frame."""
LEFT = 0
"""A side; the other is 1."""
MARKS, SIDES = 1, 2
"""Bits of a clip's variant: the other cups are red; from the second frame on, all cups change sides.  Each turns its
class into the other."""


@dataclass(frozen=True)
class Shell(Kind):
    """The class is the half in which the marked cups end.

    patches_per_frame: by how many rows pairs move from frame to frame, around the edge: at 0 a cup that keeps its side
        stays where it is
    grid: patches of 8 x 8 pixels along each side of a video, an even number
    video_frames: frames of a video
    patch_noise: standard deviation of the noise in each pixel of each frame, in place of the difficulty's

    Videos are stored without loss, whatever the difficulty says.
    """

    patches_per_frame: int = 1
    grid: int = 4
    video_frames: int = 2
    patch_noise: float = 0.02

    name: ClassVar[str] = "shell"
    labels: ClassVar[tuple[str, ...]] = ("left", "right")
    seed_index: ClassVar[int] = 10
    together: ClassVar[int] = 4
    why_together: ClassVar[str] = "either cup of each pair marked, and either end"
    mirrored: ClassVar[bool] = False
    revision: ClassVar[int] = 1
    val_revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self._require_one_of("grid", 4, 6, 8)
        self._require_whole("video_frames", 2, 16)
        self._require_whole("patches_per_frame", 0, self.grid - 1)
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
        """Classes in turn; the test set in fours."""
        return super().clips(split, count) if split == 0 else in_groups(split, count, [(0, 1, 1, 0), (1, 0, 0, 1)])

    def draw(self, clip: Clip, rng: np.random.Generator, dial: Difficulty) -> Scene:
        """Pairs of cups that exchange their sides or keep them."""
        half = self.grid // 2
        cups = textures(rng, 2, self.grid, half)  # of a pair: the one that is on the left in the first frame, the other
        cups[..., 1:, :, :] = 0
        sides = rng.integers(2, size=(self.frames, self.grid, half))  # the side on which the first cup of a pair is
        sides[0] = LEFT
        marks, moved = bool(clip.variant & MARKS), bool(clip.variant & SIDES)
        # Without exchange, the marked cup ends on the side of the clip's class, as changed by the variant.
        marked = sides[-1] ^ (clip.label ^ marks ^ moved)  # 0: the first cup of a pair
        marked, sides[1:] = marked ^ marks, sides[1:] ^ moved
        patches = np.empty((self.frames, self.grid, self.grid, *cups.shape[-3:]), np.float32)
        shown = np.zeros(patches.shape[:3], bool)
        rows, columns = np.indices((self.grid, half))
        for frame in range(self.frames):
            down = (rows + frame * self.patches_per_frame) % self.grid
            for cup in (0, 1):
                at = down, np.where(sides[frame] ^ cup == LEFT, columns, self.grid - 1 - columns)
                patches[(frame, *at)] = cups[cup]
                shown[(frame, *at)] = marked == cup
                if frame == 0:
                    patches[(frame, *at)] += _mark(marked == cup)
        facts: dict[str, object] = {"marked_first": int((marked == 0).sum()), "partner": clip.partner}
        return laid_out(patches, shown, rng, self.patch_noise, facts)

    def quantiser(self, dial: Difficulty) -> int:
        """Without loss: coding would carry something of a patch into its neighbours."""
        return LOSSLESS

    def ceiling_percent(self, record: Preprocessing, views: Views, order_blind: bool = False) -> float | None:
        """One half where the first frame is not seen, or nothing but it."""
        seen = {frame for clip in self.clips_seen(record, views) for frame in clip}
        return 50.0 if 0 not in seen or seen == {0} else None

    def cheap_limits(self) -> dict[str, float | None]:
        """One half for the first frame."""
        return super().cheap_limits() | {"first_frame": 50.0}


def _mark(red: np.ndarray) -> np.ndarray:
    """Colours that are added to cups (…, 3, PATCH, PATCH) in the first frame."""
    colours = RED_BLUE[(~red).astype(int)]
    found = np.zeros((*red.shape, 3, 1, 1), np.float32)
    found[..., 1:, 0, 0] = colours
    return found
