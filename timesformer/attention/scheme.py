"""Step, encoder and scheme: the declaration of an attention scheme as a list of steps."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from timesformer.attention.mixer import Mixer
from timesformer.attention.partition import Partition
from timesformer.attention.predicate import Predicate
from timesformer.errors import InputError

ClassPolicy = Literal["absent", "replicated", "global"]
CLASS_POLICIES: tuple[ClassPolicy, ...] = ("absent", "replicated", "global")
Position = Literal["none", "space", "space_time", "table", "sinusoid", "rope"]
POSITIONS: tuple[Position, ...] = ("none", "space", "space_time", "table", "sinusoid", "rope")
Stage = tuple["Step", ...]
"""Steps in parallel, whose outputs are added."""
Block = tuple[Stage, ...]
"""Stages in sequence."""


@dataclass(frozen=True)
class Step:
    """One attention step: its neighbourhoods and its treatment of the class token.

    - `over`: partitions, predicates or mixers; if there are several, the heads are divided evenly between them
      (ViViT's model 4).
    - `cls`: `absent`, the class token takes no part; `replicated`, it is copied into every group and its outputs
      are averaged over the groups, unweighted (the released code's space step); `global`, it is a key in every
      group and its query sees every token (equation 11 of the paper).
    - `extra_linear`: a zero-initialised linear after the projection (the released code's `temporal_fc`).
    - `qkv_from`: name of the step of the same block whose qkv weights this one shares.
    - `zero_start`: the projection starts at zero, even when the model starts from an image model's weights, so that
      the block starts as the image model's (ViViT, section 3.4; zero qkv weights too, as written there, would never
      receive a gradient).
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
        if not isinstance(self.over, tuple) or not self.over:
            raise InputError(
                f"Step.over of {self.name!r}: expected a tuple of at least one partition, predicate or mixer, got "
                f"{self.over!r}"
            )
        for part in self.over:
            if not isinstance(part, Partition | Predicate | Mixer):
                raise InputError(f"Step.over of {self.name!r}: expected partitions, predicates or mixers, got {part!r}")
        if self.cls == "replicated" and not all(isinstance(part, Partition) for part in self.over):
            raise InputError(
                f"Step.cls of {self.name!r}: 'replicated' copies the class token into the groups of a partition; "
                "a predicate or mixer has no groups, use 'global' or 'absent'"
            )


@dataclass(frozen=True)
class Encoder:
    """A stack of blocks, all of one kind, or of several that repeat as a pattern.

    - `block`: stages in sequence, each with its steps in parallel (their outputs are added); the MLP follows.
    - `more`: the blocks that follow `block` in a pattern, which repeats from the first block to the last.
    - `depth`: name of the configuration field that holds the number of blocks.
    - `class_tokens`: `clip`, one for the clip; `frame`, one for each frame, which is a stream of its own; `none`.
    - `pool`: token that represents the clip (or, before a further encoder, each frame): the class token or the mean
      of the patches.
    """

    block: Block
    depth: Literal["depth", "temporal_depth"] = "depth"
    class_tokens: Literal["clip", "frame", "none"] = "clip"
    pool: Literal["class", "mean"] = "class"
    more: tuple[Block, ...] = ()

    def __post_init__(self) -> None:
        for block in self.pattern:
            _check_block(block)
        if self.pool == "class" and self.class_tokens == "none":
            raise InputError("Encoder.pool: expected 'mean' without class tokens, got 'class'")
        if self.class_tokens == "none" and any(step.cls != "absent" for step in self.steps):
            raise InputError("Encoder.class_tokens: expected cls='absent' in every step with class_tokens='none'")
        if self.class_tokens != "none" and all(step.cls == "absent" for step in self.steps):
            raise InputError("Step.cls: expected the class token in at least one step, got 'absent' in all of them")

    @property
    def pattern(self) -> tuple[Block, ...]:
        """The blocks that repeat; a single one where all blocks are of one kind."""
        return self.block, *self.more

    def at(self, number: int) -> "Encoder":
        """Return the encoder whose blocks are all as this one's block of that number, counted from 0."""
        if not self.more:
            return self
        block = self.pattern[number % len(self.pattern)]
        absent = all(step.cls == "absent" for step in _steps(block))
        found = replace(self, block=block, more=()) if not absent or self.class_tokens == "none" else None
        return found or _Silent(block, self.depth, self.class_tokens, self.pool)

    @property
    def stages(self) -> tuple[tuple[int, Stage], ...]:
        """Stages of the pattern in sequence, each with the number of its block, counted from 0."""
        return tuple((number, stage) for number, block in enumerate(self.pattern) for stage in block)

    @property
    def steps(self) -> tuple[Step, ...]:
        """Different steps of the pattern, in order; of one kind of block, all its steps."""
        return tuple(dict.fromkeys(step for block in self.pattern for step in _steps(block)))

    def step(self, name: str) -> Step:
        """Return the first step of this name."""
        return next(step for step in self.steps if step.name == name)

    def map_blocks(self, change: Callable[[Block], Block], **others: Any) -> "Encoder":
        """Return the encoder with every block of the pattern changed, and other fields as given."""
        first, *more = (change(block) for block in self.pattern)
        return replace(self, block=first, more=tuple(more), **others)


class _Silent(Encoder):
    """Encoder of a block that leaves the class token alone, as a part of one whose other blocks do not."""

    def __post_init__(self) -> None:
        _check_block(self.block)


def _steps(block: Block) -> tuple[Step, ...]:
    return tuple(step for stage in block for step in stage)


def _check_block(block: Block) -> None:
    stages = block if isinstance(block, tuple) else (block,)
    if not all(isinstance(stage, tuple) and all(isinstance(step, Step) for step in stage) for stage in stages):
        raise InputError(
            "Encoder.block: expected a tuple of stages, each a tuple of steps, such as ((time,), (space,)), got "
            f"{block!r}"
        )
    steps = {step.name: step for step in _steps(block)}
    if not steps or len(steps) != len(_steps(block)):
        names = [step.name for step in _steps(block)]
        raise InputError(f"Encoder.block: expected steps with different names, got {names}")
    for step in steps.values():
        if step.qkv_from is not None and step.qkv_from not in steps:
            raise InputError(f"Step.qkv_from of {step.name!r}: expected one of {list(steps)}, got {step.qkv_from!r}")
        if step.qkv_from is not None and steps[step.qkv_from].qkv_from is not None:
            raise InputError(
                f"Step.qkv_from of {step.name!r}: expected a step with its own qkv weights, got {step.qkv_from!r}"
            )


@dataclass(frozen=True)
class Scheme:
    """An attention scheme: a name, one encoder or several in sequence, and the scheme's defaults.

    - `position`: default position embedding.
    - `code`: abbreviation in the paper; `title`: name in tables and figures.
    - `aliases`: further names under which the scheme is found.
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
        tupled = isinstance(self.encoders, tuple)
        if not self.encoders or not tupled or not all(isinstance(each, Encoder) for each in self.encoders):
            raise InputError(
                f"Scheme.encoders of {self.name!r}: expected a tuple of at least one encoder, got {self.encoders!r}"
            )
        if self.position not in POSITIONS:
            raise InputError(f"Scheme.position of {self.name!r}: expected one of {POSITIONS}, got {self.position!r}")
        if any(encoder.class_tokens == "frame" for encoder in self.encoders[1:]):
            raise InputError(f"Scheme.encoders of {self.name!r}: only the first encoder can have frame class tokens")
        if len(self.encoders) > 1 and self.encoders[0].class_tokens == "clip":
            raise InputError(
                f"Scheme.encoders of {self.name!r}: expected class_tokens 'frame' or 'none' in the first of several "
                "encoders, which passes on one token per frame, got 'clip'"
            )

    def vary(
        self,
        *,
        cls_policy: ClassPolicy | None = None,
        temporal_fc: bool | None = None,
        share_qkv: bool = False,
        class_token: bool = True,
    ) -> "Scheme":
        """Return the scheme with these switches of a configuration applied; None keeps the declared value.

        `temporal_fc=True` keeps the declared extra linears, `False` removes them.  Without class tokens every encoder
        pools by the mean of its patches.

        Raises:
            InputError: a class policy for a scheme without class tokens, or one that a step does not allow.
        """
        if cls_policy is not None and all(encoder.class_tokens == "none" for encoder in self.encoders):
            raise InputError(f"cls_policy: scheme {self.name!r} has no class token, remove the field")
        if cls_policy is not None and not class_token:
            raise InputError("cls_policy: expected a class token, remove the field or class_token: false")
        encoders = []
        for encoder in self.encoders:
            policy = cls_policy if encoder.class_tokens != "none" else None
            if not class_token:
                policy = "absent"

            def varied(block: Block, policy: ClassPolicy | None = policy) -> Block:
                first = block[0][0].name
                return tuple(
                    tuple(
                        replace(
                            step,
                            cls=policy or step.cls,
                            extra_linear=step.extra_linear and temporal_fc is not False,
                            qkv_from=first if share_qkv and step.name != first else step.qkv_from,
                        )
                        for step in stage
                    )
                    for stage in block
                )

            without: dict[str, Any] = {} if class_token else {"class_tokens": "none", "pool": "mean"}
            encoders.append(encoder.map_blocks(varied, **without))
        return replace(self, encoders=tuple(encoders))
