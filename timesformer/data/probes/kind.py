"""Base class of the kinds of probes.  To add a kind, add a subclass in a file of `kinds/`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import ClassVar

import numpy as np

from timesformer.data.preprocessing import Preprocessing
from timesformer.data.probes.difficulty import Difficulty
from timesformer.data.probes.encode import FRAME_RATE
from timesformer.data.probes.scene import FRAMES, SIZE, Scene
from timesformer.data.views import Views
from timesformer.errors import InputError

ORDER_BLIND_CEILING_PERCENT = 50.0
"""Ceiling of an order-blind model on test clips that also occur reversed, under another label, in the test set."""

ORDERLESS = ("patches_forest", "patches_linear", "patches_mlp")
"""Cheap classifiers that count patches, wherever and whenever they are."""


@dataclass(frozen=True)
class Clip:
    """Plan of one clip.

    Test clips that belong together share a `source` and are numbered by `variant` 0, 1, …; all but the first name the
    first as their `partner`.
    """

    name: str
    split: int  # 0 training, 1 test, 2 validation, which is made as the test set is
    source: int
    label: int
    variant: int = 0
    partner: str = ""

    @property
    def group(self) -> str:
        """Return the name of the first of the clips that it belongs to, itself included."""
        return self.partner or self.name


def clip_name(index: int) -> str:
    """Return the file name of a clip."""
    return f"{index:06d}.mp4"


def in_groups(split: int, count: int, groups: Sequence[Sequence[int]]) -> list[Clip]:
    """Test or validation clips: each source has the clips of one group, which says their labels; groups take turns."""
    found: list[Clip] = []
    while len(found) < count:
        source = len(found) // len(groups[0])
        first = clip_name(len(found))
        for variant, label in enumerate(groups[source % len(groups)]):
            found.append(Clip(clip_name(len(found)), split, source, label, variant, first if variant else ""))
    return found


@dataclass(frozen=True)
class Kind:
    """Base class of a kind of probe.  Its fields are its dials, in addition to those of `Difficulty`.

    name, labels: name of the kind and names of its classes; seed_index: part of the clips' seeds, must never change
    together: number of test clips drawn from one source; num_test must be a multiple of it
    why_together: description of these clips, for error messages
    mirrored: True if a clip that is mirrored left to right keeps its class
    later: dials that came later; with their default they are no part of what decides the videos
    revision, val_revision: increase them when the same dials give other videos, or other validation videos alone; part
        of what decides them from 1 on
    """

    name: ClassVar[str]
    labels: ClassVar[tuple[str, ...]]
    seed_index: ClassVar[int]
    together: ClassVar[int] = 1
    why_together: ClassVar[str] = ""
    mirrored: ClassVar[bool] = True
    later: ClassVar[frozenset[str]] = frozenset()
    revision: ClassVar[int] = 0
    val_revision: ClassVar[int] = 0

    @property
    def frames(self) -> int:
        """Number of frames of a video."""
        return FRAMES

    @property
    def size(self) -> int:
        """Height and width of a video in pixels."""
        return SIZE

    def dials(self) -> dict[str, object]:
        """Return the fields as plain JSON values, without those of `later` that have their default."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        neutral = {each.name for each in fields(self) if each.name in self.later and plain[each.name] == each.default}
        return {key: value for key, value in plain.items() if key not in neutral}

    def clips(self, split: int, count: int) -> list[Clip]:
        """List the clips of a split (0 training, 1 test): the classes in turn."""
        return [Clip(clip_name(i), split, i, i % len(self.labels)) for i in range(count)]

    def groups(self, split: int, count: int) -> list[str]:
        """Return the group of each clip of a split, in the order of their names: clips of one group are not
        independent."""
        return [clip.group for clip in sorted(self.clips(split, count), key=lambda clip: clip.name)]

    def draw(self, clip: Clip, rng: np.random.Generator, dial: Difficulty) -> Scene:
        """Draw a clip.  `rng` has the same seed for all clips of a source; the facts become a row of clips.csv."""
        raise NotImplementedError

    def quantiser(self, dial: Difficulty) -> int:
        """Return x264's quantiser; 0 is lossless."""
        return dial.quantiser

    def default_short_side(self, crop: int) -> int:
        """Return the short side for a model with this crop: the videos' own, so that crops vary without resizing."""
        return max(crop, self.size)

    def ceiling_percent(self, record: Preprocessing, views: Views, order_blind: bool = False) -> float | None:
        """Return the highest accuracy in percent of any model that reads test videos this way and averages over views.

        None means that no bound is known.  order_blind: the bound of a model that sees the frames of a clip as a set.

        A bound is exact on every test set where the test set pairs clips that look alike; where classes have equal
        distributions instead, it is the expectation over test sets, and the kind says so.
        """
        return None

    def clips_seen(self, record: Preprocessing, views: Views) -> list[list[int]]:
        """The frames of a test video that each of its clips has."""
        return [clip.tolist() for clip in views.indices(record, self.frames, FRAME_RATE)]

    def reversal_hides_order(self, record: Preprocessing, views: Views, order_blind: bool) -> bool:
        """True if a video and its reversal are the same to a model: the clips have the same sets of frames, and the
        model is blind to the order in each, or each shows one frame alone."""
        seen = self.clips_seen(record, views)
        blind = order_blind or all(len(set(clip)) == 1 for clip in seen)
        sets = Counter(tuple(sorted(clip)) for clip in seen)
        return blind and sets == Counter(tuple(sorted(self.frames - 1 - i for i in clip)) for clip in seen)

    def cheap_limits(self) -> dict[str, float | None]:
        """Return the limits in percent of the classifiers of `diagnostics.cheap_classifiers`; None: no limit.

        Classifiers that see the order of frames are not named: no kind limits them, and the gate judges them.
        """
        return dict.fromkeys(("mean_frame", "first_frame", "file_size", *ORDERLESS))

    def _require_whole(self, field: str, low: int, high: int) -> None:
        value = getattr(self, field)
        self._require(field, type(value) is int and low <= value <= high, f"a whole number from {low} to {high}")

    def _require_one_of(self, field: str, *values: int) -> None:
        *others, last = map(str, values)
        value = getattr(self, field)
        self._require(field, type(value) is int and value in values, f"{', '.join(others)} or {last}")

    def _require_number(self, field: str, low: float, high: float) -> None:
        value = getattr(self, field)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        self._require(field, number and low <= value <= high, f"from {low:g} to {high:g}")

    def _require(self, field: str, holds: bool, expected: str) -> None:
        if not holds:
            raise InputError(f"probe {self.name}: {field} must be {expected}, got {getattr(self, field)!r}")


def build(kind: type[Kind], dials: Mapping[str, object]) -> Kind:
    """Make a kind with these dials and defaults for the others.  Raises InputError that names the dial."""
    known = [field.name for field in fields(kind)]
    for name in dials:
        if name not in known:
            have = f"its dials are {', '.join(known)}" if known else "it has no dials of its own"
            raise InputError(f"{name}: not a dial of the probe {kind.name}; {have}")
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in dials.items()}
    try:
        return kind(**plain)
    except TypeError as error:
        raise InputError(f"probe {kind.name}: a dial has the wrong type ({error}), got {dict(dials)}") from error


def is_power_of_two(value: object) -> bool:
    """Return True for 1, 2, 4, …"""
    return type(value) is int and value > 0 and value & (value - 1) == 0
