"""Attention ablations in video transformers: one backbone, every attention scheme."""

from timesformer.backbone import TimeSformer
from timesformer.config import TimeSformerConfig
from timesformer.errors import InputError

__version__ = "0.1.0"
__all__ = ["InputError", "TimeSformer", "TimeSformerConfig", "__version__"]
