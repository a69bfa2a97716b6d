"""The training loop: it learns, keeps its books, and says what is wrong."""

import os
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.training.training_fakes import FakeDataset, FakeModel
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.data import VideoError
from timesformer.data.loading import SampleStream
from timesformer.errors import InputError
from timesformer.training import accelerating
from timesformer.training.loop import TrainingDiverged, fit
from timesformer.training.recipe import Recipe

RECIPE = Recipe(steps=60, batch_size=12, lr=0.05, checkpoint_every=25)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_it_learns(tmp_path):
    steps = []
    result = fit(FakeModel(), FakeDataset(), RECIPE, tmp_path, progress=lambda *args: steps.append(args))
    assert result.steps == len(result.losses) == len(result.accuracies) == 60
    assert result.train_top1_percent > 95
    assert result.train_loss < 0.5 < result.losses[0]
    assert [done for done, _, _ in steps] == [20, 25, 40, 50, 60]
    assert {total for _, total, _ in steps} == {60}
    assert steps[0][2] == pytest.approx(sum(result.losses[:20]) / 20, rel=1e-5)
    assert result.clips_per_second == pytest.approx(720 / result.seconds)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_accumulation_equals_one_batch(tmp_path, optimiser):
    models = [FakeModel(), FakeModel()]
    for model, parts in zip(models, (1, 4), strict=True):
        recipe = Recipe(steps=5, batch_size=8, accumulate=parts, optimiser=optimiser, lr=0.01)
        fit(model, FakeDataset(), recipe, tmp_path / str(parts), progress=False)
    torch.testing.assert_close(weights(models[0]), weights(models[1]), rtol=1e-5, atol=1e-6)
    assert not torch.equal(weights(models[0]), weights(FakeModel()))


def test_one_step_of_sgd_by_hand(tmp_path):
    model, by_hand, data = FakeModel(), FakeModel(), FakeDataset()
    recipe = Recipe(steps=1, batch_size=4, optimiser="sgd", lr=0.1, weight_decay=0.0, schedule="constant")
    fit(model, data, recipe, tmp_path, progress=False)
    items = [data[key] for key in next(iter(SampleStream(24, 0, 4, 0, 1)))]
    logits = by_hand(torch.stack([item["clip"] for item in items]))
    loss = nn.functional.cross_entropy(logits, torch.tensor([item["label"] for item in items]))
    loss.backward()
    nesterov = 1 + recipe.momentum  # the first step of PyTorch's SGD with Nesterov momentum
    expected = torch.cat([(p - 0.1 * nesterov * p.grad).flatten() for p in by_hand.parameters()])
    torch.testing.assert_close(weights(model), expected.detach())


def test_batches_run_on_across_epochs():
    keys = [key for batch in SampleStream(10, 7, 4, 0, 10) for key in batch]
    for epoch in range(4):
        assert sorted(keys[10 * epoch : 10 * epoch + 10]) == [(epoch, i) for i in range(10)]
    assert [index for _, index in keys[:10]] != [index for _, index in keys[10:20]]
    late = list(SampleStream(10, 7, 4, 6, 10))
    assert [key for batch in late for key in batch] == keys[24:]
    shares = [list(SampleStream(10, 7, 4, 0, 10, rank, 2)) for rank in range(2)]
    assert [key for pair in zip(*shares, strict=True) for part in pair for key in part] == keys


def test_the_seed_decides_the_order_and_dropout(tmp_path):
    outcomes = []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(number)  # the global state plays no part
        model = FakeModel(dropout=0.5)
        fit(model, FakeDataset(), Recipe(steps=5, batch_size=8, seed=seed), tmp_path / str(number), progress=False)
        outcomes.append(weights(model))
    assert torch.equal(outcomes[0], outcomes[1])
    assert not torch.equal(outcomes[0], outcomes[2])


def test_divergence_names_the_step(tmp_path):
    class Breaks(FakeModel):
        steps = 0

        def forward(self, clip):
            self.steps += 1
            return super().forward(clip) * (float("nan") if self.steps == 34 else 1.0)

    with pytest.raises(TrainingDiverged, match=r"loss of step 33 \(of 60\) is nan"):
        fit(Breaks(), FakeDataset(), RECIPE, tmp_path, progress=False)
    resumed = fit(FakeModel(), FakeDataset(), RECIPE, tmp_path, progress=False)
    assert resumed.resumed_from == 25  # the broken steps were never stored


def test_unreadable_videos_stop_the_training_unless_allowed(tmp_path):
    error = VideoError("/nowhere/3.mp4", "cut off")
    for workers in (0, 1):
        recipe = Recipe(steps=6, batch_size=8, workers=workers)
        with pytest.raises(VideoError, match=r"^/nowhere/3.mp4: cut off$"):
            fit(FakeModel(), FakeDataset(unreadable=[3], error=error), recipe, tmp_path, progress=False)
    recipe = Recipe(steps=7, batch_size=8, accumulate=8)  # a part may hold nothing but unreadable videos
    result = fit(FakeModel(), FakeDataset(unreadable=[3, 5]), recipe, tmp_path / "allowed", progress=False)
    assert result.unreadable == [("/nowhere/3.mp4", "cut off"), ("/nowhere/5.mp4", "cut off")]
    assert all(loss == loss for loss in result.losses)
    with pytest.raises(InputError, match="every video of step 0 is unreadable"):
        fit(FakeModel(), FakeDataset(unreadable=range(24)), recipe, tmp_path / "none", progress=False)


