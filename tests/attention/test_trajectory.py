"""Trajectory attention in the two cases in which it is something simpler, and its cost as Motionformer prints it."""

import pytest
import torch

from tests.attention.custom import random_inputs
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.attention import Mixer, attend, build
from timesformer_experiments.cost.count import cost
from timesformer_experiments.report.published import published

STEP = build("trajectory").encoders[0].steps[0]
NORM_MACS = 5
"""What fvcore counts for an element of a layer norm."""


def mixer() -> Mixer:
    (found,) = STEP.over
    assert isinstance(found, Mixer)
    return found


def test_in_one_frame_it_is_attention_over_space_and_a_linear() -> None:
    qkv, cls = random_inputs((1, 3, 4))
    modules = mixer().modules(8, 2).double()
    found, _ = attend(STEP, qkv, cls, modules=modules)
    plain, _ = attend(build("joint").encoders[0].steps[0], qkv, None)
    assert found is not None
    assert plain is not None
    value = modules["key_value"](plain.flatten(-2))[..., 8:]
    torch.testing.assert_close(found.flatten(-2), value, rtol=1e-10, atol=1e-12)


def test_with_one_patch_a_frame_it_is_attention_over_time_on_the_values() -> None:
    qkv, cls = random_inputs((5, 1, 1))
    modules = mixer().modules(8, 2).double()
    found, _ = attend(STEP, qkv, cls, modules=modules)
    values = qkv[..., 2, :, :].flatten(-2)
    again = torch.cat([modules["query"](values), modules["key_value"](values)], -1).unflatten(-1, (3, 2, 4))
    expected, _ = attend(build("divided").encoders[0].step("time"), again, None)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_frames_in_another_order_give_the_same_patches_in_that_order() -> None:
    qkv, cls = random_inputs((4, 2, 3))
    modules = mixer().modules(8, 2).double()
    order = torch.tensor([2, 0, 3, 1])
    found, _ = attend(STEP, qkv, cls, modules=modules)
    changed, _ = attend(STEP, qkv[:, order], cls, modules=modules)
    assert found is not None
    torch.testing.assert_close(changed, found[:, order], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("attention", ["joint", "divided", "trajectory"])
def test_macs_are_motionformers_but_for_the_norms(attention: str) -> None:
    fields = {} if attention == "joint" else {"cls_policy": "global"}  # as its code has it
    config = TimeSformerConfig.from_dict(
        {"attention": attention, "num_frames": 16, "tubelet_size": 2, "temporal_fc": False, **fields}
    )
    norms = 12 * (3 if attention == "divided" else 2) + 1
    with_norms = cost(config).macs_per_view + NORM_MACS * norms * (8 * 196 + 1) * 768
    printed = published("motionformer", "schemes").rows[attention]["gmacs_per_view"]
    assert round(with_norms / 1e9, 1) == printed


def test_every_weight_of_its_own_is_trained() -> None:
    small = {"num_frames": 4, "image_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model = TimeSformer(TimeSformerConfig.from_dict({"attention": "trajectory", "position": "space_time", **small}))
    # The last block's patches reach no class token: the mean of all tokens has a gradient everywhere.
    model.forward_features(torch.randn(2, 4, 3, 16, 16)).patches.square().sum().backward()
    own = {name: weight for name, weight in model.named_parameters() if ".mixer." in name}
    assert len(own) == 2 * 4
    assert all(
        weight.grad is not None and weight.grad.abs().sum() > 0 for name, weight in own.items() if "bias" not in name
    )
