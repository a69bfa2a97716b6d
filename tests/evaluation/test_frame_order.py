"""Frames of clips rearranged at test time, under every kind of views and in workers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import Dataset

from timesformer import InputError
from timesformer.data import Sample, Views
from timesformer.evaluation.evaluate import Protocol, evaluate
from timesformer.evaluation.frame_order import (
    FRAME_ORDERS,
    FrameOrder,
    frame_indices,
    one_frame_share_percent,
    order_named,
    rearranged,
)

FRAMES = 6


@pytest.mark.parametrize(
    ("order", "frames", "expected"),
    [
        ("normal", 5, [0, 1, 2, 3, 4]),
        ("reversed", 5, [4, 3, 2, 1, 0]),
        ("first", 5, [0] * 5),
        ("middle", 5, [2] * 5),
        ("middle", 4, [2] * 4),
        ("repeated", 5, [0, 0, 2, 2, 4]),
        ("repeated", 4, [0, 0, 2, 2]),
        ("shuffled", 2, [1, 0]),
        ("shuffled", 1, [0]),
    ],
)
def test_orders_by_hand(order: FrameOrder, frames: int, expected: list[int]) -> None:
    assert frame_indices(order, frames, "a.mp4") == expected


@given(st.integers(2, 20), st.text(max_size=8), st.integers(0, 5))
def test_a_shuffle_is_a_permutation_of_its_video_and_seed(frames: int, video: str, seed: int) -> None:
    drawn = frame_indices("shuffled", frames, video, seed)
    assert sorted(drawn) == list(range(frames)) != drawn
    assert frame_indices("shuffled", frames, video, seed) == drawn


def test_videos_and_seeds_have_their_own_shuffle() -> None:
    drawn = {tuple(frame_indices("shuffled", 8, f"{n}.mp4", seed)) for n in range(10) for seed in (0, 1)}
    assert len(drawn) > 15
    with pytest.raises(
        InputError, match="expected one of normal, reversed, shuffled, first, middle, repeated, got 'up'"
    ):
        order_named("up")


class Ramps(Dataset[Any]):
    """Video i has i + 1 clips if views vary, else two; the pixels of a frame are 10 · video + its place."""

    train, heads = False, ()

    def __init__(self, views: Views) -> None:
        self.views = views
        self.samples = [Sample(Path(f"/{n}.mp4"), 0, f"{n}.mp4") for n in range(3)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        views = self.views.per_video or index + 1
        clip = (10.0 * index + torch.arange(float(FRAMES)))[None, :, None, None, None].expand(views, FRAMES, 3, 1, 1)
        item = {"clip": clip.clone(), "label": 0, "index": index}
        return item if self.views.per_video else {**item, "views": views}


class Looking(nn.Module):
    """Keeps what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[Tensor] = []

    def forward(self, clip: Tensor) -> Tensor:
        self.seen += [each[:, 0, 0, 0] for each in clip]
        return torch.zeros(len(clip), 2) + self.weight


@pytest.mark.parametrize(
    ("order", "clips", "workers"),
    [*((order, clips, 0) for order in FRAME_ORDERS for clips in (2, "cover")), ("shuffled", 2, 1)],
)
def test_every_view_of_every_video_is_rearranged(order: FrameOrder, clips: Any, workers: int) -> None:
    model, views = Looking(), Views(clips)
    result = evaluate(
        model, Ramps(views), Protocol("own", views, "mean_softmax"), 4, workers=workers, frame_order=order, order_seed=3
    )
    counts = [2, 2, 2] if clips == 2 else [1, 2, 3]
    expected = [
        10 * video + place
        for video, count in enumerate(counts)
        for _ in range(count)
        for place in frame_indices(order, FRAMES, f"{video}.mp4", 3)
    ]
    assert torch.cat(model.seen).tolist() == expected
    stated = result.statement()
    assert stated["frame_order"] == order
    assert stated.get("order_seed") == (3 if order == "shuffled" else None)


def test_normal_order_copies_nothing() -> None:
    clips = torch.randn(2, 4, 3, 2, 2)
    assert rearranged(clips, [2], ["a.mp4"], "normal") is clips


@pytest.mark.parametrize(("normal", "middle", "share"), [(80.0, 20.0, 25.0), (0.0, 10.0, None), (50.0, 60.0, 120.0)])
def test_share_of_one_frame(normal: float, middle: float, share: float | None) -> None:
    assert one_frame_share_percent({"normal": normal, "middle": middle}) == share
