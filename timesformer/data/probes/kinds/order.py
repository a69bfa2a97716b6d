"""`order`: which of two events came first, at gaps that only a clip that covers enough of the video can bridge.

A video is `video_frames / event_frames` segments, each of them a still picture of one scene.  In one segment an object
of some shape is there, in a later one an object of another shape in its place, in all others none.  The two events lie
d segments apart, where d is a power of two, and are placed so that tiles of 2 d segments, laid end to end, have both in
one tile.  The test set holds each video's partner, in which the two events have changed places, and so its label.

That makes three bounds exact:
- A video and its partner hold the same set of frames: whoever is blind to the order of frames cannot pass one half.
- Cut into tiles of k <= d segments (k a power of two), a video and its partner hold the same set of tiles: whoever sees
  tiles of k segments one by one and averages what it makes of them cannot pass one half on the videos whose gap is d.
  Tiles of k > d segments show the order.
- So with gaps d = 1, 2, 4, … of equal share, tiles of k segments reach at most (shares with d < k) + (shares with d >=
  k) / 2: for gaps 1, 2 and 4 and tiles of 1, 2, 4 and 8 segments 50, 66.7, 83.3 and 100 %.
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
"""Shapes that pass by in one video; in `appearance` their hues are opposite."""

IDLE, FIRST, SECOND = 0, 1, 2
Clips = Sequence[Sequence[int] | np.ndarray]


@dataclass(frozen=True)
class Order(Kind):
    """Which of two events came first.

    video_frames: frames of a video; event_frames: frames of a segment.  A video has a power of two of segments.
    gaps: how many segments lie between the beginnings of the two events, in turns: powers of two, at most half the
        segments; by default all of them

    A dense clip of T frames at stride s covers T · s frames of a video (the files have 15 frames a second; a
    `frame_rate` of the preprocessing counts at `target_fps`, 30 by default, so it is twice the stride).
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
        self._require("gaps", fitting, f"a list of some of {', '.join(map(str, possible))}")

    @property
    def frames(self) -> int:
        """Frames of a video."""
        return self.video_frames

    @property
    def segments(self) -> int:
        """Segments of a video."""
        return self.video_frames // self.event_frames

    def clips(self, split: int, count: int) -> list[Clip]:
        """Classes in turn, in the test set each followed by its partner; the gaps change after a round of classes."""
        if split == 0:
            return super().clips(split, count)
        found = []
        for source in range(count // 2):
            first, label = clip_name(2 * source), 2 * source % len(self.labels)
            found.append(Clip(first, split, source, label))
            found.append(Clip(clip_name(2 * source + 1), split, source, label + 1, 1, first))
        return found

    def gap(self, clip: Clip) -> int:
        """Segments between the beginnings of a clip's events."""
        sources_in_a_round = len(self.labels) if clip.split == 0 else len(PAIRS)
        return self.gaps[clip.source // sources_in_a_round % len(self.gaps)]

    def starts(self, gap: int) -> list[int]:
        """The segments in which the first event may lie: in the first half of a tile of twice the gap."""
        return [start for start in range(self.segments) if start // gap % 2 == 0]

    def draw(self, clip: Clip, rng: np.random.Generator, dial: Difficulty) -> Scene:
        """Render an idle segment and one for each event, and arrange them."""
        gap = self.gap(clip)
        start = int(rng.choice(self.starts(gap)))
        # A clip and its partner are drawn alike: only the places of the events differ.
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
        """Of the best that can be made of the set of clips that these views take; 50 % for a model blind to order."""
        return self.ceiling_of(views.indices(record, self.video_frames, FRAME_RATE), order_blind)

    def ceiling_of(self, clips: Clips, order_blind: bool = False) -> float:
        """The ceiling in percent for whoever sees these frames of a video, as a set of clips, each in order or not.

        Counted over all places of the events: where two labels show the same set of clips, half of them are lost.
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
        """What the clips show of a video, in no order: the kind of the segment that each frame is from."""
        kinds = arrangement(self.segments, start, gap, swapped)
        found = [[kinds[int(index) // self.event_frames] for index in indices] for indices in clips]
        return tuple(sorted(tuple(sorted(clip) if order_blind else clip) for clip in found))

    def cheap_limits(self) -> dict[str, float | None]:
        """Mean frame and file size are blind to order; the first frame shows the first event where it lies there."""
        first = self.ceiling_of([[0]])
        return {
            "mean_frame": ORDER_BLIND_CEILING_PERCENT,
            "first_frame": first,
            "file_size": ORDER_BLIND_CEILING_PERCENT,
        }


def arrangement(segments: int, start: int, gap: int, swapped: bool) -> list[int]:
    """The kind of each segment: IDLE, or the FIRST or SECOND event drawn; `swapped` lets them change places."""
    kinds = [IDLE] * segments
    kinds[start], kinds[start + gap] = (SECOND, FIRST) if swapped else (FIRST, SECOND)
    return kinds
