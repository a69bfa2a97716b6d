"""Configuration of a video transformer: frozen, validated, plain data."""

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from timesformer.attention import BACKENDS, Grid, Scheme, build, chosen, spelling
from timesformer.attention.backends import Backend
from timesformer.attention.options import plain
from timesformer.attention.scheme import CLASS_POLICIES, POSITIONS, ClassPolicy, Encoder, Position
from timesformer.config.schedule import Schedule, by_depth, read_schedule, scheduled, settled, write_schedule
from timesformer.config.switches import DEPENDENT, check_switches
from timesformer.errors import InputError

ACTIVATIONS = ("gelu", "gelu_tanh", "gelu_fast", "relu")
QK_INITS = ("independent", "equal")
TUBELET_INITS = ("filter_inflation", "central_frame", "random")


def _switch(default: Any, start: bool = False) -> Any:
    """Return a field that joins a run's hash only where it is not at its default; start: of the first weights alone."""
    return field(default=default, metadata={"later": True, "start": start})


@dataclass(frozen=True)
class TimeSformerConfig:
    """Configuration of a video transformer.

    The defaults are ViT-B/16 at 8 frames of 224 px (paper, section 4 and appendix A).

    - `attention`: name of a scheme (`timesformer.attention.names()`); with options, a mapping
      `{"name": "sliding_tile", "window": [3, 3, 3]}` or the text `sliding_tile(window=[3,3,3])`, which is what the
      field then holds, without options that are at their defaults.
    - `num_frames`, `image_size` (an integer, or height and width in pixels), `tubelet_size` (frames per token): sizes
      of the position embeddings.  A model also takes clips of other sizes, for which it resizes the embeddings.
    - `temporal_depth`: depth of the second, temporal encoder of a scheme that has one.
    - `num_classes`: a tuple for a model with several heads (Epic-Kitchens: 97 verbs and 300 nouns), whose logits hold
      the heads one after the other.
    - `cls_policy`: class policy of every step, or None for the policies that the scheme declares.
    - `temporal_fc`: False removes the extra linear of the released code.
    - `share_qkv`: all steps of a block share one qkv projection.
    - `position`: position embedding, or None for the scheme's default.
    - `position_std`, `time_std`: standard deviations with which spatial positions (or a full table) and temporal
      positions are initialised; the defaults are those of the released code.
    - `schedule`: depths whose blocks take the steps of other schemes (`timesformer.config.schedule`).
    - `init_std`: standard deviation with which the weights of all linear layers but the classifier are initialised.
    - `qk_init`: "equal" gives the queries of every step the weights of its keys to start with, so that a patch looks at
      what resembles it; "independent" draws both, as the released code does.

    Switches of the backbone, each off by default; docs/switches.md shows what each computes:

    - `class_token`: False removes the class token; the head then reads the mean of the patches.
    - `registers`: number of further tokens beside the class token, with the class policy of each step.
    - `position: rope` rotates queries and keys; `rope_axes` (channels of a head for t, h, w), `rope_base`,
      `rope_scale` (factors of the positions along t, h, w), `rope_pairing` and `rope_coordinates` say how.
      `position: sinusoid` adds a fixed table over the tokens of a clip, as VideoMAE's.
    - `qk_norm`: a norm of each head's queries and keys.  `gate`: a gate on each step's output, one for each "head" or
      "channel".  `layer_scale`: start value of a factor per channel on each step's and MLP's output.
    - `mlp`: "gelu" (two linears around `activation`) or "swiglu".  `norm`: "layer" or "rms".  `qkv_bias`: which of q, k
      and v have biases.
    - `pool`: what the head reads; None for the scheme's own.  "attentive" is a query over the patches after
      `pooler_depth` further blocks.  `fc_norm`: the last norm follows the mean, with `fc_norm_eps`.
    - `time_from`: number of the block before which positions in time are added (`position: space_time`), so that the
      blocks before it are those of an image model; 0 adds them to the patches.
    - `standardise`: the vector that the head reads is standardised, channel by channel, over the batch in training and
      by running means otherwise: features of videos that look alike differ in a small part of their size.

    Raises:
        InputError: an unknown or impossible value; the message names the field.
    """

    attention: str = "divided"
    num_frames: int = 8
    image_size: int | tuple[int, int] = 224
    patch_size: int = 16
    tubelet_size: int = 1
    tubelet_init: str = "central_frame"
    in_channels: int = 3
    num_classes: int | tuple[int, ...] = 400
    embed_dim: int = 768
    depth: int = 12
    temporal_depth: int = 4
    num_heads: int = 12
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    norm_eps: float = 1e-6
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    cls_policy: ClassPolicy | None = None
    temporal_fc: bool = True
    share_qkv: bool = False
    position: Position | None = None
    position_std: float = 0.02
    time_std: float = 0.0
    backend: Backend = "auto"
    schedule: Schedule | None = field(default=None, metadata={"later": True})
    init_std: float = _switch(0.02, start=True)
    qk_init: str = _switch("independent", start=True)
    class_token: bool = _switch(True)
    registers: int = _switch(0)
    qk_norm: bool = _switch(False)
    gate: str | None = _switch(None)
    layer_scale: float | None = _switch(None)
    mlp: str = _switch("gelu")
    norm: str = _switch("layer")
    qkv_bias: str = _switch("qkv")
    pool: str | None = _switch(None)
    pooler_depth: int = _switch(0)
    fc_norm: bool = _switch(False)
    fc_norm_eps: float = _switch(1e-6)
    rope_pairing: str = _switch("half")
    rope_base: float = _switch(10000.0)
    rope_axes: tuple[int, int, int] | None = _switch(None)
    rope_scale: tuple[float, float, float] = _switch((1.0, 1.0, 1.0))
    rope_coordinates: str = _switch("index")
    time_from: int = _switch(0)
    standardise: bool = _switch(False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "attention", spelling(self.attention))
        if self.schedule is not None:
            object.__setattr__(self, "schedule", read_schedule(self.schedule))
        for name in ("image_size", "rope_axes", "rope_scale"):
            if isinstance(getattr(self, name), list):  # as read from JSON or YAML
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if isinstance(self.num_classes, list | tuple):
            object.__setattr__(self, "num_classes", _heads(self.num_classes))
        positive = ("num_frames", "patch_size", "tubelet_size", "in_channels", "embed_dim", "depth")
        for name in (*positive, "temporal_depth", "num_heads"):
            value = getattr(self, name)
            if not _is_int(value) or value < 1:
                raise InputError(f"{name}: expected a positive integer, got {value!r}")
        if not all(_is_int(classes) and classes >= 1 for classes in self.heads):
            raise InputError(f"num_classes: expected a positive integer or one for each head, got {self.num_classes!r}")
        sizes = self.image_size if isinstance(self.image_size, tuple) else (self.image_size,)
        if len(sizes) not in (1, 2) or not all(_is_int(size) and size >= 1 for size in sizes):
            raise InputError(f"image_size: expected a positive integer or (height, width), got {self.image_size!r}")
        if any(size % self.patch_size for size in sizes):
            raise InputError(f"image_size: expected a multiple of patch_size {self.patch_size}, got {self.image_size}")
        if self.num_frames % self.tubelet_size:
            raise InputError(
                f"num_frames: expected a multiple of tubelet_size {self.tubelet_size}, got {self.num_frames}"
            )
        if self.embed_dim % self.num_heads:
            raise InputError(f"embed_dim: expected a multiple of num_heads {self.num_heads}, got {self.embed_dim}")
        for name in ("drop_rate", "drop_path_rate"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value < 1:
                raise InputError(f"{name}: expected a number in [0, 1), got {value!r}")
        if not _is_number(self.time_std) or not 0 <= self.time_std < math.inf:
            raise InputError(f"time_std: expected a number of 0 or more, got {self.time_std!r}")
        for name in ("mlp_ratio", "norm_eps", "position_std", "init_std"):
            value = getattr(self, name)
            if not _is_number(value) or not value > 0 or not math.isfinite(value):
                raise InputError(f"{name}: expected a positive number, got {value!r}")
        for name in ("temporal_fc", "share_qkv"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name}: expected true or false, got {getattr(self, name)!r}")
        for name, choices in (
            ("tubelet_init", TUBELET_INITS),
            ("activation", ACTIVATIONS),
            ("cls_policy", (None, *CLASS_POLICIES)),
            ("position", (None, *POSITIONS)),
            ("backend", BACKENDS),
            ("qk_init", QK_INITS),
        ):
            if getattr(self, name) not in choices:
                raise InputError(f"{name}: expected one of {choices}, got {getattr(self, name)!r}")
        if self.schedule is not None:
            ranges = settled(self.schedule, self.attention, self.depth)
            schedule = self.schedule if isinstance(self.schedule[0], str) else ranges
            object.__setattr__(self, "schedule", schedule if ranges else None)
        for step in (step for encoder in self.scheme.encoders for step in encoder.steps):
            if self.num_heads % len(step.over):
                raise InputError(
                    f"num_heads: expected a multiple of {len(step.over)}, the parts of step {step.name!r} of "
                    f"{self.attention!r}, got {self.num_heads}"
                )
        check_switches(self, {each.name: each.default for each in fields(self)})

    @property
    def scheme(self) -> Scheme:
        """Scheme with the schedule, class policy, extra linears and qkv sharing of this configuration."""
        scheme = build(self.attention)
        if self.schedule is not None:
            reads_class = self.class_token and self.pool in (None, "class", "class+mean")
            scheme = scheduled(scheme, by_depth(self.schedule, self.attention, self.depth), reads_class)
        return scheme.vary(
            cls_policy=self.cls_policy,
            temporal_fc=self.temporal_fc,
            share_qkv=self.share_qkv,
            class_token=self.class_token,
        )

    @property
    def label(self) -> str:
        """Short text for tables: the scheme, its options and the schedule."""
        if self.schedule is None:
            return self.attention
        parts = by_depth(self.schedule, self.attention, self.depth)
        starts = [number for number, name in enumerate(parts) if number == 0 or name != parts[number - 1]]
        return ", ".join(f"{first}: {parts[first]}" for first in starts)

    @property
    def resolved_position(self) -> Position:
        """Position embedding of the model: frames that are streams of their own have no temporal positions."""
        scheme = self.scheme
        position = self.position or scheme.position
        if scheme.encoders[0].class_tokens == "frame" and position in ("space_time", "table"):
            return "space"
        return position

    @property
    def resolved_pool(self) -> str:
        """Pooling that the head reads: the switch, or what the last encoder declares."""
        return self.pool or self.scheme.encoders[-1].pool

    @property
    def head_width(self) -> int:
        """Width of the vector that the head reads."""
        return self.embed_dim * (2 if self.resolved_pool == "class+mean" else 1)

    def changed(self, **changes: Any) -> "TimeSformerConfig":
        """Return the configuration with other values; fields that only a replaced switch reads go to their defaults."""
        defaults = {each.name: each.default for each in fields(self)}
        gone = [name for switch in sorted(set(changes) & set(DEPENDENT)) for name in DEPENDENT[switch](changes[switch])]
        reset: dict[str, Any] = {name: defaults[name] for name in gone if name not in changes}
        return replace(self, **(reset | changes))

    def specials(self, encoder: Encoder) -> int:
        """Return the number of class tokens and registers in each stream of an encoder."""
        return 0 if encoder.class_tokens == "none" else 1 + self.registers

    def changed_switches(self) -> dict[str, Any]:
        """Return the switches of the backbone that are not at their defaults."""
        later = [each for each in fields(self) if each.metadata.get("later") and not each.metadata.get("start")]
        return {each.name: getattr(self, each.name) for each in later if getattr(self, each.name) != each.default}

    @property
    def heads(self) -> tuple[int, ...]:
        """Number of classes of each head; the logits hold them one after the other."""
        return self.num_classes if isinstance(self.num_classes, tuple) else (self.num_classes,)

    @property
    def height_width(self) -> tuple[int, int]:
        """Image height and width in pixels."""
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)

    @property
    def grid(self) -> Grid:
        """Tokens along time, height and width."""
        height, width = self.height_width
        return self.num_frames // self.tubelet_size, height // self.patch_size, width // self.patch_size

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain data for JSON and YAML, without a schedule where there is none."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        name, options = chosen(self.attention)
        if options:
            values["attention"] = {"name": name, **plain(options)}
        if self.schedule is None:
            del values["schedule"]
        else:
            values["schedule"] = write_schedule(self.schedule)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TimeSformerConfig":
        """Rebuild a configuration from `to_dict`.

        Raises:
            InputError: an unknown field, or an impossible value; the message names the field.
        """
        known = {each.name for each in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(f"model configuration: unknown field {unknown[0]!r}; expected one of {sorted(known)}")
        return cls(**values)


def _heads(value: list[int] | tuple[int, ...]) -> int | tuple[int, ...]:
    """Return several heads as a tuple, and a single head as its number of classes."""
    if not value:
        raise InputError("num_classes: expected a positive integer, or one for each head, got none")
    return value[0] if len(value) == 1 else tuple(value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