def test_bf16_and_gradient_checkpointing(tmp_path):
    config = TimeSformerConfig(
        num_frames=2, image_size=4, patch_size=2, num_classes=3, embed_dim=16, depth=2, num_heads=2, drop_rate=0.1
    )
    found = {}
    for precision, checkpointing in (("fp32", False), ("fp32", True), ("bf16", False)):
        torch.manual_seed(0)
        model = TimeSformer(config)
        recipe = Recipe(steps=4, batch_size=8, precision=precision, gradient_checkpointing=checkpointing)
        fit(model, FakeDataset(), recipe, tmp_path / f"{precision}{checkpointing}", progress=False)
        assert model.gradient_checkpointing is checkpointing
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
        found[precision, checkpointing] = weights(model)
    # Recomputing a block draws the same dropout.
    torch.testing.assert_close(found["fp32", True], found["fp32", False], rtol=1e-5, atol=1e-6)
    assert not torch.equal(found["bf16", False], found["fp32", False])
    torch.testing.assert_close(found["bf16", False], found["fp32", False], rtol=0, atol=0.02)


def test_gradient_checkpointing_needs_a_model_that_offers_it(tmp_path):
    with pytest.raises(InputError, match="gradient_checkpointing: expected false, FakeModel does not support it"):
        fit(FakeModel(), FakeDataset(), Recipe(steps=1, gradient_checkpointing=True), tmp_path)


def test_another_run_in_the_folder_is_refused(tmp_path):
    fit(FakeModel(), FakeDataset(), Recipe(steps=2), tmp_path, progress=False)
    with pytest.raises(InputError, match=r"recipe\.lr is 0\.001 in the checkpoint and 0\.002 in this run"):
        fit(FakeModel(), FakeDataset(), Recipe(steps=2, lr=0.002), tmp_path, progress=False)
    with pytest.raises(InputError, match="num_samples is 24 in the checkpoint and 12 in this run"):
        fit(FakeModel(), FakeDataset(12), Recipe(steps=2), tmp_path, progress=False)
    with pytest.raises(InputError, match=r"checkpoint of a different model: head\.bias differs"):
        fit(FakeModel(classes=4), FakeDataset(), Recipe(steps=2), tmp_path, progress=False)
    # What changes no result may change.
    assert fit(FakeModel(), FakeDataset(), Recipe(steps=2, checkpoint_every=1), tmp_path, progress=False).steps == 2


def test_an_unwritable_folder_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        fit(FakeModel(), FakeDataset(), Recipe(steps=1), tmp_path / "file" / "run", progress=False)


def test_an_empty_dataset_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="training set: expected at least one sample"):
        fit(FakeModel(), FakeDataset(0), Recipe(steps=1), tmp_path, progress=False)


def test_a_batch_that_cannot_be_shared():
    with pytest.raises(InputError, match="3 clips cannot be split equally among 2 processes"):
        SampleStream(10, 0, 3, 0, 1, 0, 2)


def test_validation_and_tracker(tmp_path):
    def validate(model):
        assert not model.training
        torch.randn(3)  # does not disturb the run
        return {"top1_percent": 50.0}

    models = [FakeModel(dropout=0.5), FakeModel(dropout=0.5)]
    recipe = Recipe(steps=5, batch_size=8, checkpoint_every=3, validate_every=2)
    result = fit(
        models[0], FakeDataset(), recipe, tmp_path / "a", validation=validate, progress=False, tracker="tensorboard"
    )
    fit(models[1], FakeDataset(), replace(recipe, validate_every=None), tmp_path / "b", progress=False)
    assert [entry["step"] for entry in result.validation] == [2, 4, 5]
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert list((tmp_path / "a").rglob("events.out.tfevents*"))


def test_an_unknown_tracker_is_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"tracker: unknown tracker 'telegraph'; expected one of .*tensorboard"):
        fit(FakeModel(), FakeDataset(), Recipe(steps=1), tmp_path, tracker="telegraph")  # type: ignore[arg-type]


@pytest.mark.parametrize("tracker", ["wandb", "comet_ml"])
def test_a_missing_tracker_is_named_in_our_own_words(tmp_path, monkeypatch, caplog, capfd, tracker):
    monkeypatch.setattr(accelerating, "get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(InputError, match=f"tracker: '{tracker}' is not installed .*; installed here: tensorboard"):
        fit(FakeModel(), FakeDataset(), Recipe(steps=1), tmp_path, tracker=tracker)
    assert caplog.text == "".join(capfd.readouterr()) == ""


def test_progress_goes_to_standard_error(tmp_path, capsys):
    fit(FakeModel(), FakeDataset(), Recipe(steps=2), tmp_path, progress=True)
    assert capsys.readouterr().out == ""


def test_the_folder_may_be_a_string(tmp_path):
    fit(FakeModel(), FakeDataset(), Recipe(steps=1), os.fspath(tmp_path), progress=False)
    assert (tmp_path / "checkpoint.safetensors").is_file()
