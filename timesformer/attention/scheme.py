"""Step, encoder, scheme: an attention scheme is a list of steps, declared once."""

from dataclasses import dataclass, replace
from typing import Literal

from timesformer.attention.mixer import Mixer
from timesformer.attention.partition import Partition
from timesformer.attention.predicate import Predicate
from timesformer.errors import InputError

ClassPolicy = Literal["absent", "replicated", "global"]
CLASS_POLICIES: tuple[ClassPolicy, ...] = ("absent", "replicated", "global")
Position = Literal["none", "space", "space_time", "table"]
POSITIONS: tuple[Position, ...] = ("none", "space", "space_time", "table")


@dataclass(frozen=True)
class Step:
    """One attention step: where it attends and what it does with the class token.

    - `over`: a partition, predicate or mixer; several share the heads evenly (ViViT's model 4).
    - `cls`: `absent`, the class token takes no part; `replicated`, it is copied into every group and its outputs
      are averaged over the groups, unweighted (the released code's space step); `global`, it is a key in every
      group and its query sees every token (equation 11 of the paper).
    - `extra_linear`: a zero-initialised linear after the projection (the released code's `temporal_fc`).
    - `qkv_from`: the step of the same block whose qkv weights this one shares.
    - `zero_start`: its projection starts at zero, also from an image model's weights, so that the block starts as
      the image model's (ViViT, section 3.4; zero qkv weights too, as written there, would never get a gradient).
    """

    name: str
    over: tuple[Partition | Predicate | Mixer, ...]
    cls: ClassPolicy = "replicated"
    extra_linear: bool = False
    qkv_from: str | None = None
    zero_start: bool = False

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise InputError(f"Step.name: expected an identifier, got {self.name!r}")
        if self.cls not in CLASS_POLICIES:
            raise InputError(f"Step.cls of {self.name!r}: expected one of {CLASS_POLICIES}, got {self.cls!r}")
        if not self.over:
            raise InputError(f"Step.over of {self.name!r}: expected at least one partition, predicate or mixer")
        if self.cls == "replicated" and not all(isinstance(part, Partition) for part in self.over):
            raise InputError(
                f"Step.cls of {self.name!r}: 'replicated' copies the class token into the groups of a partition; "
                "a predicate or mixer has no groups: use 'global' or 'absent'"
            )


@dataclass(frozen=True)
class Encoder:
    """A stack of equal blocks.

    - `block`: stages in sequence, each with its steps in parallel (their outputs are added); the MLP follows.
    - `depth`: the configuration's field that gives the number of blocks.
    - `class_tokens`: `clip`, one for the clip; `frame`, every frame is a stream of its own with a class token;
      `none`.
    - `pool`: what stands for the clip (or, before a further encoder, for each frame): the class token or the mean
      of the patches.
    """

    block: tuple[tuple[Step, ...], ...]
    depth: Literal["depth", "temporal_depth"] = "depth"
    class_tokens: Literal["clip", "frame", "none"] = "clip"
    pool: Literal["class", "mean"] = "class"

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        if not names or len(set(names)) != len(names):
            raise InputError(f"Encoder.block: expected steps with different names, got {names}")
        if self.pool == "class" and self.class_tokens == "none":
            raise InputError("Encoder.pool: 'class' needs class tokens; use pool='mean'")
        if self.class_tokens == "none" and any(step.cls != "absent" for step in self.steps):
            raise InputError("Encoder.class_tokens: 'none' needs cls='absent' in every step")
        if self.class_tokens != "none" and all(step.cls == "absent" for step in self.steps):
            raise InputError("the class token is absent from every step of the block: it would never see a patch")
        for step in self.steps:
            if step.qkv_from is not None and step.qkv_from not in names:
                raise InputError(f"Step.qkv_from of {step.name!r}: expected one of {names}, got {step.qkv_from!r}")
            if step.qkv_from is not None and self.step(step.qkv_from).qkv_from is not None:
                raise InputError(f"Step.qkv_from of {step.name!r}: {step.qkv_from!r} has no qkv weights of its own")

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps of a block, in order."""
        return tuple(step for stage in self.block for step in stage)

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def _map(self, change: "dict[str, Step]") -> "Encoder":
        return replace(self, block=tuple(tuple(change[step.name] for step in stage) for stage in self.block))


@dataclass(frozen=True)
class Scheme:
    """A name, one encoder or several in a row, and the defaults that belong to the scheme.

    `code` is the paper's abbreviation, `aliases` are further names under which it is found.
    """

    name: str
    encoders: tuple[Encoder, ...]
    position: Position = "space_time"
    code: str = ""
    title: str = ""
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise InputError(f"Scheme.name: expected an identifier, got {self.name!r}")
        if not self.encoders:
            raise InputError(f"Scheme.encoders of {self.name!r}: expected at least one encoder")
        if self.position not in POSITIONS:
            raise InputError(f"Scheme.position of {self.name!r}: expected one of {POSITIONS}, got {self.position!r}")
        if any(encoder.class_tokens == "frame" for encoder in self.encoders[1:]):
            raise InputError(f"Scheme.encoders of {self.name!r}: only the first encoder can have frame class tokens")
        if len(self.encoders) > 1 and self.encoders[0].class_tokens == "clip":
            raise InputError(
                f"Scheme.encoders of {self.name!r}: an encoder before another hands on one token a frame; "
                "expected class_tokens 'frame' or 'none', got 'clip'"
            )

    def vary(
        self, *, cls_policy: ClassPolicy | None = None, temporal_fc: bool | None = None, share_qkv: bool = False
    ) -> "Scheme":
        """The scheme with these switches of a configuration applied; None keeps what the scheme declares.

        `temporal_fc=True` keeps the declared extra linears, `False` removes them.

        Raises:
            InputError: a class policy for a scheme without class tokens, or one that a step cannot have.
        """
        if cls_policy is not None and all(encoder.class_tokens == "none" for encoder in self.encoders):
            raise InputError(f"cls_policy: scheme {self.name!r} has no class token; leave it out")
        encoders = []
        for encoder in self.encoders:
            first = encoder.steps[0].name
            change = {}
            for step in encoder.steps:
                if cls_policy is not None and encoder.class_tokens != "none":
                    step = replace(step, cls=cls_policy)
                if temporal_fc is False:
                    step = replace(step, extra_linear=False)
                if share_qkv and step.name != first:
                    step = replace(step, qkv_from=first)
                change[step.name] = step
            encoders.append(encoder._map(change))
        return replace(self, encoders=tuple(encoders))
