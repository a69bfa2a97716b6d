"""Parts that the readers and writers of these encoders share: rules for their blocks, their settings."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from timesformer.checkpoints.formats.hf_files import labels_of, pair_or_int, preprocessing_of_processor
from timesformer.checkpoints.formats.hf_timesformer import ACTIVATIONS
from timesformer.checkpoints.layout import shapes
from timesformer.checkpoints.rules import (
    Rule,
    convert,
    explain,
    flat,
    joined,
    patches,
    plain,
    stored_shape,
    weight_and_bias,
    without_batch,
)
from timesformer.checkpoints.source import Raw, Source
from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError

PRE_TRAINING = "only for pre-training with masked patches"
ENCODER = "encoders.0"
CLASSIFIER = "classifier.weight"
PAIRS = ("image_size", "patch_size")
"""Settings that may be a number or a pair, height and width."""


@dataclass(frozen=True)
class BlockNames:
    """The stored names of a block's parts, below `start` and the block's number.

    fc1: the first linear of the MLP, or gate and value of a gated one where they are stored apart.  scales: the factors
    after attention and MLP.  biases: names of the biases of q, k and v where they are not `NAME.bias`.
    """

    start: str
    norms: tuple[str, str]
    qkv: tuple[str, str, str]
    proj: str
    fc1: str | tuple[str, str]
    fc2: str
    scales: tuple[str, str] | None = None
    biases: tuple[str, str, str] | None = None

    def rules(self, depth: int, step: str, parts: str, linear_bias: bool = True, mlp_bias: bool = True) -> list[Rule]:
        """Rules for all blocks; `parts`: which of q, k and v have biases.

        Biases of the projection and of the MLP may be absent there.
        """
        found: list[Rule] = []
        for number in range(depth):
            block, ours = f"{self.start}{number}.", f"{ENCODER}.blocks.{number}"
            at = f"{ours}.steps.{step}"
            qkv = tuple(block + name for name in self.qkv)
            names = self.biases or tuple(f"{name}.bias" for name in self.qkv)
            biases = tuple(block + name for part, name in zip("qkv", names, strict=True) if part in parts)
            fc1 = block + self.fc1 if isinstance(self.fc1, str) else tuple(block + name for name in self.fc1)
            fc1_rules = weight_and_bias(f"{ours}.mlp.fc1", fc1, plain if isinstance(fc1, str) else joined)
            proj, fc2 = (
                weight_and_bias(f"{at}.proj", block + self.proj),
                weight_and_bias(f"{ours}.mlp.fc2", block + self.fc2),
            )
            found += [
                *weight_and_bias(f"{at}.norm", block + self.norms[0]),
                Rule(f"{at}.qkv.weight", tuple(f"{name}.weight" for name in qkv), joined),
                *([Rule(f"{at}.qkv.bias", biases, joined)] if biases else []),
                *proj[: 1 + linear_bias],
                *weight_and_bias(f"{ours}.mlp.norm", block + self.norms[1]),
                *fc1_rules[: 1 + mlp_bias],
                *fc2[: 1 + mlp_bias],
            ]
            if self.scales is not None:
                found += [
                    Rule(f"{at}.scale", (block + self.scales[0],), plain),
                    Rule(f"{ours}.mlp.scale", (block + self.scales[1],), plain),
                ]
        return found


@dataclass(frozen=True)
class Settings:
    """The settings of a folder, with the defaults of transformers for what they leave out; messages name the field."""

    values: dict[str, Any]
    where: str

    @classmethod
    def of(cls, raw: Raw, section: str | None = None) -> "Settings":
        values = raw.config or {}
        if section is not None:
            inner = values.get(section, {})
            values = inner if isinstance(inner, dict) else {}
        return cls(values, str(raw.path / "config.json" if raw.path.is_dir() else raw.path))

    def get(self, field: str, default: Any) -> Any:
        """The value of a field.  Raises InputError where the default is a number or a word and the value is not."""
        value = self.values.get(field)
        if value is None:
            return default
        pair = field in PAIRS and isinstance(value, list)
        if isinstance(default, int | float) and not isinstance(default, bool) and not pair:
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise InputError(f"{self.where}: {field}: expected a number, got {value!r}")
            if isinstance(default, int) and value < min(1, default):
                raise InputError(f"{self.where}: {field}: expected at least {min(1, default)}, got {value!r}")
        if isinstance(default, str) and not isinstance(value, str):
            raise InputError(f"{self.where}: {field}: expected a word, got {value!r}")
        return value

    def flag(self, field: str, default: bool) -> bool:
        return self.get(field, default) is not False

    def side(self, field: str, default: int) -> int:
        """The side of a square patch."""
        found = pair_or_int(self.get(field, default))
        if not isinstance(found, int):
            raise InputError(f"{self.where}: {field}: expected square patches, got {found}")
        return found

    def activation(self, default: str = "gelu") -> str:
        found = self.get("hidden_act", default)
        if found not in ACTIVATIONS:
            raise InputError(f"{self.where}: hidden_act: expected one of {tuple(ACTIVATIONS)}, got {found!r}")
        return ACTIVATIONS[found]

    def require_depth(self, field: str, default: int, depth: int) -> None:
        stated = self.values.get(field)  # which may be 0, as no size may
        stated = default if stated is None else stated
        if stated != depth:
            raise InputError(f"{self.where}: {field}: {stated!r}, but {depth} in the file")

    def build(self, **fields: Any) -> TimeSformerConfig:
        """The configuration; what is wrong with it is wrong with this file."""
        try:
            return TimeSformerConfig(**fields)
        except (InputError, TypeError, ZeroDivisionError) as error:
            raise InputError(f"{self.where}: {error}") from error


@dataclass(frozen=True)
class Read:
    """Findings of a reader: configuration, rules for the stored tensors, tensors without a place and why.

    zeros: weights of ours that the checkpoint does not have and that are zero there.
    """

    config: TimeSformerConfig
    rules: list[Rule]
    unused: dict[str, str]
    notes: tuple[str, ...] = ()
    zeros: tuple[str, ...] = ()


def source_of(raw: Raw, name: str, licence: str, read: Read, head: bool) -> Source:
    """The checkpoint in our terms.

    Preprocessing is that of the folder's processor, else that of the class that transformers takes for this model.

    Raises:
        UnexplainedTensors: a stored tensor without a rule.
        InputError: one is missing or has another shape; names it.
    """
    explain(raw, read.rules, read.unused, name)
    tensors, expected = convert(raw, read.rules, read.config), shapes(read.config)
    tensors |= {ours: torch.zeros(expected[ours]) for ours in read.zeros}
    record, notes = None, read.notes
    if "processors" not in raw.metadata:
        record = _default_record(raw, read.config)
        notes = (*notes, "no preprocessor_config.json: the defaults of its class in transformers, at the model's size")
    return Source(
        format=name,
        config=read.config,
        tensors=tensors,
        preprocessing=record,
        labels=labels_of(raw, read.config.num_classes) if head else None,
        provenance={"licence": licence},
        unused=read.unused,
        notes=notes,
        assumed=() if head else ("num_classes",),
        where=str(raw.path),
    )


def _default_record(raw: Raw, config: TimeSformerConfig) -> dict[str, Any]:
    """The record of the processor that transformers takes for this model, at the model's size."""
    kind, size = (raw.config or {}).get("model_type"), list(config.height_width)
    record, _ = preprocessing_of_processor({}, raw.path, kind, config.num_frames > 1)
    crop = record.get("crop", [record["short_side"]] * 2)
    short = record["short_side"]
    if crop != size:
        short = max(min(size), round(short * min(size) / min(crop)))
    return {**record, "num_frames": config.num_frames, "crop": size, "short_side": short}


