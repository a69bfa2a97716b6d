"""Networks: the video transformer and the convolutional baselines.  Importing them registers them."""

from timesformer.models.cnn import Cnn
from timesformer.models.timesformer import TimeSformer

__all__ = ["Cnn", "TimeSformer"]
