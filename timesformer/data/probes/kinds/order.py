"""`order`: which of two events came first, at gaps that a clip can bridge only if it covers enough of the video.

A video consists of `video_frames / event_frames` segments, each a still picture of the same scene.  One segment shows
an object of some shape, a later one shows an object of another shape in its place, and all others show no object.  The
two events lie d segments apart, where d is a power of two.  They are placed so that, if tiles of 2 d segments are laid
end to end, both events fall into one tile.  The test set contains each video's partner, in which the two events have
swapped places and the label changes accordingly.

Three bounds are therefore exact:
- A video and its partner contain the same set of frames, so an order-blind model cannot exceed 50 %.
- Cut into tiles of k <= d segments (k a power of two), a video and its partner contain the same set of tiles.  A model
  that sees tiles of k segments one by one and averages its predictions cannot exceed 50 % on the videos with gap d.
  Tiles of k > d segments show the order.
- With gaps d = 1, 2, 4, … of equal share, tiles of k segments therefore reach at most (shares with d < k) + (shares
  with d >= k) / 2.  For gaps of 1, 2 and 4 and tiles of 1, 2, 4 and 8 segments this is 50, 66.7, 83.3 and 100 %.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np

from timesformer.data.preprocessing import Preprocessing
from timesformer.data.probes.difficulty import Difficulty
from timesformer.data.probes.encode import FRAME_RATE
from timesformer.data.probes.kind import ORDER_BLIND_CEILING_PERCENT, Clip, Kind, clip_name, is_power_of_two
from timesformer.data.probes.kinds.basic import family_hues
from timesformer.data.probes.scene import (
    MARGIN,
    MOTIONS,
    SIZE,
    Look,
    Scene,
    make_stage,
    make_track,
    object_luma,
    paint,
    to_planes,
)
from timesformer.data.probes.shapes import FAMILIES
from timesformer.data.views import Views

PAIRS = (("disc", "star"), ("square", "bar"))
"""Pairs of shapes that appear in one video; in `appearance` the two have opposite hues."""

IDLE, FIRST, SECOND = 0, 1, 2
Clips = Sequence[Sequence[int] | np.ndarray]


@dataclass(frozen=True)
class Order(Kind):
    """Probe of temporal order: the class is which of two events came first.

    video_frames: frames of a video; event_frames: frames of a segment.  The number of segments is a power of two.
    gaps: distances between the starts of the two events in segments, used in turn: powers of two, at most half the
        number of segments; by default all of these

    A dense clip of T frames at stride s covers T · s frames of a video.  The files have 15 frames per second, and the
    `frame_rate` of the preprocessing refers to `target_fps` (30 by default), so `frame_rate` is twice the stride.
    """

    video_frames: int = 64
    event_frames: int = 8
    gaps: tuple[int, ...] = ()

    name: ClassVar[str] = "order"
    labels: ClassVar[tuple[str, ...]] = tuple(
        f"{first} then {second}" for one, other in PAIRS for first, second in ((one, other), (other, one))
    )
    seed_index: ClassVar[int] = 2
    together: ClassVar[int] = 2
    why_together: ClassVar[str] = "each video and its partner"

    def __post_init__(self) -> None:
        self._require("event_frames", type(self.event_frames) is int and self.event_frames >= 1, "at least 1")
        whole = type(self.video_frames) is int and self.video_frames % self.event_frames == 0
        segments = self.video_frames // self.event_frames if whole else 0
        expected = f"event_frames ({self.event_frames}) times a power of two from 2 to 64"
        self._require("video_frames", is_power_of_two(segments) and 2 <= segments <= 64, expected)
        possible = [1 << power for power in range(segments.bit_length() - 1)]
        if self.gaps == ():
            object.__setattr__(self, "gaps", tuple(possible))
        fitting = isinstance(self.gaps, tuple) and all(type(gap) is int and gap in possible for gap in self.gaps)
        self._require("gaps", fitting, f"a list of one or more of {', '.join(map(str, possible))}")

    @property
    def frames(self) -> int:
        """Number of frames of a video."""
        return self.video_frames

    @property
    def segments(self) -> int:
        """Number of segments of a video."""
        return self.video_frames // self.event_frames

    def clips(self, split: int, count: int) -> list[Clip]:
        """List the clips of a split: the classes in turn, each test clip followed by its partner.

        The gap changes after each round of classes.
        """
        if split == 0:
            return super().clips(split, count)
        found = []
        for source in range(count // 2):
            first, label = clip_name(2 * source), 2 * source % len(self.labels)
            found.append(Clip(first, split, source, label))
            found.append(Clip(clip_name(2 * source + 1), split, source, label + 1, 1, first))
        return found

    def gap(self, clip: Clip) -> int:
        """Return the distance between the starts of a clip's two events in segments."""
        sources_in_a_round = len(self.labels) if clip.split == 0 else len(PAIRS)
        return self.gaps[clip.source // sources_in_a_round % len(self.gaps)]

    def starts(self, gap: int) -> list[int]:
        """List the segments in which the first event may lie: those in the first half of a tile of twice the gap."""
        return [start for start in range(self.segments) if start // gap % 2 == 0]

    def draw(self, clip: Clip, rng: np.random.Generator, dial: Difficulty) -> Scene:
        """Draw a clip: render an idle segment and one for each event, then arrange them."""
        gap = self.gap(clip)
        start = int(rng.choice(self.starts(gap)))
        # A clip and its partner use the same draws: only the positions of the events differ.
        shapes = PAIRS[clip.label // 2][:: -1 if (clip.label ^ clip.variant) % 2 else 1]
        background = Look.draw(rng, clip.split)
        stage = make_stage(background, rng, clip.split, dial, frames=1)
        track = make_track(str(rng.choice(MOTIONS)), rng, dial.object_radius, MARGIN, dial, frames=1)
        looks, canvases, covers = [], [stage.canvas.copy()], [np.zeros((1, SIZE, SIZE))]
        for shape in shapes:
            looks.append(Look.draw(rng, clip.split, family_hues(FAMILIES.index(shape), dial)))
            canvases.append(stage.canvas.copy())
            covers.append(paint(canvases[-1], track, shape, looks[-1], object_luma(stage.luma, rng, dial)))
        left = [stage.cover(canvas, cover) > 0.5 for canvas, cover in zip(canvases, covers, strict=True)]
        pictures = [(*to_planes(canvas, rng, dial.noise), mask) for canvas, mask in zip(canvases, left, strict=True)]
        kinds = np.repeat(arrangement(self.segments, start, gap, bool(clip.variant)), self.event_frames)
        luma, cb, cr, mask = (np.concatenate(planes)[kinds] for planes in zip(*pictures, strict=True))
        shown = shapes[::-1] if clip.variant else shapes
        facts: dict[str, object] = {
            "first": shown[0],
            "second": shown[1],
            "gap": gap,
            "start": start,
            "object": looks[0].identity,
            "object_hue": round(looks[0].hue, 6),
            "other_object": looks[1].identity,
            "other_object_hue": round(looks[1].hue, 6),
            "background": background.identity,
            "background_hue": round(background.hue, 6),
            "partner": clip.partner,
        }
        return Scene(luma, cb, cr, mask, facts)

    def ceiling_percent(self, record: Preprocessing, views: Views, order_blind: bool = False) -> float | None:
        """Return the ceiling for the set of clips that these views take; 50 % for an order-blind model."""
        return self.ceiling_of(views.indices(record, self.video_frames, FRAME_RATE), order_blind)

    def ceiling_of(self, clips: Clips, order_blind: bool = False) -> float:
        """Return the ceiling in percent of a model that sees these frames of a video as a set of clips.

        The frames of a clip keep their order unless `order_blind`.  All positions of the events are counted: where two
        labels show the same set of clips, half of these videos are lost.
        """
        lost = Fraction(0)
        for gap in self.gaps:
            seen = {}
            for swapped in (False, True):
                contents: Counter[object] = Counter()
                for start in self.starts(gap):
                    contents[self._content(clips, start, gap, swapped, order_blind)] += 1
                seen[swapped] = contents
            alike = sum((seen[False] & seen[True]).values())
            lost += Fraction(alike, len(self.starts(gap)) * 2 * len(self.gaps))
        return float(100 * (1 - lost))

    def _content(self, clips: Clips, start: int, gap: int, swapped: bool, order_blind: bool) -> object:
        """Return the content of the clips, as a set: for each frame, the kind of its segment."""
        kinds = arrangement(self.segments, start, gap, swapped)
        found = [[kinds[int(index) // self.event_frames] for index in indices] for indices in clips]
        return tuple(sorted(tuple(sorted(clip) if order_blind else clip) for clip in found))

    def cheap_limits(self) -> dict[str, float | None]:
        """Return the order-blind ceiling for all but the first frame, which may show the first event."""
        limits: dict[str, float | None] = dict.fromkeys(super().cheap_limits(), ORDER_BLIND_CEILING_PERCENT)
        return limits | {"first_frame": self.ceiling_of([[0]])}


def arrangement(segments: int, start: int, gap: int, swapped: bool) -> list[int]:
    """List the kind of each segment: IDLE, or the event drawn FIRST or SECOND; `swapped` exchanges the two events."""
    kinds = [IDLE] * segments
    kinds[start], kinds[start + gap] = (SECOND, FIRST) if swapped else (FIRST, SECOND)
    return kinds
