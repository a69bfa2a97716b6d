"""3D convolutional networks to compare video transformers with: I3D and SlowFast with a ResNet's bottlenecks, and C2D,
the image network whose weights they start from.

They are built from a `CnnConfig` as a TimeSformer is from its own (`timesformer.config.registry`), take the same clips
(b, frames, channels, height, width), and are trained, evaluated and stored by the same code.
"""

from timesformer.config.cnn import BASELINES, CnnConfig
from timesformer.config.registry import register
from timesformer.models.cnn.counting import macs_per_view
from timesformer.models.cnn.networks import Cnn, SinglePath, SlowFast, build

__all__ = ["BASELINES", "Cnn", "CnnConfig", "SinglePath", "SlowFast", "build", "macs_per_view"]

register("baseline", CnnConfig, build, lambda config, kind: macs_per_view(config))
