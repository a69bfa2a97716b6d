"""`appearance` (what an object looks like), `motion` (how it moves), and `mixture`, a dial between the two."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from timesformer.data.preprocessing import Preprocessing
from timesformer.data.probes.difficulty import Difficulty
from timesformer.data.probes.kind import ORDER_BLIND_CEILING_PERCENT, Clip, Kind, clip_name
from timesformer.data.probes.scene import MOTIONS, Scene, render
from timesformer.data.probes.shapes import FAMILIES
from timesformer.data.views import Views


@dataclass(frozen=True)
class Appearance(Kind):
    """Probe of appearance: the object's shape and hue are the class; its motion is random."""

    name: ClassVar[str] = "appearance"
    labels: ClassVar[tuple[str, ...]] = FAMILIES
    seed_index: ClassVar[int] = 0

    def draw(self, clip: Clip, rng: np.random.Generator, dial: Difficulty) -> Scene:
        """Draw an object with the outline and hue of the class, moving at random."""
        motion = str(rng.choice(MOTIONS))
        scene = render(motion, FAMILIES[clip.label], rng, clip.split, dial, family_hues(clip.label, dial))
        return replace(scene, facts=scene.facts | {"reverses": ""})


def family_hues(family: int, dial: Difficulty) -> tuple[float, float]:
    """Range of hues, in turns, of the objects of a class of `appearance`."""
    return (family - dial.hue_spread) / len(FAMILIES), (family + dial.hue_spread) / len(FAMILIES)


@dataclass(frozen=True)
class Motion(Kind):
    """Probe of motion: the way a blob moves is the class.  Each test clip is followed by its time reversal."""

    name: ClassVar[str] = "motion"
    labels: ClassVar[tuple[str, ...]] = MOTIONS
    seed_index: ClassVar[int] = 1
    together: ClassVar[int] = 2
    why_together: ClassVar[str] = "each clip and its reversal"
    mirrored: ClassVar[bool] = False

    def clips(self, split: int, count: int) -> list[Clip]:
        """List the clips of a split: the classes in turn, in the test set as pairs of a clip and its reversal."""
        if split == 0:
            return super().clips(split, count)
        found = []
        for source in range(count // 2):
            first, label = clip_name(2 * source), source % len(MOTIONS)
            found.append(Clip(first, split, source, label))
            found.append(Clip(clip_name(2 * source + 1), split, source, label ^ 1, 1, first))
        return found

    def draw(self, clip: Clip, rng: np.random.Generator, dial: Difficulty) -> Scene:
        """Draw a clip.  A reversal is its partner, played backwards."""
        # Even and odd motions are each other's reversal.
        scene = render(MOTIONS[clip.label ^ clip.variant], "blob", rng, clip.split, dial)
        facts = scene.facts | {"motion": MOTIONS[clip.label], "reverses": clip.partner}
        order = slice(None, None, -1 if clip.variant else 1)
        return Scene(scene.luma[order], scene.cb[order], scene.cr[order], scene.mask[order], facts)

    def ceiling_percent(self, record: Preprocessing, views: Views, order_blind: bool = False) -> float | None:
        """Return 50 % for an order-blind model, which gives a clip and its reversal the same answer; otherwise None."""
        return ORDER_BLIND_CEILING_PERCENT if order_blind else None

    def cheap_limits(self) -> dict[str, float | None]:
        """Return the order-blind ceiling for all three classifiers.

        The bound is exact for features that a clip and its reversal share (mean frame, file size, patches).  It is not
        exact for the first frame, because an object's position says something about where it will go; the same figure
        is applied.
        """
        return dict.fromkeys(super().cheap_limits(), ORDER_BLIND_CEILING_PERCENT)


@dataclass(frozen=True)
class Mixture(Kind):
    """Mixture of `motion` and `appearance` clips, with 16 classes: those of appearance come first.

    temporal_share: share of motion clips, from 0 (appearance only) to 1 (motion only)

    The test set contains the reversal of each of its motion clips, so an order-blind model cannot exceed
    100 - 50 · temporal_share percent.  The share is rounded to whole pairs of test clips.
    """

    temporal_share: float = 0.5

    name: ClassVar[str] = "mixture"
    labels: ClassVar[tuple[str, ...]] = FAMILIES + MOTIONS
    seed_index: ClassVar[int] = 4
    together: ClassVar[int] = 2
    why_together: ClassVar[str] = "each clip and its reversal"
    mirrored: ClassVar[bool] = False

    def __post_init__(self) -> None:
        number = isinstance(self.temporal_share, int | float) and not isinstance(self.temporal_share, bool)
        self._require("temporal_share", number and 0 <= self.temporal_share <= 1, "from 0 to 1")

    def clips(self, split: int, count: int) -> list[Clip]:
        """List the clips of a split: motion and appearance clips spread evenly, the classes of each in turn.

        In the test set, clips are spread in pairs.
        """
        step = 1 if split == 0 else 2
        temporal, other, found = 0, 0, list[Clip]()
        for first in range(0, count, step):
            if int((first // step + 1) * self.temporal_share + 0.5) > temporal:
                label = len(FAMILIES) + temporal % len(MOTIONS)
                temporal += 1
                found.append(Clip(clip_name(first), split, first, label))
                if step == 2:
                    found.append(Clip(clip_name(first + 1), split, first, label ^ 1, 1, clip_name(first)))
            else:
                for index in range(first, first + step):
                    found.append(Clip(clip_name(index), split, index, other % len(FAMILIES)))
                    other += 1
        return found

    def groups(self, split: int, count: int) -> list[str]:
        """Return pairs of test clips, those that are not temporal too, so that every clip has the same weight."""
        if split == 0:
            return super().groups(split, count)
        return [clip_name(index - index % 2) for index in range(count)]

    def draw(self, clip: Clip, rng: np.random.Generator, dial: Difficulty) -> Scene:
        """Draw a clip of `appearance` or `motion`, depending on its label."""
        if clip.label < len(FAMILIES):
            return Appearance().draw(clip, rng, dial)
        return Motion().draw(replace(clip, label=clip.label - len(FAMILIES)), rng, dial)

    def ceiling_percent(self, record: Preprocessing, views: Views, order_blind: bool = False) -> float | None:
        """Return the ceiling of an order-blind model: all appearance clips and half of the motion clips."""
        return self._order_blind_percent if order_blind else None

    def cheap_limits(self) -> dict[str, float | None]:
        """Return the order-blind ceiling for all three classifiers, as `Motion` does."""
        return dict.fromkeys(super().cheap_limits(), self._order_blind_percent)

    @property
    def _order_blind_percent(self) -> float:
        return 100.0 - (100.0 - ORDER_BLIND_CEILING_PERCENT) * self.temporal_share
