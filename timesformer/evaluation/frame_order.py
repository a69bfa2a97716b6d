"""Worth of the order and the number of frames to a model: it is tested with the frames of its clips rearranged.

Frames are rearranged within each clip, after sampling and cropping, so that every protocol keeps its views.  For clips
of t frames 0 … t - 1:

    normal     as sampled
    reversed   the last first
    shuffled   a permutation that is drawn for each video from a seed and the video's name, the same for all its views;
               never the order as sampled
    first      frame 0, t times
    middle     frame t // 2, t times
    repeated   every second frame, shown twice (0 0 2 2 …): the same time span with half as many different frames
"""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from timesformer._typing import Float
from timesformer.errors import InputError
from timesformer.seeding import derive_seed

FrameOrder = Literal["normal", "reversed", "shuffled", "first", "middle", "repeated"]
FRAME_ORDERS: tuple[FrameOrder, ...] = get_args(FrameOrder)


def order_named(name: str) -> FrameOrder:
    """The order of a name.  Raises InputError with the names there are."""
    for order in FRAME_ORDERS:
        if name == order:
            return order
    raise InputError(f"frame order: expected one of {', '.join(FRAME_ORDERS)}, got {name!r}")


def frame_indices(order: FrameOrder, frames: int, video: str, seed: int = 0) -> list[int]:
    """Index of the frame that stands at each place of a clip; video: its name in the annotation file."""
    if order == "first":
        return [0] * frames
    if order == "middle":
        return [frames // 2] * frames
    if order == "repeated":
        return [place // 2 * 2 for place in range(frames)]
    if order == "shuffled":
        return _shuffled(frames, video, seed)
    places = list(range(frames))
    return places[::-1] if order == "reversed" else places


def _shuffled(frames: int, video: str, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(derive_seed(seed, "frame order", video))
    drawn = list(range(frames))
    while frames > 1 and drawn == sorted(drawn):
        drawn = torch.randperm(frames, generator=generator).tolist()
    return drawn


def rearranged(
    clips: Float[Tensor, "views t c H W"],
    counts: Sequence[int],
    videos: Sequence[str],
    order: FrameOrder,
    seed: int = 0,
) -> Tensor:
    """The views of several videos, one video's after another's, with their frames in this order.

    counts: how many views each video has; videos: their names.
    """
    if order == "normal":
        return clips
    frames = clips.shape[1]
    rows = [
        frame_indices(order, frames, video, seed)
        for video, count in zip(videos, counts, strict=True)
        for _ in range(count)
    ]
    return clips[torch.arange(len(rows))[:, None], torch.tensor(rows)]


COMPARED: dict[str, tuple[FrameOrder, FrameOrder]] = {
    "order_sensitivity_points": ("normal", "shuffled"),
    "reversal_sensitivity_points": ("normal", "reversed"),
    "gain_from_frames_points": ("normal", "middle"),
    "gain_from_second_half_points": ("normal", "repeated"),
}
"""Differences of two orders' accuracies: what order is worth, which way time runs, all frames beyond the middle one,
all frames beyond every second one."""


def one_frame_share_percent(percent: Mapping[FrameOrder, float]) -> float | None:
    """The share of the accuracy that the middle frame alone gives; None where there is no accuracy.

    It may pass 100, and a share as large as chance over accuracy takes no frame at all.
    """
    return 100 * percent["middle"] / percent["normal"] if percent["normal"] else None
