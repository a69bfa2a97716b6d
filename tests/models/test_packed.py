"""A fused model gives what the model gives."""

import copy

import pytest
import torch

from tests.attention.custom import MEAN_ENCODER, SHIPPED
from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.checkpoints import save_model
from timesformer.models.packed import PackedLinear

SIZES = {"num_frames": 4, "image_size": (12, 8), "patch_size": 4, "num_classes": 5, "embed_dim": 16, "depth": 2}


def make(attention: str, **fields: object) -> tuple[TimeSformer, torch.Tensor]:
    torch.manual_seed(0)
    model = TimeSformer(TimeSformerConfig(attention=attention, num_heads=2, **SIZES, **fields)).eval()
    for parameter in model.parameters():  # extra linears and times are zero at first
        torch.nn.init.normal_(parameter, std=0.2)
    return model, torch.randn(2, 4, 3, 12, 8)


@pytest.mark.parametrize("attention", [*SHIPPED, MEAN_ENCODER.name])
def test_every_scheme(attention: str) -> None:
    model, clip = make(attention)
    before = copy.deepcopy(model.state_dict())
    fused = model.fuse_for_inference()
    with torch.no_grad():
        torch.testing.assert_close(fused(clip), model(clip), rtol=1e-4, atol=1e-5)
        for ours, theirs in zip(fused.forward_features(clip), model.forward_features(clip), strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("policy", ["replicated", "global"])
@pytest.mark.parametrize("attention", ["divided", "divided_st", "divided_parallel", "local_global", "axial"])
@pytest.mark.parametrize("fields", [{}, {"share_qkv": True}, {"activation": "gelu_tanh"}, {"activation": "relu"}])
def test_class_policies(attention: str, policy: str, fields: dict[str, object]) -> None:
    model, clip = make(attention, cls_policy=policy, **fields)
    with torch.no_grad():
        torch.testing.assert_close(model.fuse_for_inference()(clip), model(clip), rtol=1e-4, atol=1e-5)


def test_double_precision_is_not_packed() -> None:
    model, clip = make("divided")
    model, clip = model.double(), clip.double()
    fused = model.fuse_for_inference()
    assert not any(isinstance(module, PackedLinear) for module in fused.modules())
    with torch.no_grad():
        torch.testing.assert_close(fused(clip), model(clip), rtol=1e-12, atol=1e-12)


def test_fewer_operations() -> None:
    model, clip = make("divided")
    fused = model.fuse_for_inference()
    assert all(module.fc is None for module in fused.modules() if hasattr(module, "fc"))
    seen: list[torch.Size] = []
    final = fused.encoders[0].blocks[-1].mlp.fc1
    final.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    with torch.no_grad():
        fused(clip)
    assert seen == [(2, 16)]  # the class tokens of two clips, no patch


def test_what_a_fused_model_refuses(tmp_path) -> None:
    model, clip = make("divided")
    fused = model.fuse_for_inference()
    assert not fused.training
    with pytest.raises(InputError, match="already fused for inference"):
        fused.fuse_for_inference()
    with pytest.raises(InputError, match="train the model it was made from"):
        fused.train()
    with pytest.raises(InputError, match="no backward"):
        fused(clip.requires_grad_())
    with pytest.raises(InputError, match="fused for inference"):
        save_model(tmp_path, fused)
