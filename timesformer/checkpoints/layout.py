"""Tables of weight names and shapes: our own, and from ours to those of other TimeSformers."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from timesformer.checkpoints.source import Raw, UnexplainedTensors
from timesformer.config.registry import Model, ModelConfig, build_model
from timesformer.config.transformer import TimeSformerConfig


@lru_cache(maxsize=32)
def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the weights of `build_model(config)`, without making them."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build_model(config).state_dict().items()}


@dataclass(frozen=True)
class Layout:
    """The names that another implementation of TimeSformer gives to the same weights.

    top: our modules and parameters outside the blocks (those of encoder 0 without `encoders.0.`); block: modules of a
    block (`attention.…` for its step over space, or over space and time), below `blocks` and the block's number.
    """

    blocks: str
    top: dict[str, str]
    block: dict[str, str]

    def stored(self, name: str) -> str:
        """The stored name of one of our weights."""
        name = name.removeprefix("encoders.0.")
        if name in self.top:
            return self.top[name]
        module, kind = name.rsplit(".", 1)
        if not module.startswith("blocks."):
            return f"{self.top[module]}.{kind}"
        _, number, part = module.split(".", 2)
        part = part.removeprefix("steps.")
        for step in ("space.", "joint."):
            part = f"attention.{part.removeprefix(step)}" if part.startswith(step) else part
        return f"{self.blocks}.{number}.{self.block[part]}.{kind}"

    def read(self, raw: Raw, tensors: dict[str, Tensor], config: TimeSformerConfig, name: str) -> dict[str, Tensor]:
        """The tensors by our names and in our shapes, as far as they are there.

        Raises:
            UnexplainedTensors: tensors that a model of this configuration does not have.
        """
        table = {ours: self.stored(ours) for ours in shapes(config)}
        extra = set(tensors) - set(table.values())
        if extra:
            raise UnexplainedTensors(raw.path, name, extra)
        return {ours: _to_ours(ours, tensors[stored]) for ours, stored in table.items() if stored in tensors}

    def write(self, model: Model) -> dict[str, Tensor]:
        """The inverse: a model's weights by stored names and in stored shapes."""
        c, p = model.config.in_channels, model.config.patch_size
        state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
        return {self.stored(name): _to_theirs(name, value, c, p).contiguous() for name, value in state.items()}


def _to_ours(name: str, value: Tensor) -> Tensor:
    """Our patch embedding is a linear over flattened patches; our class token and positions have no batch axis."""
    if name == "patch_embed.proj.weight":
        return value.flatten(1)
    if name.endswith(".cls_token") and value.ndim == 3:
        return value[0, 0]
    return value[0] if ".positions." in name and value.ndim == 3 else value


def _to_theirs(name: str, value: Tensor, channels: int, patch: int) -> Tensor:
    if name == "patch_embed.proj.weight":
        return value.view(-1, channels, patch, patch)
    if name.endswith(".cls_token"):
        return value[None, None]
    return value[None] if ".positions." in name else value
