"""Protocols, merging, intervals, and what is kept of every video."""

import math
import pickle

import pytest
import torch
from torch import nn

from tests.training.training_fakes import FakeDataset, FakeModel, Fixed
from timesformer.data import Unreadable, VideoError, Views, collate
from timesformer.errors import InputError
from timesformer.evaluation.evaluate import (
    PROTOCOLS,
    Protocol,
    UnreadableVideos,
    _scores,
    evaluate,
    merge_views,
    protocol_named,
    validation,
    wilson_interval,
)


class Given(FakeDataset):
    """Videos whose views hold the given logits (videos, views, classes)."""

    def __init__(self, logits, labels, views, unreadable=()):
        super().__init__(len(labels), 2, train=False, views=views, unreadable=unreadable)
        self.samples = [type(s)(s.path, label, s.name) for s, label in zip(self.samples, labels, strict=True)]
        self.logits = torch.as_tensor(logits)

    def __getitem__(self, key):
        item = super().__getitem__(key)
        if isinstance(item, dict):
            views, classes = self.logits.shape[1:]
            item["clip"] = torch.zeros(views, 2, 3, 4, 4)
            item["clip"].view(views, -1)[:, :classes] = self.logits[key]
        return item


# Two views are mildly for class 1, one is strongly for class 0: the mean of the softmax and the sum of logits differ.
SPLIT = [[[9.0, 0.0], [0.0, 2.0], [0.0, 2.0]]]


@pytest.mark.parametrize(("protocol", "prediction"), [("paper", 1), ("mmaction2", 1), ("fair-code", 0)])
def test_protocols_merge_in_their_own_way(protocol, prediction):
    data = Given(SPLIT, [1], PROTOCOLS[protocol].views)
    result = evaluate(Fixed(2), data, protocol)
    assert result.per_video.prediction.tolist() == [prediction]
    assert (result.protocol, result.merge) == (protocol, PROTOCOLS[protocol].merge)
    assert result.top1_percent == 100.0 * prediction


def test_protocols_take_their_views():
    assert PROTOCOLS["paper"].views == Views(1, 3, "middle")
    assert PROTOCOLS["fair-code"].views == Views(1, 3, "first", "fair")
    assert PROTOCOLS["mmaction2"].views == Views(1, 3, "middle", "mmaction2")
    assert PROTOCOLS["clip"].views == Views(1, 1, "middle")
    data = FakeDataset(train=False, views=Views(1, 1))
    with pytest.raises(InputError, match=r"protocol paper: expected a dataset with Views\(clips=1, crops=3"):
        evaluate(FakeModel(), data, "paper")
    with pytest.raises(InputError, match="protocol clip: expected a dataset in test mode"):
        evaluate(FakeModel(), FakeDataset(), "clip")
    with pytest.raises(InputError, match="unknown name 'best'; expected one of paper, fair-code, mmaction2, clip"):
        evaluate(FakeModel(), data, "best")


def test_merging():
    logits = torch.tensor(SPLIT)
    torch.testing.assert_close(merge_views(logits, "sum_logits"), torch.tensor([[9.0, 4.0]]))
    torch.testing.assert_close(merge_views(logits, "mean_logits"), torch.tensor([[3.0, 4 / 3]]))
    second = (2 / (1 + math.exp(-2)) + 1 / (1 + math.exp(9))) / 3
    torch.testing.assert_close(merge_views(logits, "mean_softmax"), torch.tensor([[1 - second, second]]))


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (1, 1), (3, 7), (50, 100), (200, 200), (0, 50), (399, 400)])
def test_a_share_at_an_end_of_wilsons_interval_is_just_consistent_with_what_was_counted(hits, count):
    low, high = (end / 100 for end in wilson_interval(hits, count))
    for end, is_end_of_scale in ((low, hits == 0), (high, hits == count)):
        if is_end_of_scale:
            assert end == hits / count
        else:
            assert abs(hits / count - end) == pytest.approx(1.959963984540054 * math.sqrt(end * (1 - end) / count))
    assert 0 <= low <= hits / count <= high <= 1


def test_nothing_counted_says_nothing():
    assert wilson_interval(0, 0) == (0.0, 100.0)


