"""Attention ablations in video transformers: one backbone, every attention scheme."""

from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError
from timesformer.models import TimeSformer

__version__ = "0.1.0"
__all__ = ["InputError", "TimeSformer", "TimeSformerConfig", "__version__"]
