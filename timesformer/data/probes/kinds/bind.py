"""`bind`: which of two objects does which of two motions.

Two rows of patches, chosen at random, are bands of random textures on grey: one object is the reddish and bright band,
the other the bluish and dark one.  From frame to frame one band moves right by whole patches, the other left, and fresh
textures fill in.  Both objects and both motions are in every clip, and the class is how they belong together.  Each
single frame, and what one place shows over time, has one distribution in both classes.

The test set holds four clips of a source: itself, its reversal, itself with the colours of the objects exchanged, and
the reversal of that.  So

- one frame of each video: one half, in expectation by equal distributions;
- the frames as a set: one half, exactly, by the reversal;
- the motions without the colours, or the colours without the motions: one half, exactly, by the exchange.
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

LOOKS = ((0.10, -0.10, 0.18), (-0.10, 0.18, -0.10))
"""Looks of the red and the blue object: brightness relative to the mean, and colour (cb, cr)."""
CALMER = 0.8
"""Scale of the textures' contrast, so that neither look leaves the range of brightness."""
REVERSED, EXCHANGED = 1, 2
"""Bits of a clip's variant; each turns its class into the other."""


@dataclass(frozen=True)
class Bind(Kind):
    """The class is which object moves which way.

    speed: patches by which bands move from frame to frame
    grid: patches of 8 x 8 pixels along each side of a video
    video_frames: frames of a video
    patch_noise: standard deviation of the noise in each pixel of each frame, in place of the difficulty's

    Videos are stored without loss, whatever the difficulty says.
    """

    speed: int = 1
    grid: int = 4
    video_frames: int = 4
    patch_noise: float = 0.02

    name: ClassVar[str] = "bind"
    labels: ClassVar[tuple[str, ...]] = ("red right, blue left", "red left, blue right")
    seed_index: ClassVar[int] = 9
    together: ClassVar[int] = 4
    why_together: ClassVar[str] = "each clip, its reversal, and both with objects exchanged"
    mirrored: ClassVar[bool] = False
    val_revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self._require_whole("grid", 2, 8)
        self._require_whole("video_frames", 2, 96)
        self._require_whole("speed", 1, self.grid - 1)
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
        """Rows of textures that move, in the colours and in the order of the variant."""
        back, exchanged = bool(clip.variant & REVERSED), bool(clip.variant & EXCHANGED)
        one, other = map(int, rng.permutation(self.grid)[:2])  # the rows of red and blue, without exchange
        bands = textures(rng, self.frames, 2, self.grid)
        bands[..., 0, :, :] = 0.5 + CALMER * (bands[..., 0, :, :] - 0.5)
        # How strong a patch's colour is moves along with it; which colour it is, its band says in the end.
        bands[..., 1, :, :] = rng.uniform(0.4, 1.4, bands.shape[:3])[..., None, None]
        by = self.speed
        rightward = clip.label ^ back ^ exchanged  # the band that moves right
        for frame in range(1, self.frames):
            bands[frame, rightward, by:] = bands[frame - 1, rightward, :-by]
            bands[frame, 1 - rightward, :-by] = bands[frame - 1, 1 - rightward, by:]
        for band, (luma, cb, cr) in enumerate(LOOKS[::-1] if exchanged else LOOKS):
            strength = bands[:, band, :, 1].copy()
            bands[:, band, :, 0] += luma
            bands[:, band, :, 1] = cb * strength
            bands[:, band, :, 2] = cr * strength
        patches = empty(self.frames, self.grid)
        patches[:, [one, other]] = bands
        shown = np.zeros(patches.shape[:3], bool)
        shown[:, other if exchanged else one] = True
        facts: dict[str, object] = {
            "red_row": other if exchanged else one,
            "blue_row": one if exchanged else other,
            "reversed": int(back),
            "exchanged": int(exchanged),
            "partner": clip.partner,
        }
        return laid_out(patches, shown, rng, self.patch_noise, facts, range(self.frames)[:: -1 if back else 1])

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
