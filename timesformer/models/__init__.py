"""Networks: the video transformer and convolutional baselines.  Importing them makes them known to the registry."""

from timesformer.models.cnn import Cnn
from timesformer.models.timesformer import TimeSformer

__all__ = ["Cnn", "TimeSformer"]
