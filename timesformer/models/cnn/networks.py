"""C2D, I3D and SlowFast.

Sources.  I3D with a ResNet-50 follows Wang et al., Non-local Neural Networks (arXiv 1711.07971): a stem of 5x7x7, a
maximum over pairs of frames after the first stage, 3x1x1 in the first stage and then in every second bottleneck.
SlowFast follows Feichtenhofer et al. (arXiv 1812.03982), table 1: lateral connections over time with stride alpha and
twice the fast pathway's channels.  They span 5 frames in the paper but 7 in the released 8x8 models, and 7 here: with 5
the model would not have its published 34.6 M parameters.

All networks end in a mean over the whole clip, dropout and one linear layer.
"""

from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from timesformer._typing import Float
from timesformer.config.cnn import CnnConfig
from timesformer.errors import InputError
from timesformer.models.clip import check_clip
from timesformer.models.cnn.residual import EXPANSION, ConvNorm, Pathway
from timesformer.models.depth import network_layers
from timesformer.models.on_videos import OnVideos

STEMS = {"c2d": 1, "i3d": 5}
TIMES = {"c2d": ((1,), (1,), (1,), (1,)), "i3d": ((3,), (3, 1), (3, 1), (1, 3))}
SLOW_TIMES, FAST_TIMES = ((1,), (1,), (3,), (3,)), ((3,), (3,), (3,), (3,))
LATERAL_FRAMES, LATERAL_WIDTH = 7, 2


class Cnn(OnVideos):
    """Base class of the baselines: clip in, logits (b, classes) out; the logits of several heads are concatenated."""

    def __init__(self, config: CnnConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.drop = nn.Dropout(config.drop_rate)
        self.head = nn.Linear(channels, sum(config.heads))
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.extras = {}

    def forward(self, clip: Float[Tensor, "b frames c height width"]) -> Float[Tensor, "b classes"]:
        logits: Tensor = self.head(self.drop(self.features(clip)))
        return logits

    def save_pretrained(self, folder: str | Path, **extras: Any) -> Path:
        """Write the model in our format; see `TimeSformer.save_pretrained`."""
        from timesformer.checkpoints import save_model

        return save_model(folder, self, **{**self.extras, **extras})

    def layers(self) -> list[list[str]]:
        """Return the names of the parameters by depth: stem, each bottleneck, and last the classifier.

        Bottlenecks of two pathways that stand beside each other have one depth, with the lateral connection before.
        """
        paths = [name for name in ("path", "slow", "fast") if hasattr(self, name)]
        blocks = []
        for stage, count in enumerate(self.config.blocks):
            for number in range(count):
                lateral = [f"lateral.{stage}."] if number == 0 else []
                blocks.append([*(f"{path}.stages.{stage}.blocks.{number}." for path in paths), *lateral])
        names = [name for name, _ in self.named_parameters()]
        return network_layers([f"{path}.stem." for path in paths], blocks, names)

    def _channels_first(self, clip: Tensor) -> Tensor:
        """Move the channels: (b, t, c, h, w) -> (b, c, t, h, w).

        Raises:
            InputError: another number of axes or channels, or another kind of numbers.
        """
        check_clip(clip, self.config.in_channels, self.head.weight.dtype)
        return rearrange(clip, "b t c h w -> b c t h w")


class SinglePath(Cnn):
    """C2D, which processes each frame separately, or I3D."""

    def __init__(self, config: CnnConfig) -> None:
        path = Pathway(config.in_channels, config.width, config.blocks, STEMS[config.baseline], TIMES[config.baseline])
        super().__init__(config, path.out_channels)
        self.path = path

    def features(self, clip: Float[Tensor, "b frames c height width"]) -> Float[Tensor, "b d"]:
        x = self.path.start(self._channels_first(clip))
        for number, stage in enumerate(self.path.stages):
            x = stage(x)
            if number == 0 and self.config.baseline == "i3d":
                if x.shape[2] < 2:
                    raise InputError(f"clip: frames: expected at least 2 for i3d, which halves them, got {x.shape[2]}")
                x = nn.functional.max_pool3d(x, (2, 1, 1))
        return x.mean((2, 3, 4))


class SlowFast(Cnn):
    """SlowFast: a wide slow pathway on every alpha-th frame and a narrow fast pathway on all frames.

    Before each stage the slow pathway receives the features of the fast one through a lateral connection.
    """

    def __init__(self, config: CnnConfig) -> None:
        thin = config.fast_width
        widths = [thin, *(EXPANSION * thin * 2**number for number in range(len(config.blocks) - 1))]
        extra = [LATERAL_WIDTH * width for width in widths]
        slow = Pathway(config.in_channels, config.width, config.blocks, 1, SLOW_TIMES, extra)
        fast = Pathway(config.in_channels, thin, config.blocks, 5, FAST_TIMES)
        super().__init__(config, slow.out_channels + fast.out_channels)
        self.slow, self.fast = slow, fast
        self.lateral = nn.ModuleList(
            ConvNorm(width, more, (LATERAL_FRAMES, 1, 1), (config.alpha, 1, 1))
            for width, more in zip(widths, extra, strict=True)
        )

    def features(self, clip: Float[Tensor, "b frames c height width"]) -> Float[Tensor, "b d"]:
        frames, alpha = self._channels_first(clip), self.config.alpha
        if frames.shape[2] % alpha:
            raise InputError(f"clip: frames: expected a multiple of alpha {alpha}, got {frames.shape[2]}")
        slow, fast = self.slow.start(frames[:, :, ::alpha]), self.fast.start(frames)
        for lateral, wide, thin in zip(self.lateral, self.slow.stages, self.fast.stages, strict=True):
            slow, fast = wide(torch.cat([slow, lateral(fast).relu()], 1)), thin(fast)
        return torch.cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], 1)


def build(config: CnnConfig) -> Cnn:
    """Build the network of a configuration."""
    return SlowFast(config) if config.baseline == "slowfast" else SinglePath(config)
