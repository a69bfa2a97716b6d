"""The backbone over every scheme: shapes, sizes, switches, initialisation, equality with a dense reference model."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.attention.custom import MEAN_ENCODER, SCHEMES, SHIPPED, has_class_token
from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.attention import BackendError, Partition, attend, build, oracle
from timesformer.config.counting import comparisons_per_patch, macs_per_view
from timesformer.models.blocks import Attention

TINY = TimeSformerConfig(
    num_frames=4, image_size=(24, 32), patch_size=8, num_classes=5, embed_dim=24, depth=2, temporal_depth=1, num_heads=2
)
EVERY = [*SHIPPED, *(scheme.name for scheme in SCHEMES), MEAN_ENCODER.name]


def tiny(attention: str, **changes: object) -> TimeSformer:
    torch.manual_seed(0)
    return TimeSformer(replace(TINY, attention=attention, **changes))  # type: ignore[arg-type]


def unread_weights(attention: str) -> list[str]:
    """Weights of the last block that change patches alone, after which no step shows the patches to the class token:
    they never reach the head."""
    if build(attention).encoders[0].pool == "mean":
        return []
    stages = build(attention).encoders[0].block
    last_seen = max(number for number, stage in enumerate(stages) for step in stage if step.cls != "absent")
    late = [step for stage in stages[last_seen:] for step in stage]
    names = [f"steps.{step.name}." + ("" if step.cls == "absent" else "mixer") for step in late]
    return [f"blocks.{TINY.depth - 1}.{name}" for name in names]


def wake(model: TimeSformer) -> TimeSformer:
    """Gives zero-initialised weights values, so that every step counts."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn(value.shape, generator=generator))
    return model


@pytest.mark.parametrize("attention", EVERY)
def test_any_size_runs_and_learns(attention: str) -> None:
    model, unreached = wake(tiny(attention)), unread_weights(attention)
    for frames, height, width in ((4, 24, 32), (1, 8, 8), (7, 40, 24)):
        logits = model(torch.randn(2, frames, 3, height, width))
        assert logits.shape == (2, 5)
        model.zero_grad()
        logits.square().sum().backward()
        for name, value in model.encoders.named_parameters():
            if not any(part in name for part in unreached):
                assert value.grad is not None, name
                assert value.grad.isfinite().all(), name


