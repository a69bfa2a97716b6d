"""Mixup: soft targets, keyed draws, the accuracy against the dominant label."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.training.training_fakes import FakeDataset, FakeModel
from timesformer.data.loading import SampleStream
from timesformer.errors import InputError
from timesformer.training.loop import fit
from timesformer.training.mixup import Mix, draw_mix
from timesformer.training.recipe import Recipe


def test_none_is_nothing():
    clip, label = torch.randn(4, 2), torch.arange(4)
    mix = draw_mix(0.0, 4, 1, 2)
    assert mix.clips(clip) is clip
    assert mix.dominant(label) is label
    assert mix.loss(lambda target: target.sum(), label) == 6


def test_draws_are_keyed_and_leave_the_global_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = draw_mix(0.3, 8, 5, 7), draw_mix(0.3, 8, 5, 7), draw_mix(0.3, 8, 5, 8)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.share == again.share != other.share
    assert first.partner is not None
    assert again.partner is not None
    assert torch.equal(first.partner, again.partner)
    assert sorted(first.partner.tolist()) == list(range(8))


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_shares_follow_the_beta_distribution(alpha):
    shares = np.array([draw_mix(alpha, 2, i).share for i in range(2000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.04)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_one_against_soft_targets(smoothing):
    """Mixed one-hot targets, of which a part is spread evenly over the classes."""
    torch.manual_seed(0)
    logits, label = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 3, 4, 3])
    mix = Mix(0.3, torch.tensor([1, 0, 3, 2]))
    one_hot = F.one_hot(label, 5).double()
    soft = 0.3 * one_hot + 0.7 * one_hot[[1, 0, 3, 2]]
    soft = (1 - smoothing) * soft + smoothing / 5
    expected = -(soft * logits.log_softmax(1)).sum(1).mean()
    found = mix.loss(lambda target: F.cross_entropy(logits, target, label_smoothing=smoothing), label)
    torch.testing.assert_close(found, expected)
    assert mix.dominant(label).tolist() == [3, 0, 3, 4]
    assert Mix(0.5, torch.tensor([1, 0, 3, 2])).dominant(label).tolist() == label.tolist()


def test_labels_of_several_heads_are_mixed_together():
    label = torch.tensor([[0, 9], [1, 8]])
    assert Mix(0.2, torch.tensor([1, 0])).dominant(label).tolist() == [[1, 8], [0, 9]]


def test_one_step_by_hand(tmp_path):
    model, by_hand, data = FakeModel(), FakeModel(), FakeDataset()
    recipe = Recipe(
        steps=1, batch_size=4, optimiser="sgd", lr=0.1, momentum=0.0, weight_decay=0.0, schedule="constant",
        mixup_alpha=0.8, label_smoothing=0.1, seed=2,
    )  # fmt: skip
    result = fit(model, data, recipe, tmp_path, progress=False)
    items = [data[key] for key in next(iter(SampleStream(24, 2, 4, 0, 1)))]
    mix = draw_mix(0.8, 4, 2, 0, 0)
    assert mix.partner is not None
    clip, label = torch.stack([item["clip"] for item in items]), torch.tensor([item["label"] for item in items])
    one_hot = F.one_hot(label, 3).float()
    logits = by_hand(mix.share * clip + (1 - mix.share) * clip[mix.partner])
    loss = F.cross_entropy(logits, mix.share * one_hot + (1 - mix.share) * one_hot[mix.partner], label_smoothing=0.1)
    loss.backward()
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad)
    assert result.losses[0] == pytest.approx(loss.item(), rel=1e-5)
    dominant = label if mix.share >= 0.5 else label[mix.partner]
    assert result.accuracies[0] == float((logits.argmax(1) == dominant).float().mean())


def test_it_learns(tmp_path):
    recipe = Recipe(steps=80, batch_size=12, lr=0.05, mixup_alpha=0.2, label_smoothing=0.1)
    model = FakeModel()
    fit(model, FakeDataset(), recipe, tmp_path, progress=False)
    data = FakeDataset()
    clips = torch.stack([data[0, i]["clip"] for i in range(24)])
    label = torch.tensor([sample.label for sample in data.samples])
    with torch.no_grad():
        assert (model(clips).argmax(1) == label).float().mean() > 0.9


def test_recipes_without_mixup_define_what_they_always_did():
    assert "mixup_alpha" not in Recipe(steps=1).defining()
    assert Recipe(steps=1).to_dict()["mixup_alpha"] == 0.0
    assert Recipe(steps=1, mixup_alpha=0.1).defining()["mixup_alpha"] == 0.1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mixup_alpha": -0.1}, "mixup_alpha: expected a number of at least 0, got -0.1"),
        ({"mixup_alpha": 0.1, "batch_size": 4, "accumulate": 4}, "mixup_alpha: mixup needs at least 2 clips"),
    ],
)
def test_impossible_recipes(fields, said):
    with pytest.raises(InputError, match=said):
        Recipe(steps=1, **fields)


def test_an_unreadable_part_is_mixed_among_the_rest(tmp_path):
    class Shapes(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.seen = FakeModel(), []

        def forward(self, clip):
            self.seen.append(len(clip))
            return self.inner(clip)

    model = Shapes()
    recipe = Recipe(steps=2, batch_size=12, mixup_alpha=1.0)
    result = fit(model, FakeDataset(unreadable=(3, 4)), recipe, tmp_path, progress=False)
    assert sum(model.seen) == 22
    assert len(result.unreadable) == 2
