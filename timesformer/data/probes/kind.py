"""What a kind of probe says of itself.  A further kind is one class in a file of `kinds/`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import ClassVar

import numpy as np

from timesformer.data.preprocessing import Preprocessing
from timesformer.data.probes.difficulty import Difficulty
from timesformer.data.probes.scene import FRAMES, SIZE, Scene
from timesformer.data.views import Views
from timesformer.errors import InputError

ORDER_BLIND_CEILING_PERCENT = 50.0
"""Of whatever is blind to the order of frames, on clips that the test set also holds reversed, under another label."""


@dataclass(frozen=True)
class Clip:
    """One file to make.  Test clips that belong together are drawn from one `source`; `variant` 0, 1, … tells them
    apart, and `partner` is the name of the first of them in the others."""

    name: str
    split: int  # 0 training, 1 test
    source: int
    label: int
    variant: int = 0
    partner: str = ""


def clip_name(index: int) -> str:
    """The file of a clip."""
    return f"{index:06d}.mp4"


@dataclass(frozen=True)
class Kind:
    """A kind of probe; its fields are its dials, beside those of `Difficulty`, which all kinds have.

    name, labels: as users write and read them; seed_index: enters the seeds of the clips and is never changed
    together: number of test clips drawn from one source, so that num_test must be a multiple of it; why_together: which
    mirrored: whether a clip that is mirrored left and right keeps its class
    """

    name: ClassVar[str]
    labels: ClassVar[tuple[str, ...]]
    seed_index: ClassVar[int]
    together: ClassVar[int] = 1
    why_together: ClassVar[str] = ""
    mirrored: ClassVar[bool] = True

    @property
    def frames(self) -> int:
        """Frames of a video."""
        return FRAMES

    @property
    def size(self) -> int:
        """Height and width of a video in pixels."""
        return SIZE

    def dials(self) -> dict[str, object]:
        """Plain JSON-able values of the fields."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def clips(self, split: int, count: int) -> list[Clip]:
        """What to make for a split: classes in turn."""
        return [Clip(clip_name(i), split, i, i % len(self.labels)) for i in range(count)]

    def draw(self, clip: Clip, rng: np.random.Generator, dial: Difficulty) -> Scene:
        """A clip; `rng` is the same for all clips of a source, and the facts become a line of clips.csv."""
        raise NotImplementedError

    def quantiser(self, dial: Difficulty) -> int:
        """x264's quantiser; 0 is without loss."""
        return dial.quantiser

    def default_short_side(self, crop: int) -> int:
        """The short side for a model of this crop: the videos' own, so that nothing is resized and crops move."""
        return max(crop, self.size)

    def ceiling_percent(self, record: Preprocessing, views: Views, order_blind: bool = False) -> float | None:
        """What no model can pass that reads test videos this way and averages over views; None: no bound is known.

        order_blind: of a model that sees the frames of a clip as a set.
        """
        return None

    def cheap_limits(self) -> dict[str, float | None]:
        """What the classifiers of `diagnostics.cheap_classifiers` may reach, in percent; None: anything."""
        return dict.fromkeys(("mean_frame", "first_frame", "file_size"))

    def _require(self, field: str, holds: bool, expected: str) -> None:
        if not holds:
            raise InputError(f"probe {self.name}: {field} must be {expected}, got {getattr(self, field)!r}")


def build(kind: type[Kind], dials: Mapping[str, object]) -> Kind:
    """A kind with these dials, the others at their defaults.  Raises InputError that names the dial."""
    known = [field.name for field in fields(kind)]
    for name in dials:
        if name not in known:
            have = f"its dials are {', '.join(known)}" if known else "it has no dials of its own"
            raise InputError(f"{name}: no dial of the probe {kind.name}; {have}")
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in dials.items()}
    try:
        return kind(**plain)
    except TypeError as error:
        raise InputError(f"probe {kind.name}: a dial has the wrong type ({error}), got {dict(dials)}") from error


def is_power_of_two(value: object) -> bool:
    """Whether a value is 1, 2, 4, …"""
    return type(value) is int and value > 0 and value & (value - 1) == 0
