"""Models of either kind, video transformers and convolutional baselines, from their configurations.

A configuration with a field `baseline` is a `CnnConfig`, any other a `TimeSformerConfig`.
"""

from typing import Any

from timesformer.config import counting
from timesformer.config.counting import Kind
from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError
from timesformer.models.cnn import Cnn, CnnConfig, build
from timesformer.models.cnn import macs_per_view as cnn_macs
from timesformer.models.timesformer import TimeSformer

ModelConfig = TimeSformerConfig | CnnConfig
Model = TimeSformer | Cnn


def read_config(values: dict[str, Any]) -> ModelConfig:
    """A configuration from plain data.  Raises InputError that names the field, also for fields of both kinds."""
    if "baseline" not in values:
        return TimeSformerConfig.from_dict(values)
    if "attention" in values:
        raise InputError("model configuration: attention and baseline: expected one of them, a scheme or a CNN")
    return CnnConfig.from_dict(values)


def build_model(config: ModelConfig) -> Model:
    """The model of a configuration, initialised from torch's random state."""
    return build(config) if isinstance(config, CnnConfig) else TimeSformer(config)


def macs_per_view(config: ModelConfig, kind: Kind = "executed") -> int:
    """Multiply-accumulates of one clip and crop: of a transformer from its declaration, of a baseline from the shapes
    that its layers meet."""
    return cnn_macs(config) if isinstance(config, CnnConfig) else counting.macs_per_view(config, kind=kind)
