"""What evaluation runs: the fused copy, in fp32 and bf16; and where bf16 is proposed."""

import copy
import pickle

import pytest
import torch

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.evaluation import forward
from timesformer.evaluation.forward import computing, fast_bf16, forward_only
from timesformer.models.packed import PackedLinear

CPU = torch.device("cpu")


def make(**fields: object) -> tuple[TimeSformer, torch.Tensor]:
    torch.manual_seed(0)
    config = TimeSformerConfig.from_dict(
        {
            "attention": "divided",
            "num_frames": 4,
            "image_size": (12, 8),
            "patch_size": 4,
            "num_classes": 5,
            "embed_dim": 32,
            "num_heads": 2,
            "depth": 2,
            **fields,
        }
    )
    model = TimeSformer(config).eval().requires_grad_(False)
    for parameter in model.parameters():  # extra linears and times are zero at first
        torch.nn.init.normal_(parameter, std=0.2)
    return model, torch.randn(2, 4, 3, 12, 8)


def test_the_outputs_are_equal_up_to_rounding() -> None:
    model, clip = make()
    running = forward_only(model)
    assert isinstance(running, TimeSformer)
    assert running.fused
    assert not model.fused
    torch.testing.assert_close(running(clip), model(clip), rtol=1e-4, atol=1e-5)
    assert forward_only(running) is running


@pytest.mark.parametrize("fields", [{}, {"gate": "head", "qk_norm": True}, {"mlp": "swiglu", "norm": "rms"}], ids=str)
def test_bf16_is_as_exact_as_autocast(fields: dict[str, object]) -> None:
    model, clip = make(**fields)
    running = forward_only(model, "bf16")
    packed = [module for module in running.modules() if isinstance(module, PackedLinear)]
    assert packed
    assert {module.dtype for module in packed} == {torch.bfloat16}
    exact = copy.deepcopy(model).double()(clip.double())
    with computing(CPU, "bf16"):
        found, usual = running(clip).double(), model(clip).double()
    scale = float(exact.abs().max())
    assert (found - exact).abs().max() <= 2 * ((usual - exact).abs().max() + 2**-8 * scale)


def test_networks_that_are_run_as_they_are() -> None:
    other, (model, _) = torch.nn.Linear(2, 2), make()
    assert forward_only(other) is other
    model.stacks()[0].blocks[0].register_forward_hook(lambda *given: None)
    assert forward_only(model) is model


def test_a_fused_model_in_bf16_throughout() -> None:
    model, clip = make()
    expected = model(clip)
    fused = model.fuse_for_inference().bfloat16()
    assert {module.dtype for module in fused.modules() if isinstance(module, PackedLinear)} == {torch.bfloat16}
    found = fused(clip.bfloat16())
    assert found.dtype == torch.bfloat16
    halved, back = model.bfloat16().fuse_for_inference()(clip.bfloat16()), fused.float()(clip)
    for each in (found.float(), halved.float(), back):
        torch.testing.assert_close(each, expected, rtol=0.0, atol=0.02 * float(expected.abs().max()))


def test_a_fused_model_can_be_copied_and_pickled() -> None:
    fused, clip = make()[0].fuse_for_inference(), make()[1]
    for other in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        assert torch.equal(other(clip), fused(clip))
        del other


@pytest.mark.parametrize(
    ("has", "found"),
    [
        ((), None),
        (("_is_avx512_bf16_supported",), "AVX512-BF16"),
        (("_is_avx512_bf16_supported", "_is_amx_tile_supported"), "AMX"),
    ],
)
def test_where_bf16_is_proposed(has: tuple[str, ...], found: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name in has, raising=False)
    assert fast_bf16(CPU) == found
    assert fast_bf16(torch.device("meta")) is None


def test_an_older_torch_knows_of_no_feature() -> None:
    assert not forward._has("_is_no_such_feature_supported")
