"""Memory of mmaction2's TimeSformer, derived from the structure of its layers, compared with its published figures.

The code was written for this purpose and contains only operations that allocate memory. The sequence is one tensor with
the class token first, split and concatenated again in every step. Attention is torch's multi-head attention, computed
explicitly: q, k and v are copied into heads, the mean of the probabilities over the heads is also computed, and the
softmax keeps its input. In the training loop, gradients are zeroed rather than released, and distributed data parallel
holds a copy of them in buckets.
Source: open-mmlab/mmaction2, mmaction/models/backbones/timesformer.py and models/common/transformer.py;
open-mmlab/mmcv, cnn/bricks/transformer.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timesformer import TimeSformerConfig
from timesformer_experiments.cost.memory import Workload, candidates, deepen, highest, kept_bytes, trace, traced
from timesformer_experiments.cost.memory_trace import KeepingSoftmax, Split
from timesformer_experiments.report.published import published

WIDTH, HEADS, DEPTH, FRAMES, PIXELS, PATCH, CLASSES = 768, 12, 12, 8, 224, 16, 400
DROP_PATH = 0.1


def drop_path(x: Tensor, rate: float) -> Tensor:
    """Drop the output of whole samples with probability `rate` (stochastic depth)."""
    if rate == 0:
        return x
    keep = 1 - rate
    mask = keep + torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), dtype=x.dtype, device=x.device)
    return x.div(keep) * mask.floor_()


class WrittenOut(nn.Module):
    """Multi-head attention over (tokens, b, d) with explicit softmax, which returns the output and mean weights."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj = nn.Parameter(torch.empty(3 * WIDTH, WIDTH))
        self.in_bias = nn.Parameter(torch.empty(3 * WIDTH))
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = F.linear(x, self.in_proj, self.in_bias).chunk(3, dim=-1)
        tokens, clips, _ = x.shape
        q = q * (WIDTH // HEADS) ** -0.5
        q, k, v = (y.contiguous().view(tokens, clips * HEADS, -1).transpose(0, 1) for y in (q, k, v))
        weights = KeepingSoftmax.apply(torch.bmm(q, k.transpose(1, 2)))
        out = torch.bmm(weights, v).transpose(0, 1).contiguous().view(tokens, clips, WIDTH)
        return self.out_proj(out), weights.view(clips, HEADS, tokens, tokens).sum(1) / HEADS


class Time(nn.Module):
    """Temporal step of divided attention with the extra linear layer."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.norm, self.attention, self.fc = nn.LayerNorm(WIDTH), WrittenOut(), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        cls, patches = x[:, :1], x[:, 1:]
        grouped = self.norm(patches.reshape(-1, FRAMES, WIDTH)).permute(1, 0, 2)
        out = drop_path(self.attention(grouped)[0].permute(1, 0, 2).contiguous(), self.rate)
        out = self.fc(out).reshape(patches.shape)
        return torch.cat((cls, patches + out), 1)


class Space(nn.Module):
    """Spatial step of divided attention, with a copy of the class token in each frame."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.norm, self.attention = nn.LayerNorm(WIDTH), WrittenOut()

    def forward(self, x: Tensor) -> Tensor:
        clips = len(x)
        cls = x[:, :1].repeat(1, FRAMES, 1).reshape(clips * FRAMES, 1, WIDTH)
        frames = x[:, 1:].unflatten(1, (-1, FRAMES)).transpose(1, 2).flatten(0, 1)
        grouped = self.norm(torch.cat((cls, frames), 1)).permute(1, 0, 2)
        out = drop_path(self.attention(grouped)[0].permute(1, 0, 2).contiguous(), self.rate)
        cls = out[:, 0].reshape(clips, FRAMES, WIDTH).mean(1, keepdim=True)
        patches = out[:, 1:].unflatten(0, (clips, FRAMES)).transpose(1, 2).flatten(1, 2)
        return x + torch.cat((cls, patches), 1)


class Whole(nn.Module):
    """Attention over the whole sequence: the clip (joint) or the frame (space)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.norm, self.attention = nn.LayerNorm(WIDTH), WrittenOut()

    def forward(self, x: Tensor) -> Tensor:
        return x + drop_path(self.attention(self.norm(x).transpose(0, 1))[0].transpose(0, 1), self.rate)


class FeedForward(nn.Module):
    """MLP with its norm."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.norm = nn.LayerNorm(WIDTH)
        self.layers = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x + drop_path(self.layers(self.norm(x)), self.rate)


class Mmaction2(nn.Module):
    """Memory model of mmaction2's ViT-B, 8 frames of 224 pixels, 400 classes; `attention`: space, joint or divided."""

    def __init__(self, attention: str, depth: int = DEPTH) -> None:
        super().__init__()
        self.space_only = attention == "space"
        patches = (PIXELS // PATCH) ** 2
        self.embed = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
        self.cls_token = nn.Parameter(torch.empty(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.empty(1, patches + 1, WIDTH))
        self.times = None if self.space_only else nn.Parameter(torch.empty(1, FRAMES, WIDTH))
        self.blocks = nn.ModuleList()
        for index in range(depth):
            rate = DROP_PATH * index / max(1, depth - 1)
            steps = [Time(rate), Space(rate)] if attention == "divided" else [Whole(rate)]
            self.blocks.append(nn.Sequential(*steps, FeedForward(rate)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, clips: Tensor) -> Tensor:
        count = len(clips)
        x = self.embed(clips.flatten(0, 1)).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1) + self.positions
        if self.times is not None:
            cls, patches = x[:count, :1], x[:, 1:].unflatten(0, (count, FRAMES)).transpose(1, 2).flatten(0, 1)
            x = torch.cat((cls, (patches + self.times).unflatten(0, (count, -1)).flatten(1, 2)), 1)
        for block in self.blocks:
            x = block(x)
        if self.space_only:
            x = x.unflatten(0, (count, FRAMES)).mean(1)
        logits: Tensor = self.head(self.norm(x)[:, 0])
        return logits


def structure(attention: str, clips: int) -> tuple[Split, int, int]:
    """Return the memory that a block keeps for its backward pass, the model's peak and its weights, in bytes."""
    step = Workload(TimeSformerConfig(), clips, train=True, device="cuda")
    with torch.device("meta"):
        model = Mmaction2(attention, depth=3)
    stacks = [list(model.blocks)]
    phases = trace(model, stacks, (clips, FRAMES, 3, PIXELS, PIXELS), step, gradients_stay=True)
    peak = highest(deepen(phases, stacks, [DEPTH - 3], step, gradients_stay=True), step.how)
    buckets = peak.params_bytes
    return kept_bytes(phases, 0, 1), peak.peak_bytes + buckets, peak.params_bytes


def rows() -> Iterator[dict[str, Any]]:
    """Yield for each published figure our peak at the same batch, that of the structure above, and the remainder.

    `kept`: memory that a block keeps for its backward pass. `left_copies`: remainder per attention step and block, in
    units of a copy of the tokens.
    """
    for point in published("memory", "mmaction2").rows:
        attention, clips = point["attention"], point["clips_per_card"]
        config = TimeSformerConfig(attention=attention, backend="reference", drop_path_rate=DROP_PATH)
        step = Workload(config, clips, train=True, device="cuda")
        kept, peak, weights = structure(attention, clips)
        left = point["train_peak_mib"] * 2**20 - peak
        tokens = clips * FRAMES * (PIXELS // PATCH) ** 2 * WIDTH * 4
        steps = DEPTH * (2 if attention == "divided" else 1)
        yield {
            "attention": attention,
            "clips": clips,
            "predicted_ours_mib": highest(candidates(step), step.how).peak_bytes / 2**20,
            "predicted_structure_mib": peak / 2**20,
            "published_peak_mib": point["train_peak_mib"],
            "predicted_ours_kept_mib": sum(kept_bytes(traced(step)[0], 0, 1).values()) / 2**20,
            "predicted_structure_kept_mib": sum(kept.values()) / 2**20,
            "predicted_gradient_copies_mib": 2 * weights / 2**20,
            "predicted_left_mib": left / 2**20,
            "predicted_left_copies": left / steps / tokens,
        }
