"""`spin`: which way objects turn, with nothing else to go by.

Blobs (no rotation maps one onto itself) turn about their centres at constant speed while they drift somewhere, all of a
video the same way.  Their angles in any one frame are uniform and their drift is drawn alike in both classes, so that
each single frame has one distribution whichever way they turn: one half in expectation.  The test set holds each clip's
reversal, which turns the other way: one half, exactly, for a model blind to the order of frames.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from timesformer.data.preprocessing import Preprocessing
from timesformer.data.probes.difficulty import Difficulty
from timesformer.data.probes.kind import ORDER_BLIND_CEILING_PERCENT, Clip, Kind, in_groups
from timesformer.data.probes.scene import MARGIN, Look, Scene, make_stage, make_track, object_luma, paint, to_planes
from timesformer.data.views import Views


@dataclass(frozen=True)
class Spin(Kind):
    """The class is the direction in which objects turn; each test clip is followed by its reversal.

    video_frames: frames of a video; objects: how many turn, at random places and at speeds of their own
    (`Difficulty.turn_speed`)
    drift: pixels per frame, at most, by which each object moves along each axis besides, which says nothing of its turn
    """

    video_frames: int = 8
    objects: int = 1
    drift: float = 0.8

    name: ClassVar[str] = "spin"
    labels: ClassVar[tuple[str, ...]] = ("clockwise", "anticlockwise")
    seed_index: ClassVar[int] = 6
    together: ClassVar[int] = 2
    why_together: ClassVar[str] = "each clip and its reversal"
    mirrored: ClassVar[bool] = False
    val_revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self._require_whole("video_frames", 2, 96)
        self._require_whole("objects", 1, 4)
        self._require_number("drift", 0.0, 2.0)

    @property
    def frames(self) -> int:
        """Frames of a video."""
        return self.video_frames

    def clips(self, split: int, count: int) -> list[Clip]:
        """Classes in turn; the test set in pairs."""
        return super().clips(split, count) if split == 0 else in_groups(split, count, [(0, 1), (1, 0)])

    def draw(self, clip: Clip, rng: np.random.Generator, dial: Difficulty) -> Scene:
        """A clip, or the clip that it reverses played backwards."""
        turning = self.labels[clip.label ^ clip.variant]
        background = Look.draw(rng, clip.split)
        stage = make_stage(background, rng, clip.split, dial, self.frames)
        covered = np.zeros((self.frames, self.size, self.size), bool)
        time = np.arange(self.frames) - (self.frames - 1) / 2
        looks = []
        for _ in range(self.objects):
            looks.append(Look.draw(rng, clip.split))
            track = make_track(turning, rng, dial.object_radius, MARGIN, dial, self.frames)
            dx, dy = rng.uniform(-self.drift, self.drift, 2)
            track = replace(track, x=track.x + dx * time, y=track.y + dy * time)
            covered |= paint(stage.canvas, track, "blob", looks[-1], object_luma(stage.luma, rng, dial)) > 0.5
        covered = stage.cover(stage.canvas, covered) > 0.5
        luma, cb, cr = to_planes(stage.canvas, rng, dial.noise)
        facts: dict[str, object] = {
            "motion": self.labels[clip.label],
            "object": looks[0].identity,
            "object_hue": round(looks[0].hue, 6),
            "background": background.identity,
            "background_hue": round(background.hue, 6),
            "reverses": clip.partner,
        }
        order = slice(None, None, -1 if clip.variant else 1)
        return Scene(luma[order], cb[order], cr[order], covered[order], facts)

    def ceiling_percent(self, record: Preprocessing, views: Views, order_blind: bool = False) -> float | None:
        """One half, which is chance: exactly for a model blind to order, in expectation for one frame of each video."""
        one = len({frame for clip in self.clips_seen(record, views) for frame in clip}) == 1
        return ORDER_BLIND_CEILING_PERCENT if one or self.reversal_hides_order(record, views, order_blind) else None

    def cheap_limits(self) -> dict[str, float | None]:
        """One half for what is blind to order and for the first frame."""
        return dict.fromkeys(super().cheap_limits(), ORDER_BLIND_CEILING_PERCENT)
