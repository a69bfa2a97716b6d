"""Every switch of the backbone, with every scheme that can have it, against the model written out in float64."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.attention.custom import MEAN_ENCODER, SCHEMES, SHIPPED, has_class_token
from tests.models.dense import dense_logits
from tests.models.switches import NEEDS_CLASS, SWITCHES, TINY
from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.attention import BackendError
from timesformer.models.blocks import Attention

EVERY = [*SHIPPED, *(scheme.name for scheme in SCHEMES), MEAN_ENCODER.name]
ROOT = Path(__file__).parents[2]
QUICK = [
    *((switch, "divided") for switch in SWITCHES),
    *((switch, "factorised_encoder") for switch in ("rope_half", "sinusoid", "registers", "no_class_token", "many")),
    *((switch, "local_global_window") for switch in ("rope_vjepa2", "registers", "many")),
    *((switch, "trajectory") for switch in ("rope_unit", "registers", "many")),
    *((switch, "space") for switch in ("registers", "class_mean", "attentive")),
]


def tiny(attention: str, switch: str, **changes: Any) -> TimeSformer:
    torch.manual_seed(0)
    model = TimeSformer(replace(TINY, attention=attention, **(SWITCHES[switch] | changes)))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.3 * torch.randn(value.shape, generator=generator))
    return model.eval()


def check(attention: str, switch: str) -> None:
    """Logits, and the gradients of the clip and of every weight."""
    model = tiny(attention, switch).double()
    clip = torch.randn(2, 3, 3, 16, 24, dtype=torch.float64).requires_grad_()
    inputs = [clip, *model.parameters()]
    found = []
    for function in (model, lambda given: dense_logits(model, given)):
        logits: Tensor = function(clip)
        gradients = torch.autograd.grad(logits.square().sum(), inputs, allow_unused=True)
        found.append([logits, *gradients])
    for ours, theirs in zip(*found, strict=True):
        assert ours is not None or theirs is None or not theirs.any()
        if ours is not None and theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("switch", "attention"), QUICK)
def test_equals_the_dense_reference(switch: str, attention: str) -> None:
    check(attention, switch)


@pytest.mark.slow
@pytest.mark.parametrize("attention", EVERY)
@pytest.mark.parametrize("switch", SWITCHES)
def test_every_scheme_equals_the_dense_reference(switch: str, attention: str) -> None:
    if switch in NEEDS_CLASS and not has_class_token(attention):
        with pytest.raises(InputError, match="class token"):
            tiny(attention, switch)
        return
    check(attention, switch)


@pytest.mark.parametrize("attention", ["divided"])
@pytest.mark.parametrize("switch", SWITCHES)
def test_fused_for_inference(switch: str, attention: str) -> None:
    model, clip = tiny(attention, switch), torch.randn(2, 5, 3, 24, 16)  # another size too
    fused = model.fuse_for_inference()
    with torch.no_grad():
        torch.testing.assert_close(fused(clip), model(clip), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fused.features(clip), model.features(clip), rtol=1e-4, atol=1e-5)
    assert not any(module.scale is not None for module in fused.modules() if isinstance(module, Attention))


COMPILED = """
import sys
from dataclasses import replace

import torch

from tests.models.switches import SWITCHES, TINY
from timesformer import TimeSformer

for name in sys.argv[1:]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    model, clip = TimeSformer(replace(TINY, **SWITCHES[name])).eval(), torch.randn(2, 3, 3, 16, 24)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(clip), model(clip), rtol=1e-4, atol=1e-5)
    compiled(clip).sum().backward()
    print(name)
