"""Models of every kind, built from their configurations.

A network registers itself when it is imported, which `import timesformer` does, so what stands below the networks
(checkpoints, training) builds them without importing them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from timesformer.config.cnn import CnnConfig
from timesformer.config.counting import MacsKind
from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError

ModelConfig = TimeSformerConfig | CnnConfig


class Model(nn.Module):
    """Base class of all networks: clip (b, frames, channels, height, width) in, logits (b, sum of the heads) out.

    `extras`: what a loaded model came with (preprocessing, labels, provenance).
    """

    config: Any
    head: nn.Linear
    extras: dict[str, Any]

    def features(self, clip: Tensor) -> Tensor:
        """The pooled vector (b, d) of each clip."""
        raise NotImplementedError


@dataclass(frozen=True)
class Entry:
    """A kind of model: its configuration, its network, and its multiply-accumulates for one view.

    `field` is the field that only this kind's configuration has.
    """

    field: str
    config: type[ModelConfig]
    network: Callable[[Any], Model]
    macs: Callable[[Any, MacsKind], int]


_ENTRIES: dict[type[ModelConfig], Entry] = {}


def register(
    field: str,
    config: type[ModelConfig],
    network: Callable[[Any], Model],
    macs: Callable[[Any, MacsKind], int],
) -> None:
    """Makes a kind of model known."""
    _ENTRIES[config] = Entry(field, config, network, macs)


def read_config(values: dict[str, Any]) -> ModelConfig:
    """A configuration from plain data; without a field that tells, that of a `TimeSformer`.

    Raises InputError that names the field, also for fields of two kinds.
    """
    named = [entry for entry in _ENTRIES.values() if entry.field in values]
    if len(named) > 1:
        fields = " and ".join(entry.field for entry in named)
        raise InputError(f"model configuration: {fields}: expected one of them, a scheme or a CNN")
    return (named[0].config if named else TimeSformerConfig).from_dict(values)


def build_model(config: ModelConfig) -> Model:
    """The model of a configuration, initialised from torch's random state."""
    return _ENTRIES[type(config)].network(config)


def macs_per_view(config: ModelConfig, kind: MacsKind = "executed") -> int:
    """Multiply-accumulates of one clip and crop: of a transformer from its declaration, of a CNN from the shapes that
    its layers meet."""
    return _ENTRIES[type(config)].macs(config, kind)
