"""Registry of model kinds, which builds models from their configurations.

A network registers itself when it is imported, which `import timesformer` does.  Modules below the networks
(checkpoints, training) can so build models without importing the networks.
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

    `extras`: preprocessing, labels and provenance that a loaded model came with.
    """

    config: Any
    head: nn.Linear
    extras: dict[str, Any]

    def features(self, clip: Tensor) -> Tensor:
        """Return the pooled vector (b, d) of each clip."""
        raise NotImplementedError

    def layers(self) -> list[list[str]]:
        """Return the names of the parameters by depth: embedding, each block, and last what follows the blocks."""
        raise NotImplementedError


@dataclass(frozen=True)
class Entry:
    """A kind of model: its configuration, its network, and its count of multiply–accumulates for one view.

    `field` is a field that only this kind's configuration has.  `stem`: count of the embedding and the first blocks.
    """

    field: str
    config: type[ModelConfig]
    network: Callable[[Any], Model]
    macs: Callable[[Any, MacsKind], int]
    stem: Callable[[Any, int], int]


_ENTRIES: dict[type[ModelConfig], Entry] = {}


def register(
    field: str,
    config: type[ModelConfig],
    network: Callable[[Any], Model],
    macs: Callable[[Any, MacsKind], int],
    stem: Callable[[Any, int], int],
) -> None:
    """Register a kind of model; the arguments are the fields of `Entry`."""
    _ENTRIES[config] = Entry(field, config, network, macs, stem)


def read_config(values: dict[str, Any]) -> ModelConfig:
    """Read a configuration from plain data; without a field that identifies the kind, it is that of a `TimeSformer`.

    Raises:
        InputError: an unknown field, an impossible value, or fields of two kinds; the message names the field.
    """
    named = [entry for entry in _ENTRIES.values() if entry.field in values]
    if len(named) > 1:
        fields = " and ".join(sorted(entry.field for entry in named))
        raise InputError(f"model configuration: expected a scheme or a CNN, got the fields {fields}")
    return (named[0].config if named else TimeSformerConfig).from_dict(values)


def build_model(config: ModelConfig) -> Model:
    """Build the model of a configuration, initialised from torch's random state."""
    return _ENTRIES[type(config)].network(config)


def macs_per_view(config: ModelConfig, kind: MacsKind = "executed") -> int:
    """Count the multiply–accumulates of one clip and crop.

    A transformer is counted from its declaration, a CNN from the shapes of its layers' inputs.
    """
    return _ENTRIES[type(config)].macs(config, kind)


def stem_macs(config: ModelConfig, blocks: int) -> int:
    """Count the multiply–accumulates of the embedding and the first blocks, for one clip and crop."""
    return _ENTRIES[type(config)].stem(config, blocks)
