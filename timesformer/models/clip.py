"""Check of a model's input, so that a wrong clip is a named error and not one of a matrix product."""

import torch
from torch import Tensor

from timesformer.errors import InputError


def check_clip(clip: Tensor, channels: int, dtype: torch.dtype) -> None:
    """Require a clip (b, frames, channels, height, width) of floating-point numbers.

    dtype: that of the model's weights, in which the clip has to be, except under autocast.

    Raises:
        InputError: another number of axes or channels, or another kind of numbers; says what to do.
    """
    expected = f"clip: expected (clips, frames, {channels} channels, height, width)"
    if clip.dim() == 4:
        raise InputError(f"{expected}, got {tuple(clip.shape)}: a single clip needs an axis of clips, clip[None]")
    if clip.dim() != 5 or clip.shape[2] != channels:
        swapped = clip.dim() == 5 and clip.shape[1] == channels
        hint = ": channels come after frames, clip.transpose(1, 2)" if swapped else ""
        raise InputError(f"{expected}, got {tuple(clip.shape)}{hint}")
    if not clip.is_floating_point():
        raise InputError(
            "clip: expected floating-point numbers, normalised as the checkpoint's preprocessing says, got "
            f"{clip.dtype}: for pixels from 0 to 255 use timesformer.data.transforms.normalise(clip, preprocessing)"
        )
    if clip.dtype != dtype and not torch.is_autocast_enabled(clip.device.type):
        raise InputError(f"clip: expected {dtype} as the model's weights have, got {clip.dtype}: clip.to({dtype})")