def test_top5_and_what_is_kept():
    logits = torch.zeros(4, 1, 7)
    ranks = [0, 3, 4, 5]  # the place of the true class: three of four are among the first five
    labels = [2, 0, 6, 1]
    for video, (rank, label) in enumerate(zip(ranks, labels, strict=True)):
        order = [c for c in range(7) if c != label]
        order.insert(rank, label)
        for place, c in enumerate(order):
            logits[video, 0, c] = 7.0 - place
    result = evaluate(Fixed(7), Given(logits, labels, Views()), "clip", batch_size=3)
    assert (result.top1_percent, result.top5_percent, result.num_videos) == (25.0, 75.0, 4)
    assert result.top5_interval == wilson_interval(3, 4)
    table = result.per_video
    assert list(table.columns) == ["index", "path", "label", "prediction", "scores"]
    assert table.path.tolist() == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    assert table.label.tolist() == labels
    torch.testing.assert_close(torch.tensor(table.scores.tolist()), logits[:, 0].softmax(-1))
    metrics = result.metrics()
    assert metrics["top1_percent"] == 25.0
    assert (metrics["top1_low_percent"], metrics["top1_high_percent"]) == wilson_interval(1, 4)
    assert metrics["test_videos"] == 4


def test_top5_means_nothing_below_five_classes():
    result = evaluate(Fixed(2), Given(SPLIT, [1], Views(1, 3)), "paper")
    assert result.top5_percent is None
    assert result.top5_interval is None
    assert result.metrics()["top5_low_percent"] is None


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_videos(workers):
    error = VideoError("/nowhere/1.mp4", "cut off")
    with pytest.raises(VideoError, match="cut off"):
        evaluate(FakeModel(), FakeDataset(train=False, unreadable=[1], error=error), "clip", workers=workers)
    result = evaluate(FakeModel(), FakeDataset(train=False, unreadable=[1]), "clip", workers=workers)
    assert result.num_videos == 23 == len(result.per_video)
    assert result.unreadable == [("/nowhere/1.mp4", "cut off")]
    assert 1 not in result.per_video["index"].tolist()
    with pytest.raises(InputError, match="none of its 24 videos can be read"):
        evaluate(FakeModel(), FakeDataset(train=False, unreadable=range(24)), "clip", batch_size=1)


def test_scores_must_be_finite_and_labels_in_range():
    broken = torch.zeros(2, 1, 2)
    broken[1, 0, 0] = torch.nan
    with pytest.raises(ArithmeticError, match=r"1\.mp4: the model's scores are not finite"):
        evaluate(Fixed(2), Given(broken, [0, 1], Views()), "clip")
    with pytest.raises(InputError, match=r"1\.mp4: label 2 is out of range, expected 0 to 1"):
        evaluate(Fixed(2), Given(torch.zeros(2, 1, 2), [0, 2], Views()), "clip")


def test_the_mode_of_the_model_comes_back_and_dropout_is_off():
    model = nn.Sequential(FakeModel(dropout=0.5))
    model.train()
    first, second = (evaluate(model, FakeDataset(train=False), "clip") for _ in range(2))
    assert model.training
    assert first.per_video.equals(second.per_video)


def test_bf16_and_validation():
    data = FakeDataset(train=False)
    fp32, bf16 = (evaluate(FakeModel(), data, "clip", precision=p).per_video.scores for p in ("fp32", "bf16"))
    torch.testing.assert_close(torch.tensor(bf16.tolist()), torch.tensor(fp32.tolist()), rtol=0, atol=0.02)
    assert not fp32.equals(bf16)
    assert validation(data, "clip")(FakeModel())["test_videos"] == 24


def test_protocols_by_clips_and_crops():
    assert protocol_named("10x3") == Protocol("10x3", Views(10, 3), "mean_softmax")
    assert protocol_named("coverx1").views == Views("cover", 1)
    changed = protocol_named("fair-code", clips=4, crops=1, merge="mean_logits")
    assert changed == Protocol("fair-code 4x1 mean_logits", Views(4, 1, "first", "fair"), "mean_logits")
    assert protocol_named("paper", crops=3, merge="mean_softmax") == PROTOCOLS["paper"]
    assert protocol_named("paper", clips="cover").name == "paper coverx3"
    for name, options, said in (
        ("10x", {}, "unknown name '10x'"),
        ("0x3", {}, "clips must be at least 1"),
        ("paper", {"clips": "many"}, "clips: expected a number or \"cover\", got 'many'"),
        ("paper", {"merge": "max"}, "merge: expected one of mean_softmax, sum_logits, mean_logits, got 'max'"),
    ):
        with pytest.raises(InputError, match=said):
            protocol_named(name, **options)


