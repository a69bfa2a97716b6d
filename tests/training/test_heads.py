"""Several heads: configuration, loss, training, evaluation, saving."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.training.training_fakes import FakeDataset, FakeModel
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.checkpoints import load_model, save_model, transfer
from timesformer.config.counting import macs_per_view
from timesformer.data import Views
from timesformer.errors import InputError
from timesformer.evaluation.evaluate import evaluate, merge_views
from timesformer.heads import (
    are_named,
    check_labels,
    cross_entropy,
    default_labels,
    head_names,
    heads_of,
    is_right,
    match_classes,
    predict,
)
from timesformer.intervals import wilson_interval
from timesformer.training.loop import fit
from timesformer.training.recipe import Recipe

SMALL = TimeSformerConfig(
    attention="joint", num_frames=2, image_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=(6, 3)
)


class Heads(FakeModel):
    """The fake model with a configuration of two heads."""

    def __init__(self, heads=(3, 2)):
        super().__init__(sum(heads))
        self.config = replace(SMALL, num_classes=heads)


class Pairs(FakeDataset):
    """Labels (brightness, index parity)."""

    heads = ("verb", "noun")

    def __getitem__(self, key):
        item = super().__getitem__(key)
        return item | {"label": (item["label"], item["index"] % 2)}


class Given(nn.Module):
    """Logits read from the clip's first pixels."""

    def __init__(self, heads):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.config = replace(SMALL, num_classes=heads)

    def forward(self, clip):
        return self.scale * clip.flatten(1)[:, : sum(self.config.heads)]


def test_configuration():
    assert SMALL.heads == (6, 3)
    assert TimeSformerConfig.from_dict(SMALL.to_dict()) == SMALL
    assert SMALL.to_dict()["num_classes"] == [6, 3]
    single = replace(SMALL, num_classes=[7])
    assert (single.num_classes, single.heads) == (7, (7,))
    assert TimeSformer(SMALL)(torch.zeros(1, 2, 3, 16, 16)).shape == (1, 9)
    assert macs_per_view(SMALL) == macs_per_view(replace(SMALL, num_classes=9))
    for bad in ((), (3, 0), (3, "4"), (True, 2), 0, "3"):
        with pytest.raises(InputError, match="num_classes: expected a positive integer"):
            replace(SMALL, num_classes=bad)


def test_a_single_head_is_plain_cross_entropy():
    logits, label = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
    assert torch.equal(cross_entropy(logits, label, smoothing=0.1), F.cross_entropy(logits, label, label_smoothing=0.1))
    assert torch.equal(predict(logits), logits.argmax(1))
    assert torch.equal(is_right(predict(logits), label), logits.argmax(1) == label)
    assert heads_of(FakeModel()) == heads_of(TimeSformer(replace(SMALL, num_classes=4))) == ()
    assert heads_of(TimeSformer(SMALL)) == (6, 3)


def test_the_loss_is_the_sum_of_the_heads():
    logits, label = torch.randn(5, 9), torch.stack([torch.arange(5), torch.tensor([2, 0, 1, 1, 0])], 1)
    parts = [
        F.cross_entropy(logits[:, :6], label[:, 0], label_smoothing=0.1),
        F.cross_entropy(logits[:, 6:], label[:, 1], label_smoothing=0.1),
    ]
    torch.testing.assert_close(cross_entropy(logits, label, (6, 3), 0.1), parts[0] + parts[1])
    prediction = predict(logits, (6, 3))
    assert torch.equal(prediction, torch.stack([logits[:, :6].argmax(1), logits[:, 6:].argmax(1)], 1))
    assert is_right(torch.tensor([[1, 2], [1, 2]]), torch.tensor([[1, 2], [1, 0]])).tolist() == [True, False]
    with pytest.raises(InputError, match=r"labels: expected 2 for each video, one for each head, got 1"):
        cross_entropy(logits, label[:, 0], (6, 3))
    with pytest.raises(InputError, match="labels: expected 1 for each video, one for each head, got 2"):
        cross_entropy(logits, label)


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_training_learns_both_heads(tmp_path, mixup):
    model = Heads()
    recipe = Recipe(steps=30, batch_size=8, lr=0.03, label_smoothing=0.1, mixup_alpha=mixup)
    result = fit(model, Pairs(), recipe, tmp_path, progress=False)
    assert result.losses[-1] < result.losses[0]
    metrics = evaluate(model, Pairs(train=False), "clip").metrics()
    assert metrics["verb_top1_percent"] > 60
    assert metrics["action_top1_percent"] == metrics["top1_percent"] <= metrics["verb_top1_percent"]


class Known(Pairs):
    """Three videos of two views with logits for heads of 6 and 3 classes."""

    def __init__(self, labels, **kwargs):
        super().__init__(len(labels), train=False, views=Views(1, 3))
        self.labels = labels

    def __getitem__(self, key):
        verb = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
        noun = torch.tensor([0.0, 1.0, 0.0])
        clip = torch.zeros(3, 2, 3, 4, 4)
        clip.view(3, -1)[:, :9] = torch.cat([verb, noun])
        return {"clip": clip, "label": self.labels[key], "index": key}


def test_evaluation_reports_each_head_and_the_action():
    labels = [(0, 1), (0, 0), (3, 1), (5, 1)]
    result = evaluate(Given((6, 3)), Known(labels), "paper")
    metrics = result.metrics()
    assert metrics["verb_top1_percent"] == 50.0
    assert metrics["verb_top5_percent"] == 75.0
    assert metrics["noun_top1_percent"] == 75.0
    assert metrics["noun_top5_percent"] is None
    assert metrics["action_top1_percent"] == metrics["top1_percent"] == 25.0
    assert result.top1_interval == wilson_interval(1, 4)
    assert metrics["top5_percent"] is None
    table = result.per_video
    assert table.label.tolist() == [list(label) for label in labels]
    assert table.prediction.tolist() == [[0, 1]] * 4
    scores = torch.tensor(table.scores.tolist())
    torch.testing.assert_close(scores[:, :6].sum(1), torch.ones(4))  # each head has its own softmax
    torch.testing.assert_close(scores[:, 6:].sum(1), torch.ones(4))


