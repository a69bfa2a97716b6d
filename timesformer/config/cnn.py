"""Configuration of a convolutional baseline: frozen, validated, plain data."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from timesformer.errors import InputError

BASELINES = ("c2d", "i3d", "slowfast")
STAGES = 4


@dataclass(frozen=True)
class CnnConfig:
    """Configuration of a 3D CNN; the defaults are those of a ResNet-50 with 400 classes.

    - `baseline`: `i3d` (I3D R50 8x8: 8 frames), `slowfast` (SlowFast R50 8x8: 32 frames, of which the slow pathway sees
      8), or `c2d`, a ResNet on each frame whose outputs are averaged; with `num_frames` 1 an image network.
    - `width`: channels of the stem; `blocks`: number of bottlenecks in each of the four stages.
    - `alpha`: the slow pathway sees every alpha-th frame; `beta`: ratio of the fast to the slow pathway's channels.
    - `drop_rate`: dropout before the head.  `num_classes` is a tuple for several heads, as in `TimeSformerConfig`.

    Raises:
        InputError: an unknown or impossible value; the message names the field.
    """

    baseline: str
    num_frames: int = 8
    image_size: int | tuple[int, int] = 224
    in_channels: int = 3
    num_classes: int | tuple[int, ...] = 400
    width: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    alpha: int = 4
    beta: float = 0.125
    drop_rate: float = 0.5

    def __post_init__(self) -> None:
        for name in ("image_size", "num_classes", "blocks"):
            if isinstance(getattr(self, name), list):  # as read from JSON or YAML
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if isinstance(self.num_classes, tuple) and len(self.num_classes) == 1:
            object.__setattr__(self, "num_classes", self.num_classes[0])
        if self.baseline not in BASELINES:
            raise InputError(f"baseline: expected one of {', '.join(BASELINES)}, got {self.baseline!r}")
        for name in ("num_frames", "in_channels", "width", "alpha"):
            if not _positive(getattr(self, name)):
                raise InputError(f"{name}: expected a positive integer, got {getattr(self, name)!r}")
        if not self.heads or not all(_positive(classes) for classes in self.heads):
            raise InputError(f"num_classes: expected a positive integer or one for each head, got {self.num_classes!r}")
        if len(self.height_width) != 2 or not all(_positive(size) for size in self.height_width):
            raise InputError(f"image_size: expected a positive integer or (height, width), got {self.image_size!r}")
        counts = self.blocks if isinstance(self.blocks, tuple) else ()
        if len(counts) != STAGES or not all(_positive(count) for count in counts):
            raise InputError(f"blocks: expected {STAGES} positive integers, one for each stage, got {self.blocks!r}")
        for name, high in (("beta", 1.0), ("drop_rate", math.nextafter(1.0, 0.0))):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= high or (name == "beta" and value == 0):
                raise InputError(f"{name}: expected a number {'above' if name == 'beta' else 'from'} 0, got {value!r}")
        if self.baseline == "i3d" and self.num_frames < 2:
            raise InputError(f"num_frames: expected at least 2 for i3d, which halves them, got {self.num_frames}")
        if self.baseline == "slowfast" and self.num_frames % self.alpha:
            raise InputError(f"num_frames: expected a multiple of alpha {self.alpha}, got {self.num_frames}")

    @property
    def attention(self) -> str:
        """Name of the model in tables, in the column of the transformers' schemes."""
        return self.baseline

    @property
    def drop_path_rate(self) -> float:
        """Rate of drop path: always 0, a CNN never drops whole blocks."""
        return 0.0

    @property
    def heads(self) -> tuple[int, ...]:
        """Number of classes of each head; the logits hold them one after the other."""
        return self.num_classes if isinstance(self.num_classes, tuple) else (self.num_classes,)

    @property
    def height_width(self) -> tuple[int, int]:
        """Image height and width in pixels."""
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)

    @property
    def fast_width(self) -> int:
        """Channels of the fast pathway's stem."""
        return max(1, round(self.beta * self.width))

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain data for JSON and YAML."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CnnConfig":
        """Rebuild a configuration from `to_dict`.

        Raises:
            InputError: an unknown field, or an impossible value; the message names the field.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(
                f"model configuration: unknown field {unknown[0]!r} of a baseline; expected one of {sorted(known)}"
            )
        return cls(**values)


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
