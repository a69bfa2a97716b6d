"""`cue`: where a texture was, asked long after it was shown and after others that look like it.

Early in the video one frame, the cue, shows four fresh textures in its corners; some frames later another, the
question, shows one of these four in its middle, or everywhere but in its corners.  The class is the corner where the
cue had it.  In between lie distractors, frames that show the same four textures in other corners; all other frames are
plain.  Which frame is the cue is told by its coming first, and by nothing else.

The test set holds every source eight times: asked for each of its four textures, and each of these again with the cue
and one distractor exchanged, which differ in all four corners.  So

- whoever does not see the question is at a quarter, exactly;
- whoever sees one frame of each video is at a quarter, in expectation for the question by equal distributions;
- whoever sees the frames as a set is at one half at most, exactly: exchanged clips have the same frames and differ in
  class.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from timesformer.data.preprocessing import Preprocessing
from timesformer.data.probes.difficulty import Difficulty
from timesformer.data.probes.kind import ORDER_BLIND_CEILING_PERCENT, ORDERLESS, Clip, Kind, in_groups
from timesformer.data.probes.scene import Scene
from timesformer.data.probes.textures import LOSSLESS, PATCH, empty, laid_out, textures
from timesformer.data.views import Views

Array = np.ndarray

GRID = 4
CORNERS = ((0, 0), (0, 3), (3, 0), (3, 3))
"""Row and column of the classes' patches."""


def _asking(patches: int) -> Array:
    """Return the patches of the question, bool (h, w): the four in the middle, or all twelve outside the corners."""
    asking = np.full((GRID, GRID), patches == 12)
    asking[1:3, 1:3] = True
    asking[[row for row, _ in CORNERS], [column for _, column in CORNERS]] = False
    return asking


@dataclass(frozen=True)
class Cue(Kind):
    """The class is the corner where the cue had the texture that is asked for.

    video_frames: frames of a video, from 8 to 96
    gap: frames from the cue to the question; where there is room for more, the cue comes at a random time
    cue_distractors: frames between the two that show the same textures in other corners
    question_patches: patches that show the question: the 4 in the middle, or all 12 outside the corners
    patch_noise: standard deviation of the noise in each pixel of each frame, in place of the difficulty's

    Videos are stored without loss, whatever the difficulty says.
    """

    video_frames: int = 8
    gap: int = 6
    cue_distractors: int = 2
    question_patches: int = 4
    patch_noise: float = 0.02

    name: ClassVar[str] = "cue"
    labels: ClassVar[tuple[str, ...]] = ("top left", "top right", "bottom left", "bottom right")
    seed_index: ClassVar[int] = 8
    together: ClassVar[int] = 8
    why_together: ClassVar[str] = "each of four questions about each of two arrangements in time"
    mirrored: ClassVar[bool] = False
    later: ClassVar[frozenset[str]] = frozenset({"question_patches"})
    val_revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self._require_whole("video_frames", 8, 96)
        self._require_whole("gap", 2, self.video_frames - 1)
        self._require_whole("cue_distractors", 1, self.gap - 1)
        self._require_one_of("question_patches", 4, 12)
        self._require_number("patch_noise", 0.0, 0.2)

    @property
    def frames(self) -> int:
        """Frames of a video."""
        return self.video_frames

    @property
    def size(self) -> int:
        """Height and width of a video in pixels."""
        return PATCH * GRID

    def clips(self, split: int, count: int) -> list[Clip]:
        """Classes in turn; the test set in eights."""
        return super().clips(split, count) if split == 0 else in_groups(split, count, [(0, 1, 2, 3, 0, 1, 2, 3)])

    def draw(self, clip: Clip, rng: np.random.Generator, dial: Difficulty) -> Scene:
        """Cue, distractors and question; in the variants from 4 on cue and first distractor have changed places."""
        shapes = textures(rng, len(CORNERS))
        start = int(rng.integers(self.frames - self.gap))
        between = rng.permutation(np.arange(start + 1, start + self.gap))[: self.cue_distractors]
        cue = rng.permutation(len(CORNERS))
        arrangements = [cue, _elsewhere(cue, rng), *(rng.permutation(len(CORNERS)) for _ in between[1:])]
        times = [start, *map(int, between), start + self.gap]
        exchanged = clip.variant >= len(CORNERS)
        asked = int(arrangements[exchanged][clip.label])
        patches = empty(self.frames, GRID)
        shown = np.zeros(patches.shape[:3], bool)
        rows, columns = np.array(CORNERS).T
        for time, arrangement in zip(times[:-1], arrangements, strict=True):
            patches[time, rows, columns] = shapes[arrangement]
            shown[time, rows, columns] = True
        asking = _asking(self.question_patches)
        patches[times[-1], asking] = shapes[asked]
        shown[times[-1], asking] = True
        facts: dict[str, object] = {
            "asked": asked,
            "cue_frame": start,
            "question_frame": start + self.gap,
            "distractor_frames": " ".join(map(str, times[1:-1])),
            "partner": clip.partner,
        }
        order = np.arange(self.frames)
        if exchanged:
            order[times[:2]] = order[times[1::-1]]
        return laid_out(patches, shown, rng, self.patch_noise, facts, order.tolist())

    def quantiser(self, dial: Difficulty) -> int:
        """Without loss, as the other probes of textures."""
        return LOSSLESS

    def ceiling_percent(self, record: Preprocessing, views: Views, order_blind: bool = False) -> float | None:
        """A quarter where no question or one frame is seen; one half for a set of all frames."""
        clips = self.clips_seen(record, views)
        frames = sorted(frame for clip in clips for frame in clip)
        questions = set(range(self.gap, self.frames))
        if len(set(frames)) == 1 or not questions & set(frames):
            return 100 / len(self.labels)
        single = all(len(clip) == 1 for clip in clips)
        blind = single or (order_blind and len(clips) == 1)
        return ORDER_BLIND_CEILING_PERCENT if blind and frames == list(range(self.frames)) else None

    def cheap_limits(self) -> dict[str, float | None]:
        """One half for what is blind to order, a quarter for the first frame."""
        limits: dict[str, float | None] = dict.fromkeys(super().cheap_limits(), ORDER_BLIND_CEILING_PERCENT)
        return limits | {"first_frame": 100 / len(self.labels)} | dict.fromkeys(ORDERLESS, 100 / len(self.labels))


def _elsewhere(arrangement: Array, rng: np.random.Generator) -> Array:
    """A random arrangement that differs in every place."""
    while True:
        found = rng.permutation(len(arrangement))
        if (found != arrangement).all():
            return found
