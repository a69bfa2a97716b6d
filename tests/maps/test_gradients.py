"""Gradient-weighted maps against autograd through dense attention; the others against differences and sums."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.maps.dense import Dense
from tests.maps.models import EVERY, GRID, clips, make
from tests.maps.pointing import pointing_model
from tests.maps.rolled import rolled
from timesformer import InputError
from timesformer.attention import Mixer, build
from timesformer.maps import grad_cam, gradients, input_gradient, relevance

SOFTMAX = [
    name
    for name in EVERY
    if not any(isinstance(over, Mixer) for e in build(name).encoders for step in e.steps for over in step.over)
]
TARGETS = [3, 1]


@pytest.mark.parametrize("attention", SOFTMAX)
def test_relevance_equals_autograd_through_dense_attention(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip = make(attention), clips()
    with monkeypatch.context() as patched:
        dense = Dense(model, patched)
        logits = model(clip.requires_grad_())
        (logits[0, TARGETS[0]] + logits[1, TARGETS[1]]).backward()

    def mix(matrices: list[Tensor], names: list[str], number: int) -> Tensor:
        out = torch.eye(matrices[0].shape[-1], dtype=matrices[0].dtype).expand(matrices[0][:, 0].shape)
        for a in matrices:
            slope = torch.zeros_like(a) if a.grad is None else a.grad
            out = out + (a * slope).clamp_min(0).mean(1)
        return out.detach()

    found = relevance(model, clip, TARGETS)
    assert found.on_class is not None
    ours = np.concatenate([found.weights[:, 0].reshape(2, -1), found.on_class[:, :1]], -1)
    np.testing.assert_allclose(ours, rolled(model, dense, mix, "class", 2, GRID).numpy(), rtol=1e-6, atol=1e-7)
    assert ours[:, :-1].max() > 0


def test_relevance_of_a_mixer_reaches_the_patches() -> None:
    found = relevance(make("test_linear"), clips())
    assert (found.weights >= 0).all()
    assert (found.weights.sum((2, 3, 4)) > 0).all()


@pytest.mark.parametrize("attention", ["divided", "space", "factorised_encoder", "factorised_self_attention"])
def test_input_gradient_equals_finite_differences(attention: str) -> None:
    model, clip = make(attention), clips()
    found = input_gradient(model, clip, TARGETS).weights
    assert found.shape == (2, 1, *GRID)
    size = 1e-5
    for number, (t, h, w) in ((0, (2, 1, 3)), (1, (0, 1, 0))):
        pixels = [(c, y, x) for c in range(3) for y in range(4 * h, 4 * h + 4) for x in range(4 * w, 4 * w + 4)]
        up, down = clip[[number] * 48], clip[[number] * 48]
        for row, (c, y, x) in enumerate(pixels):
            up[row, t, c, y, x] += size
            down[row, t, c, y, x] -= size
        with torch.no_grad():
            slopes = (model(up) - model(down))[:, TARGETS[number]] / (2 * size)
        assert found[number, 0, t, h, w] == pytest.approx(float(slopes.abs().sum()), rel=1e-5)


def test_input_gradient_of_tubelets() -> None:
    model = make("factorised_encoder", num_frames=4, tubelet_size=2)
    clip = clips(frames=4).requires_grad_()
    (gradient,) = torch.autograd.grad(model(clip)[:, 2].sum(), clip)
    found = input_gradient(model, clip, 2).weights
    assert found.shape == (2, 1, 2, 2, 4)
    patch = gradient[1, 2:4, :, 4:8, 8:12].abs().sum()
    assert found[1, 0, 1, 1, 2] == pytest.approx(float(patch), rel=1e-6)


@pytest.mark.parametrize("attention", ["divided", "space", "factorised_encoder", "factorised_dot_product"])
def test_grad_cam_by_the_definition(attention: str) -> None:
    """The last block of the first encoder on tokens of our own: the score is a function of them alone."""
    model, clip = make(attention), clips()
    block, kept = model.encoders[0].blocks[-1], []
    handle = block.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    logits = model(clip.requires_grad_())
    handle.remove()
    (slope,) = torch.autograd.grad(logits[0, TARGETS[0]] + logits[1, TARGETS[1]], kept)
    patches, slope = (x.detach().reshape(2, 24, 16) for x in (kept[0], slope))
    expected = torch.zeros(2, 24, dtype=torch.float64)
    for number in range(2):
        for channel in range(16):
            expected[number] += slope[number, :, channel].mean() * patches[number, :, channel]
    found = grad_cam(model, clip, TARGETS).weights.reshape(2, 24)
    np.testing.assert_allclose(found, expected.clamp_min(0).numpy(), rtol=1e-5, atol=1e-7)
    assert found.max() > 0


@pytest.mark.parametrize("method", [relevance, input_gradient, grad_cam])
def test_the_default_target_is_the_prediction(method) -> None:  # type: ignore[no-untyped-def]
    model, clip = make("divided"), clips()
    with torch.no_grad():
        predicted = model(clip).argmax(1).tolist()
    np.testing.assert_array_equal(method(model, clip).weights, method(model, clip, predicted).weights)
    other = [(column + 1) % 5 for column in predicted]
    assert not np.allclose(method(model, clip).weights, method(model, clip, other).weights)
    with pytest.raises(InputError, match="target: expected a class number, or one for each clip, got 'left'"):
        method(model, clip, "left")


def test_several_heads_are_explained_together() -> None:
    model, clip = make("divided", num_classes=(2, 3)), clips(1).requires_grad_()
    logits = model(clip)
    verb, noun = int(logits[0, :2].argmax()), 2 + int(logits[0, 2:].argmax())
    (slope,) = torch.autograd.grad(logits[0, verb] + logits[0, noun], clip)
    found = input_gradient(model, clip).weights
    assert found[0, 0, 1, 0, 2] == pytest.approx(float(slope[0, 1, :, :4, 8:12].abs().sum()), rel=1e-6)


@pytest.mark.parametrize("method", [relevance, input_gradient, grad_cam])
@pytest.mark.parametrize("attention", ["divided", "factorised_encoder"])
def test_blocks_computed_twice_give_the_same(attention: str, method, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    model, clip = make(attention), clips()
    kept = method(model, clip, TARGETS).weights
    runs = []
    handle = model.encoders[0].blocks[-1].register_forward_pre_hook(lambda *args: runs.append(1))
    monkeypatch.setattr(gradients, "RECOMPUTE_BYTES", 0)
    np.testing.assert_allclose(method(model, clip, TARGETS).weights, kept, rtol=1e-6)
    handle.remove()
    assert len(runs) == 2
    assert not model.gradient_checkpointing


@pytest.mark.parametrize("attention", ["joint", "space", "factorised_encoder"])
def test_a_model_that_looks_at_one_patch(attention: str) -> None:
    model, clip, place = pointing_model(attention)
    shown = relevance(model, clip, 1).weights[0, 0]
    assert shown.shape == (3, 2, 5)
    assert np.unravel_index(shown.argmax(), shown.shape) == place


def test_the_model_is_left_as_it_was() -> None:
    model, clip = make("divided").train(), clips()
    model.head.bias.requires_grad_(False)
    before = {name: value.requires_grad for name, value in model.named_parameters()}
    relevance(model, clip)
    assert model.training
    assert before == {name: value.requires_grad for name, value in model.named_parameters()}
    assert all(value.grad is None for value in model.parameters())


def test_what_is_refused() -> None:
    model, clip = make("divided", double=False), clips().float()
    for method in (relevance, input_gradient, grad_cam):
        with pytest.raises(InputError, match="class from 0 to 4, got 5"):
            method(model, clip, 5)
        with pytest.raises(InputError, match="expected one class for each of 2 clips, got 1"):
            method(model, clip, [0])
        with pytest.raises(InputError, match="fused for inference"):
            method(model.fuse_for_inference(), clip)