def test_heads_without_names_and_wrong_labels():
    data = Known([(0, 1)])
    data.heads = ()
    assert "head1_top1_percent" in evaluate(Given((6, 3)), data, "paper").metrics()
    with pytest.raises(InputError, match=r"labels: expected 3 for each video, one for each head, got 2"):
        evaluate(Given((4, 3, 2)), data, "paper")
    with pytest.raises(InputError, match=r"0\.mp4: label 4 is out of range, expected 0 to 2"):
        evaluate(Given((6, 3)), Known([(0, 4)]), "paper")
    with pytest.raises(InputError, match="labels: expected 2 for each video, one for each head, got 1"):
        evaluate(Given((6, 3)), Known([2]), "paper")
    with pytest.raises(InputError, match=r"heads: expected 2 names, as many as the model has heads, got \['verb'\]"):
        head_names((6, 3), ["verb"])


def test_each_head_is_merged_by_itself():
    logits = torch.randn(2, 3, 9)
    for merge in ("mean_softmax", "sum_logits", "mean_logits"):
        expected = [merge_views(logits[..., :6], merge), merge_views(logits[..., 6:], merge)]
        assert torch.equal(merge_views(logits, merge, (6, 3)), torch.cat(expected, -1))


def test_saving_and_loading(tmp_path):
    model = TimeSformer(SMALL)
    names = {"verb": [f"v{i}" for i in range(6)], "noun": ["x", "y", "z"]}
    save_model(tmp_path / "named", model, labels=names)
    loaded = load_model(tmp_path / "named")
    assert loaded.model.config == SMALL
    assert loaded.labels == names
    assert list(loaded.labels) == ["verb", "noun"]
    assert all(torch.equal(value, loaded.model.state_dict()[name]) for name, value in model.state_dict().items())
    save_model(tmp_path / "plain", model)
    assert load_model(tmp_path / "plain").labels["head1"] == ["class 0", "class 1", "class 2"]
    with pytest.raises(InputError, match=r"expected \(6, 3\) names, one for each class of each head, got \(6, 2\)"):
        save_model(tmp_path / "bad", model, labels=names | {"noun": ["x", "y"]})


def test_heads_of_another_division_do_not_pass_their_weights_on(tmp_path):
    save_model(tmp_path, TimeSformer(SMALL))
    same, other = TimeSformer(SMALL), TimeSformer(replace(SMALL, num_classes=(3, 6)))
    assert "head.weight" in transfer(same, tmp_path).copied
    assert "head.weight" in transfer(other, tmp_path).initialised


def test_label_names():
    assert default_labels((2,)) == ["class 0", "class 1"]
    assert default_labels((1, 2), ("verb", "noun")) == {"verb": ["class 0"], "noun": ["class 0", "class 1"]}
    assert check_labels([["a"], ["b", "c"]], (1, 2)) == {"head0": ["a"], "head1": ["b", "c"]}
    for labels, heads, said in (
        (["a"], (2,), "expected 2 names, one for each class, got 1"),
        ({"a": ["b"]}, (1,), "expected 1 names, one for each class, got several heads"),
        (["a", "b"], (1, 1), "expected the names of 2 heads, got 2 names"),
        ([["a"]], (1, 1), "expected the names of 2 heads, got 1 names"),
    ):
        with pytest.raises(InputError, match=said):
            check_labels(labels, heads)


def test_classes_are_matched_by_name() -> None:
    assert match_classes(["a", "b"], ["a", "b"]).order == [0, 1]
    swapped = match_classes(["b", "a", "c"], ["a", "b", "c"])
    assert (swapped.order, swapped.is_permuted, swapped.said) == ([1, 0, 2], True, "the same classes in another order")
    other = match_classes(["a", "b"], ["a", "c", "d"])
    assert (other.order, other.said) == (
        None,
        "2 classes here, 3 there; only here: 'b'; only there: 'c', 'd'",
    )
    assert match_classes(["a", "b", "b"], ["b", "a", "b"]).said == "3 classes here, 3 there; a name occurs twice"
    assert match_classes(["a", "a"], ["a", "a"]).order == [0, 1]


def test_classes_of_several_heads_are_matched_head_by_head() -> None:
    ours = {"verb": ["put", "take"], "noun": ["cup", "knife", "pan"]}
    assert match_classes(ours, {"noun": ["pan", "cup", "knife"], "verb": ["take", "put"]}).order == [4, 3, 1, 2, 0]
    assert match_classes(ours, {"head0": ["take", "put"], "head1": ["cup", "knife", "pan"]}).order == [1, 0, 2, 3, 4]
    assert match_classes(ours, ["put"]).said == "2 heads here, one head there"
    wrong = match_classes(ours, ours | {"noun": ["cup", "knife", "fork"]})
    assert wrong.said == "noun: 3 classes here, 3 there; only here: 'pan'; only there: 'fork'"


def test_classes_without_names_are_not_matched() -> None:
    unnamed = default_labels((2,))
    assert match_classes(unnamed, ["a", "b"]).said == "these classes have no names"
    assert match_classes(["a", "b"], None).said == "those classes have no names"
    assert match_classes(unnamed, unnamed).said == "these and those classes have no names"
    assert not are_named(default_labels((2, 3)))
    assert are_named(default_labels((2, 3)) | {"head1": ["a", "b", "c"]})  # type: ignore[operator]