def prefix_of(raw: Raw, prefix: str) -> str:
    """The prefix where any tensor has it, otherwise none: bodies are saved without."""
    return prefix if any(name.startswith(prefix) for name in raw.tensors) else ""


def left_out(raw: Raw, reasons: dict[str, str]) -> dict[str, str]:
    """Stored tensors by the beginning of their name, with the reason why they have no place."""
    return {name: why for name in raw.tensors for start, why in reasons.items() if name.startswith(start)}


def classes_of(raw: Raw, head: bool) -> int:
    """The number of classes of a classifier, or what the settings say of labels.

    Raises InputError where the classifier lacks its weight, or the weight is no matrix.
    """
    if head:
        if CLASSIFIER not in raw.tensors:
            raise InputError(f"{raw.path}: {CLASSIFIER} missing; the file has other tensors of a classifier")
        return stored_shape(raw, CLASSIFIER, 2)[0]
    table = (raw.config or {}).get("id2label")
    return len(table) if isinstance(table, dict) and table else 2


def has_head(raw: Raw) -> bool:
    """True where any tensor of a classifier is there; `classes_of` requires its weight."""
    return any(name.startswith("classifier.") for name in raw.tensors)


def inverse(rules: Iterable[Rule], state: dict[str, Tensor], config: TimeSformerConfig) -> dict[str, Tensor]:
    """Our weights by the stored names of rules, in their stored shapes."""
    found: dict[str, Tensor] = {}
    for rule in rules:
        value = state[rule.ours].detach().cpu()
        if rule.convert is patches:
            c, u, p = config.in_channels, config.tubelet_size, config.patch_size
            value = value.view(-1, c, u, p, p) if u > 1 else value.view(-1, c, p, p)
        elif rule.convert is flat:
            value = value[None, None]
        elif rule.convert is without_batch:
            value = value[None]
        parts = value.chunk(len(rule.stored)) if rule.convert is joined else (value,)
        found |= {name: part.contiguous() for name, part in zip(rule.stored, parts, strict=True)}
    return found


def require_expressible(config: TimeSformerConfig, name: str, wanted: dict[str, tuple[bool, str]]) -> None:
    """InputError that names the first field for which another library has no equivalent.

    wanted: for each field whether its value can be expressed, and what could.
    """
    for field, (holds, expected) in wanted.items():
        if not holds:
            value = getattr(config, field)
            raise InputError(f"{name} cannot express {field} = {value!r}; it knows {expected}")
    for field, value in config.changed_switches().items():
        if field not in wanted:
            raise InputError(f"{name} cannot express {field} = {value!r}")