@pytest.mark.parametrize("attention", EVERY)
def test_model_equals_model_with_the_oracle_inside(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = wake(tiny(attention)).double()
    clip = torch.randn(2, 4, 3, 24, 32, dtype=torch.float64)
    expected = model(clip)

    def dense(step, qkv, cls_qkv, *, backend, group_weights, modules, class_only):  # type: ignore[no-untyped-def]
        assert not class_only
        return oracle(step, qkv, cls_qkv, modules=modules)

    monkeypatch.setattr("timesformer.models.blocks.attend", dense)
    torch.testing.assert_close(model(clip), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("attention", EVERY)
@pytest.mark.parametrize("policy", ["absent", "replicated", "global"])
def test_class_policy_overrides_every_step(attention: str, policy: str) -> None:
    scheme = build(attention)
    if policy == "absent" or not has_class_token(attention):
        with pytest.raises(InputError, match="class token"):
            replace(TINY, attention=attention, cls_policy=policy)
        return
    partitions = all(isinstance(over, Partition) for step in scheme.encoders[0].steps for over in step.over)
    if policy == "replicated" and not partitions:
        with pytest.raises(InputError, match="replicated"):
            replace(TINY, attention=attention, cls_policy=policy)
        return
    model = tiny(attention, cls_policy=policy)
    assert {m.step.cls for m in model.modules() if isinstance(m, Attention)} <= {policy, "absent"}
    assert model(torch.randn(1, 4, 3, 24, 32)).shape == (1, 5)


def test_space_averages_frames_and_is_blind_to_their_order() -> None:
    model = wake(tiny("space")).eval()
    clip = torch.randn(2, 4, 3, 24, 32)
    torch.testing.assert_close(model(clip), model(clip.flip(1)))
    with torch.no_grad():
        tokens = torch.stack(
            [model.encoders[0](model.patch_embed(clip[:, i : i + 1]), False)[1][:, 0] for i in range(4)]
        )
    assert tokens.shape == (4, 2, 24)
    same = clip[:, :1].expand(-1, 4, -1, -1, -1)
    torch.testing.assert_close(model(same), model(clip[:, :1]))


@pytest.mark.parametrize("attention", [name for name in EVERY if name != "space"])
def test_other_schemes_see_order(attention: str) -> None:
    model = wake(tiny(attention)).eval()
    clip = torch.randn(2, 4, 3, 24, 32)
    assert (model(clip) - model(clip.flip(1))).abs().max() > 1e-4


def test_initialisation_as_released() -> None:
    torch.manual_seed(0)
    model = TimeSformer(TimeSformerConfig(depth=2, num_classes=400))
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            assert not module.bias.any()
            expected = 0.0 if name.endswith(".fc") else 0.02
            assert float(module.weight.detach().std()) == pytest.approx(expected, abs=0.002)
    positions = model.encoders[0].positions
    assert not positions.time.any()
    assert float(positions.space.detach().std()) == pytest.approx(0.02, abs=0.002)


@pytest.mark.parametrize("attention", SHIPPED)
def test_other_initialisations(attention: str) -> None:
    """Weights may start larger, and queries as their keys; the released start is the same without these fields."""
    plain, larger, alike = (
        tiny(attention, **changed) for changed in ({}, {"init_std": 0.08}, {"qk_init": "equal", "init_std": 0.02})
    )
    for (name, one), two, three in zip(plain.named_parameters(), larger.parameters(), alike.parameters(), strict=True):
        linear = name.endswith("weight") and one.dim() == 2 and not name.startswith("head")
        assert torch.allclose(two, one * 4 if linear else one, atol=1e-6)
        if name.endswith("qkv.weight"):
            query, key, value = three.chunk(3)
            assert torch.equal(query, key)
            assert torch.equal(key, one.chunk(3)[1])
            assert torch.equal(value, one.chunk(3)[2])
        else:
            assert torch.equal(one, three)


def test_zero_extra_linear_leaves_the_image_model_unchanged() -> None:
    """At initialisation the time step adds nothing: one frame repeated gives the image model's logits."""
    divided, space = tiny("divided").eval(), tiny("space", num_frames=1).eval()
    state = divided.state_dict()
    space.load_state_dict({name: state[name] for name in space.state_dict()})
    frame = torch.randn(2, 1, 3, 24, 32)
    torch.testing.assert_close(divided(frame.expand(-1, 4, -1, -1, -1)), space(frame))


def test_temporal_fc_and_shared_qkv_change_the_parameters() -> None:
    def params(**changes: object) -> int:
        return sum(p.numel() for p in tiny("divided", **changes).parameters())

    d = TINY.embed_dim
    assert params() - params(temporal_fc=False) == TINY.depth * (d * d + d)
    assert params() - params(share_qkv=True) == TINY.depth * (3 * d * d + 3 * d)
    model = wake(tiny("divided", share_qkv=True))
    model(torch.randn(1, 4, 3, 24, 32)).sum().backward()


def test_positions() -> None:
    for kind, rows in (("none", 0), ("space", 13), ("space_time", 13 + 4), ("table", 49)):
        positions = tiny("joint", position=kind).encoders[0].positions
        assert sum(p.numel() for p in positions.parameters()) == rows * TINY.embed_dim
    accepted = tiny("space", position="space_time").encoders[0].positions
    assert sum(p.numel() for p in accepted.parameters()) == 13 * TINY.embed_dim


def test_drop_path_acts_per_clip_and_group() -> None:
    """In the time step a whole sequence of one patch position is dropped; in the space step a whole frame."""
    for name, same in (("time", (1,)), ("space", (2, 3))):
        step = build("divided").encoders[0].step(name)
        module = Attention(replace(step, extra_linear=False), TINY, drop_path=0.5).train()
        torch.manual_seed(0)
        patches, cls = torch.randn(3, 4, 3, 4, 24), torch.randn(3, 24)
        assert module.qkv is not None
        out, _ = module(patches, cls, module.qkv)
        dropped = (out == 0).all(-1)
        assert 0 < dropped.float().mean() < 1
        for dim in same:
            assert (dropped.all(dim) == dropped.any(dim)).all()


def test_drop_path_of_the_replicated_class_token_is_the_mean_over_groups() -> None:
    step = build("space").encoders[0].steps[0]
    module = Attention(step, TINY, drop_path=0.5).double().train()
    torch.nn.init.normal_(module.proj.bias)
    patches, cls = torch.randn(2, 4, 3, 4, 24, dtype=torch.float64), torch.randn(2, 24, dtype=torch.float64)
    assert module.qkv is not None
    torch.manual_seed(5)
    _, found = module(patches, cls, module.qkv)
    torch.manual_seed(5)
    weights = module._group_weights(patches)
    assert weights is not None
    per_frame = []
    for frame in range(4):
        qkv = module.qkv(module.norm(patches[:, frame : frame + 1])).unflatten(-1, (3, 2, -1))
        token = module.qkv(module.norm(cls)).unflatten(-1, (3, 2, -1))
        _, out = attend(step, qkv, token)
        assert out is not None
        per_frame.append(module.proj(out.flatten(-2)) * weights[:, frame, 0])
    torch.testing.assert_close(found, torch.stack(per_frame).mean(0))


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    clip, found = torch.randn(2, 4, 3, 24, 32), []
    for checkpointing in (False, True):
        model = wake(tiny("divided", drop_path_rate=0.3, drop_rate=0.1)).train()
        model.gradient_checkpointing = checkpointing
        assert model.gradient_checkpointing is checkpointing
        torch.manual_seed(3)
        model(clip).square().sum().backward()
        found.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_backends_agree_and_triton_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = torch.randn(2, 4, 3, 24, 32)
    outputs = [wake(tiny("local_global", backend=backend))(clip) for backend in ("auto", "sdpa", "reference")]
    for other in outputs[1:]:
        torch.testing.assert_close(outputs[0], other, rtol=1e-4, atol=1e-5)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match="NVIDIA GPU"):
            tiny("divided", backend="triton")
    with pytest.raises(BackendError, match="partition"):
        tiny("divided", backend="flex")


@pytest.mark.slow
def test_flex_serves_predicates_on_cpu_and_refuses_to_train_there() -> None:
    attention = "local_global_window_fixed"
    flex = wake(tiny(attention, backend="flex", num_heads=1, embed_dim=16))
    sdpa = wake(tiny(attention, backend="sdpa", num_heads=1, embed_dim=16))
    clip = torch.randn(1, 4, 3, 24, 32)
    with torch.no_grad():
        torch.testing.assert_close(flex(clip), sdpa(clip), rtol=1e-4, atol=1e-5)
    with pytest.raises(BackendError, match="CPU"):
        flex(clip)


def test_two_encoders_and_tubelets() -> None:
    for name in ("factorised_encoder", MEAN_ENCODER.name):
        model = wake(tiny(name, tubelet_size=2))
        assert model(torch.randn(2, 4, 3, 24, 32)).shape == (2, 5), name
        tokens = model.forward_features(torch.randn(2, 4, 3, 24, 32))
        assert tokens.patches.shape == (2, 2, 1, 1, 24)
        assert tokens.cls is not None
        assert macs_per_view(model.config) > 0


def test_a_zero_start_is_a_residual_of_zero_that_learns() -> None:
    """ViViT's model 3 starts as its image model: frames in another order give the same logits."""
    model = tiny("factorised_self_attention", position="space")
    clip = torch.randn(2, 4, 3, 24, 32)
    torch.testing.assert_close(model(clip), model(clip.flip(1)))
    module = model.encoders[0].blocks[0].steps["time"]
    assert not module.proj.weight.any()
    assert not module.proj.bias.any()
    assert module.qkv.weight.any()
    model(clip).square().sum().backward()
    assert module.proj.weight.grad.any()


def test_comparisons_per_patch() -> None:
    def count(**changes: object) -> float | None:
        return comparisons_per_patch(TimeSformerConfig(**changes))  # type: ignore[arg-type]

    n, f = 196, 8
    assert count(attention="joint") == n * f + 1
    assert count(attention="space") == n + 1
    assert count(attention="divided", cls_policy="global") == n + f + 2
    assert count(attention="divided") == n + f + 1
    assert count(attention="axial", cls_policy="global") == 8 + 14 + 14 + 3
    assert count(attention="trajectory", tubelet_size=2) is None  # a mixer declares no keys


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ((1, 4, 3, 25, 32), "height: .* got 25"),
        ((1, 4, 3, 24, 33), "width: .* got 33"),
        ((1, 0, 3, 24, 32), "frames: .* got 0"),
        ((1, 4, 1, 24, 32), "3 channels"),
        ((1, 3, 3, 24, 32), "tubelet_size"),
    ],
)
def test_clips_that_do_not_fit_are_named(clip: tuple[int, ...], message: str) -> None:
    model = tiny("joint", tubelet_size=2 if "tubelet" in message else 1)
    with pytest.raises(InputError, match=message):
        model(torch.zeros(clip))