"""
"""In a process of its own, without the checks of shapes, which cannot be traced."""


@pytest.mark.slow
def test_traced_by_torch_compile_as_one_graph() -> None:
    found = subprocess.run(
        [sys.executable, "-c", COMPILED, *SWITCHES], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.split() == list(SWITCHES)


@pytest.mark.parametrize("switch", ["rope_half", "registers", "many", "attentive"])
def test_training_with_checkpointing_and_drop_path(switch: str) -> None:
    clip, found = torch.randn(2, 3, 3, 16, 24), []
    for checkpointing in (False, True):
        model = tiny("divided", switch, drop_path_rate=0.4, drop_rate=0.1).train()
        model.gradient_checkpointing = checkpointing
        torch.manual_seed(3)
        model(clip).square().sum().backward()
        found.append([value.grad for value in model.parameters()])
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(plain, recomputed)


def parameters(**changes: Any) -> int:
    return sum(value.numel() for value in TimeSformer(replace(TINY, **changes)).parameters())


def test_parameters_by_hand() -> None:
    d, depth, steps, heads = 24, 2, 2, 2
    learned = (1 + 6 + 3) * d
    per_step = {
        "registers": {3: 3 * d},
        "qk_norm": {True: depth * steps * 2 * 2 * (d // heads)},
        "gate": {"head": depth * steps * (d + 1) * heads, "channel": depth * steps * (d + 1) * d},
        "layer_scale": {1.0: depth * (steps + 1) * d},
        "qkv_bias": {"qv": -depth * steps * d, "": -depth * steps * 3 * d},
        "mlp": {"swiglu": depth * (d + 1) * 4 * d},
        "norm": {"rms": -(depth * (steps + 1) + 1) * d},
        "position": {"rope": -learned, "sinusoid": -learned},
        "class_token": {False: -2 * d},
        "pool": {"class+mean": 5 * d, "attentive": d + 2 * d + 3 * d * (d + 1) + 2 * d + 4 * d * (2 * d + 1) + d},
        "pooler_depth": {},
    }
    for name, cases in per_step.items():
        for value, expected in cases.items():
            assert parameters(**{name: value}) - parameters() == expected, (name, value)
    assert parameters(pool="mean", fc_norm=True) == parameters()
    block = 12 * d * d + 13 * d
    assert parameters(pool="attentive", pooler_depth=2) - parameters(pool="attentive") == 2 * block


def test_a_gate_is_open_at_first_and_positions_of_other_kinds_have_no_weights() -> None:
    torch.manual_seed(0)
    plain = TimeSformer(TINY).eval()
    for kind in ("head", "channel"):
        gated = TimeSformer(replace(TINY, gate=kind)).eval()
        gated.load_state_dict(plain.state_dict(), strict=False)
        clip = torch.randn(1, 3, 3, 16, 24)
        torch.testing.assert_close(gated(clip), plain(clip))
    assert not [name for name in tiny("divided", "rope_half").state_dict() if "positions" in name]
    assert not [name for name in tiny("divided", "sinusoid").state_dict() if "positions" in name]


def test_rotary_positions_are_relative() -> None:
    """Queries and keys of equal content: their product depends on the distance alone."""
    model = tiny("joint", "rope_neighbour")
    rotary = model.encoders[0].blocks[0].steps["joint"].rotary
    q, k = torch.randn(2, 12, dtype=torch.float64)
    grid = (4, 5, 6)
    q, k = (rotary(x.expand(1, *grid, 1, -1))[0, :, :, :, 0] for x in (q, k))
    for dt, dh, dw in ((1, 0, 0), (0, 2, 0), (2, 1, 3)):
        products = (q[dt:, dh:, dw:] * k[: 4 - dt, : 5 - dh, : 6 - dw]).sum(-1)
        torch.testing.assert_close(products, products[0, 0, 0].expand_as(products))
    assert (q[0, 0, 0] * k[1, 0, 0]).sum() != (q[0, 0, 0] * k[0, 0, 0]).sum()


@pytest.mark.parametrize("switch", ["rope_half", "registers"])
def test_backends(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = torch.randn(2, 3, 3, 16, 24)
    models = [tiny("divided", switch, backend=backend) for backend in ("auto", "sdpa", "reference")]
    assert {module.backend for module in models[0].modules() if isinstance(module, Attention)} == {"sdpa"}
    for other in models[1:]:
        torch.testing.assert_close(models[0](clip), other(clip), rtol=1e-4, atol=1e-5)
    with pytest.raises(BackendError, match=f"does not serve {'rope' if 'rope' in switch else 'registers'} yet"):
        tiny("divided", switch, backend="triton")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"registers": -1}, "registers: expected 0 or"),
        ({"registers": 1, "attention": "factorised_self_attention"}, "registers: expected a scheme with a class token"),
        ({"registers": 1, "class_token": False}, "class_token: false"),
        ({"class_token": False, "cls_policy": "global"}, "cls_policy"),
        ({"qk_norm": 1}, "qk_norm: expected true or false"),
        ({"layer_scale": 0}, "layer_scale: expected a positive number"),
        ({"gate": "token"}, "gate: expected one of"),
        ({"mlp": "geglu"}, "mlp: expected one of"),
        ({"norm": "batch"}, "norm: expected one of"),
        ({"qkv_bias": "vq"}, "qkv_bias: expected one of"),
        ({"qkv_bias": True}, "qkv_bias: expected one of"),
        ({"pool": "max"}, "pool: expected one of"),
        ({"pool": "class", "class_token": False}, "pool: expected 'mean' or 'attentive'"),
        ({"pooler_depth": 1}, "pooler_depth: expected pool 'attentive'"),
        ({"fc_norm": True}, "fc_norm: expected pool 'mean'"),
        ({"fc_norm_eps": 1e-3}, "fc_norm_eps: expected fc_norm"),
        ({"rope_base": 100.0}, "rope_base: expected position 'rope'"),
        ({"position": "rope", "rope_base": -1.0}, "rope_base: expected a positive number"),
        ({"position": "rope", "rope_axes": (3, 2, 2)}, "rope_axes: expected three even numbers"),
        ({"position": "rope", "rope_axes": (6, 6, 6)}, "together at most 12"),
        ({"position": "rope", "rope_axes": (4, 4)}, "rope_axes"),
        ({"position": "rope", "rope_scale": (1, 1)}, "rope_scale: expected three positive numbers"),
        ({"position": "rope", "rope_pairing": "whole"}, "rope_pairing: expected one of"),
        ({"position": "rope", "num_heads": 12}, "rope_axes: expected channels to rotate"),
        ({"position": "rotary"}, "position: expected one of"),
    ],
)
def test_impossible_switches_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(TINY, **changes)


def test_lists_of_yaml_are_tuples() -> None:
    config = TimeSformerConfig.from_dict({"position": "rope", "rope_axes": [16, 24, 24], "rope_scale": [0.5, 1, 1]})
    assert TimeSformerConfig.from_dict(config.to_dict()) == config
    assert config.changed_switches() == {"rope_axes": (16, 24, 24), "rope_scale": (0.5, 1, 1)}