class Long(FakeDataset):
    """Videos of 1, 2, 3, 1, … clips, each view with logits of its own."""

    def __init__(self, logits, unreadable=()):
        super().__init__(len(logits), 2, train=False, views=Views("cover", 1), unreadable=unreadable)
        self.logits = logits

    def __getitem__(self, key):
        if key in self.unreadable:
            return Unreadable(self.samples[key].path, "cut off", key)
        logits = self.logits[key]
        clip = torch.zeros(len(logits), 2, 3, 4, 4)
        clip.view(len(logits), -1)[:, : logits.shape[1]] = logits
        return {"clip": clip, "label": self.samples[key].label, "index": key, "views": len(logits)}


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize("merge", ["mean_softmax", "sum_logits", "mean_logits"])
def test_videos_with_different_numbers_of_views(batch_size, merge):
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(1 + i % 3, 4, generator=generator) for i in range(7)]
    result = evaluate(Fixed(4), Long(logits), protocol_named("coverx1", merge=merge), batch_size)
    expected = torch.cat([merge_views(views[None], merge) for views in logits])
    torch.testing.assert_close(torch.tensor(result.per_video.scores.tolist()), expected)
    assert (result.num_videos, result.num_views) == (7, sum(map(len, logits)))


def test_a_batch_of_several_long_videos():
    """A loader may give several at a time; then each keeps its own views."""
    logits = [torch.eye(3)[[0, 1]], torch.eye(3)[[2]]]
    batch = collate([Long(logits)[0], Long(logits)[1]])
    assert batch["clip"].shape[0] == 3
    found = _scores(Fixed(3), batch["clip"], batch["views"].tolist(), "sum_logits", torch.device("cpu"), "fp32", 2)
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))


def test_results_state_protocol_views_merge_and_counts():
    result = evaluate(FakeModel(), FakeDataset(train=False, unreadable=[1, 2]), "clip")
    assert result.statement() == {
        "protocol": "clip",
        "clips": 1,
        "crops": 1,
        "start": "middle",
        "rule": "symmetric",
        "merge": "mean_softmax",
        "videos": 22,
        "videos_unreadable": 2,
        "videos_substituted": 0,
        "views": 22,
        "frame_order": "normal",
    }
    assert result.metrics()["test_videos_substituted"] == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_refusing_names_every_unreadable_video(workers):
    class Counting(FakeModel):
        calls = 0

        def forward(self, clip):
            Counting.calls += 1
            return super().forward(clip)

    data = FakeDataset(train=False, unreadable=[1, 20])
    with pytest.raises(UnreadableVideos) as caught:
        evaluate(Counting(), data, "clip", batch_size=1, workers=workers, refuse_unreadable=True)
    assert str(caught.value).splitlines() == [
        "2 of 24 videos cannot be read:",
        "  /nowhere/1.mp4: cut off",
        "  /nowhere/20.mp4: cut off",
    ]
    assert Counting.calls == 1  # what came before the first of them
    assert pickle.loads(pickle.dumps(caught.value)).videos == caught.value.videos
    whole = FakeDataset(train=False)
    assert evaluate(FakeModel(), whole, "clip", refuse_unreadable=True).num_videos == 24


def test_batch_size_bounds_what_the_model_is_given():
    class Watching(Fixed):
        largest = 0

        def forward(self, clip):
            self.largest = max(self.largest, len(clip))
            return super().forward(clip)

    model = Watching(2)
    data = Given(torch.zeros(4, 6, 2), [0, 1, 0, 1], Views(2, 3))
    evaluate(model, data, "2x3", batch_size=4)
    assert model.largest == 4
    with pytest.raises(InputError, match="batch_size: expected at least 1, got 0"):
        evaluate(model, data, "2x3", batch_size=0)
