"""Convolutional baselines for video transformers: I3D and SlowFast with ResNet bottlenecks, and C2D.

C2D is the image network whose weights the others start from.  Baselines are built from a `CnnConfig` as a TimeSformer
is from its configuration (`timesformer.config.registry`).  They take the same clips (b, frames, channels, height,
width) and are trained, evaluated and stored by the same code.
"""

from timesformer.config.cnn import BASELINES, CnnConfig
from timesformer.config.registry import register
from timesformer.models.cnn.counting import macs_per_view, stem_macs
from timesformer.models.cnn.networks import Cnn, SinglePath, SlowFast, build

__all__ = ["BASELINES", "Cnn", "CnnConfig", "SinglePath", "SlowFast", "build", "macs_per_view"]

register("baseline", CnnConfig, build, lambda config, kind: macs_per_view(config), stem_macs)
