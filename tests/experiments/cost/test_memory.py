"""Predicted peak memory: two blocks tell all, fake tensors allocate what real ones do, the split adds up."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import fields, replace
from functools import cache
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from tests.attention.custom import SHIPPED
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.attention import Grid, Predicate
from timesformer.attention import attend as attention_call
from timesformer.config.counting import encoder_runs
from timesformer.errors import InputError
from timesformer.training.recipe import Recipe
from timesformer_experiments.cli.main import app
from timesformer_experiments.cost import memory
from timesformer_experiments.cost.memory import (
    RESERVE_BYTES,
    Workload,
    candidates,
    forecast,
    highest,
    largest_batches,
    predict,
    trace,
)
from timesformer_experiments.cost.memory_trace import PARTS, KeepingSoftmax, Ledger, _planned

SMALL: dict[str, Any] = {
    "num_frames": 4,
    "image_size": 48,
    "patch_size": 8,
    "embed_dim": 32,
    "num_heads": 4,
    "num_classes": 5,
}


def config(attention: str = "divided", **fields: Any) -> TimeSformerConfig:
    return TimeSformerConfig.from_dict({"attention": attention, **SMALL, **fields})


def whole(step: Workload) -> memory.Memory:
    """The prediction without any extrapolation: every block is traced."""
    with torch.device("meta"):
        model = TimeSformer(step.config)
    model.gradient_checkpointing = step.gradient_checkpointing
    stacks = [list(stack.blocks) for stack in model.stacks()]
    shape = (step.batch, step.config.num_frames, 3, *step.config.height_width)
    predicates = [
        (over, grid)
        for encoder, _, _, grid in encoder_runs(step.config)
        for part in encoder.steps
        for over in part.over
        if isinstance(over, Predicate)
    ]
    return highest(trace(model, stacks, shape, step, predicates), step.how)


@pytest.mark.parametrize("attention", SHIPPED)
def test_two_blocks_tell_the_peak_of_any_depth(attention: str) -> None:
    step = Workload(config(attention, depth=4, temporal_depth=4), 3, train=True)
    shallow, deep = highest(candidates(step), step.how), whole(step)
    assert shallow.peak_bytes == deep.peak_bytes
    assert shallow.params_bytes == deep.params_bytes


@pytest.mark.parametrize(
    ("fields", "settings"),
    [
        ({"backend": "reference"}, {}),
        ({"drop_path_rate": 0.2, "drop_rate": 0.1, "depth": 5}, {}),  # of which three blocks are traced
        ({"num_frames": 1, "image_size": 8}, {}),  # weights dominate: the peak lies in the update
        ({}, {"train": False}),
        ({}, {"optimiser": "adamw"}),
        ({}, {"gradient_checkpointing": True}),
        ({"attention": "factorised_encoder"}, {"gradient_checkpointing": True, "device": "cuda"}),
        ({"depth": 1}, {}),
        ({"registers": 2, "position": "rope", "qk_norm": True}, {}),
        ({"mlp": "swiglu", "norm": "rms", "gate": "channel", "layer_scale": 0.1}, {}),
        ({"pool": "attentive", "pooler_depth": 2, "position": "sinusoid"}, {}),
    ],
)
def test_and_with_every_setting(fields: dict[str, Any], settings: dict[str, Any]) -> None:
    made = config(**{"depth": 4, "temporal_depth": 4, **fields})
    step = Workload(made, 3, **{"train": True, **settings})
    shallow, deep = highest(candidates(step), step.how), whole(step)
    assert shallow.peak_bytes == deep.peak_bytes
    assert {kind: getattr(shallow, f"{kind}_bytes") for kind in ("params", "optimiser")} == {
        kind: getattr(deep, f"{kind}_bytes") for kind in ("params", "optimiser")
    }


def test_in_bf16_two_blocks_tell_it_within_a_thousandth() -> None:
    step = Workload(config("factorised_self_attention", depth=4), 3, train=True, precision="bf16")
    assert highest(candidates(step), "").peak_bytes == pytest.approx(whole(step).peak_bytes, rel=1e-3)


@contextmanager
def real_attention(
    ledger: Ledger, device: str, predicates: list[tuple[Predicate, Grid]], softmax: str, dense: bool
) -> Iterator[None]:
    def attend(*args: Any, **kwargs: Any) -> Any:
        with ledger.attention():
            return attention_call(*args, **kwargs)

    for predicate, grid in predicates:
        kept = [predicate.mask(grid)] if dense else []
        for batch in [] if dense else _planned(predicate, grid):
            kept += [tensor for tensor in (batch.rows, batch.keys, batch.mask) if tensor is not None]
        for tensor in kept:
            ledger.own(tensor, "attention")
    with mock.patch("timesformer.models.blocks.attend", attend):
        yield


@pytest.mark.parametrize(
    ("attention", "settings"),
    [
        ("divided", {}),
        ("local_global_window", {}),
        ("local_global_window", {"backend": "reference"}),
        ("sliding_tile", {}),
        ("neighbourhood", {"precision": "bf16"}),
        ("joint", {"backend": "reference"}),
        ("joint", {"precision": "bf16"}),
        ("factorised_encoder", {"gradient_checkpointing": True}),
        ("divided", {"train": False}),
        ("divided", {"registers": 2, "position": "rope", "qk_norm": True, "gate": "head"}),
        ("joint", {"mlp": "swiglu", "norm": "rms", "layer_scale": 0.1, "pool": "attentive", "pooler_depth": 1}),
    ],
)
def test_fake_tensors_allocate_what_real_ones_do(attention: str, settings: dict[str, Any]) -> None:
    """The same ledger over a step that is really made, on real tensors."""
    settings = {"train": True, **settings}
    own = {name: settings.pop(name) for name in set(settings) - {each.name for each in fields(Workload)}}
    made = config(attention, depth=2, temporal_depth=2, **own)
    step = Workload(made, 2, **settings)
    model = TimeSformer(made)
    model.gradient_checkpointing = step.gradient_checkpointing
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(memory, "FakeTensorMode", nullcontext))
        patches.enter_context(mock.patch.object(memory, "attention_without_values", real_attention))
        patches.enter_context(mock.patch.object(memory, "without_values"))
        stacks = [list(stack.blocks) for stack in model.stacks()]
        shape = (2, made.num_frames, 3, *made.height_width)
        dense = made.backend == "reference"
        real = highest(trace(model, stacks, shape, step, memory._predicates(made), dense=dense), "")
    fake = highest(candidates(step), "")
    assert fake.peak_bytes == pytest.approx(real.peak_bytes, rel=1e-3)
    assert fake.attention_bytes == pytest.approx(real.attention_bytes, rel=1e-2)


def test_the_split_adds_up_and_is_what_it_says() -> None:
    made = config("joint", depth=3, backend="reference", image_size=96)
    params = sum(parameter.nbytes for parameter in TimeSformer(made).parameters())
    train = predict(made, batch=2, train=True, optimiser="adamw")
    assert train.peak_bytes == sum(getattr(train, f"{kind}_bytes") for kind in PARTS)
    assert train.params_bytes == params
    assert train.optimiser_bytes == pytest.approx(2 * params, rel=1e-2)
    tokens = 4 * 12 * 12
    probabilities = 2 * made.num_heads * tokens * (tokens + 1) * 4
    assert train.attention_bytes > 3 * probabilities  # one kept by each block
    assert "fake tensors on CPU" in train.how
    inference = predict(made, batch=2, train=False)
    assert inference.optimiser_bytes == inference.gradients_bytes == 0
    assert 2 * probabilities <= inference.attention_bytes < 3 * probabilities  # scores and probabilities of one block
    assert set(inference.to_dict()) == {*(f"{kind}_bytes" for kind in PARTS), "peak_bytes", "phase", "how"}


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_optimisers_keep_what_is_predicted(optimiser: Any) -> None:
    model = TimeSformer(config(depth=1))
    made = Recipe(steps=1, optimiser=optimiser).build_optimiser(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    kept = sum(value.nbytes for state in made.state.values() for value in state.values())
    assert kept == sum(memory.state_bytes(parameter, optimiser) for parameter in model.parameters())


def test_settings_change_the_peak_the_way_they_should() -> None:
    made = config("joint", depth=4, image_size=96, backend="reference")

    @cache
    def peak(config: TimeSformerConfig = made, **settings: Any) -> int:
        return predict(config, **{"batch": 4, "train": True, **settings}).peak_bytes

    assert peak(replace(made, backend="sdpa")) < peak(gradient_checkpointing=True) < peak()
    assert peak(precision="bf16") < peak() < peak(optimiser="adamw")
    assert peak() < peak(device="cuda") < peak(batch=5)
    assert peak(precision="bf16") < peak(precision="bf16", device="cuda")  # whose autocast takes softmax in fp32
    assert peak(train=False) < peak() / 2
    kernels, sdpa = (replace(made, backend=backend, num_heads=2) for backend in ("triton", "sdpa"))
    assert peak(kernels, device="cuda", precision="bf16") < peak(sdpa, device="cuda", precision="bf16")


def test_a_softmax_that_keeps_its_input_costs_the_scores_of_every_block() -> None:
    step = Workload(config("joint", depth=4, image_size=96, backend="reference"), 2, train=True)
    today, then = (
        highest(candidates(replace(step, softmax_keeps_input=keeps)), "").attention_bytes for keeps in (False, True)
    )
    tokens = 4 * 12 * 12
    scores = 2 * step.config.num_heads * tokens * (tokens + 1) * 4
    assert then - today == pytest.approx(3 * scores, rel=0.34)  # of three or four blocks at the peak
    fused = replace(step, config=replace(step.config, backend="sdpa"))
    assert candidates(fused)[-1].peak == candidates(replace(fused, softmax_keeps_input=True))[-1].peak
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(KeepingSoftmax.apply, (x,))


def test_masks_are_counted_and_none_without_values_is_left_behind() -> None:
    made = config("local_global_window_fixed", depth=1, temporal_depth=1)
    tokens = 4 * 6 * 6
    sdpa = predict(made, batch=1, train=False)
    flex = predict(replace(made, backend="flex"), batch=1, train=False)
    assert sdpa.attention_bytes - flex.attention_bytes >= 2 * tokens * tokens
    old = Workload(replace(made, backend="reference"), 1, train=True, softmax_keeps_input=True)
    assert highest(candidates(old), "").attention_bytes > predict(old.config, batch=1, train=True).attention_bytes
    clip = torch.zeros(1, 4, 3, 48, 48)
    assert torch.isfinite(TimeSformer(made)(clip)).all()


def test_the_largest_batch_fits_and_the_next_does_not() -> None:
    step = Workload(config("joint", depth=12, image_size=96, embed_dim=96), 1, train=True)
    batch = largest_batches(step, [3.0])[3.0]
    peaks = [highest(candidates(replace(step, batch=clips)), "").peak_bytes for clips in (batch, batch + 1)]
    assert batch > 10
    assert peaks[0] <= 3 * 2**30 - RESERVE_BYTES < peaks[1]
    assert largest_batches(Workload(TimeSformerConfig(depth=24), 1, train=True), [2.0]) == {2.0: 0}


def test_a_peak_that_bends_upwards_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = 2**24

    class Bent:
        def __init__(self, batch: int) -> None:
            self.peak_bytes = unit * max(50 * batch, 80 * batch - 150)

    monkeypatch.setattr(memory, "candidates", lambda step: [Bent(step.batch)])
    assert largest_batches(Workload(config(), 1, train=True), [1 + 500 * unit / 2**30]) == {1 + 500 * unit / 2**30: 8}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "batch: expected a positive number of clips, got 0"),
        ({"batch": True}, "batch"),
        ({"precision": "fp16"}, "precision: expected one of"),
        ({"optimiser": "lion"}, "optimiser"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_impossible_requests_name_the_field(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        predict(config(), **{"batch": 1, "train": True, **settings})


def test_what_cannot_be_served_is_an_error() -> None:
    with pytest.raises(InputError, match="partition"):
        predict(config(backend="flex"), batch=1, train=True)
    with pytest.raises(InputError, match=r"card_gib: expected more than the 1 GiB in reserve, got 1\.0"):
        largest_batches(Workload(config(), 1, train=True), [16.0, 1.0])


def test_phases_have_readable_names() -> None:
    names = {memory._when(phase.name) for phase in candidates(Workload(config("factorised_encoder"), 1, train=True))}
    assert {"before the first block", "update of the parameters", "backward pass, encoder 2, block 4"} <= names
    assert {"forward pass, encoder 1, block 12", "after the forward pass of encoder 1"} <= names
    assert "after the backward pass of encoder 2" in names


def test_a_model_with_values_is_untouched_by_the_hooks() -> None:
    """A ledger sees the tensors of one step only: it counts down what is released."""
    ledger = Ledger()
    with ledger:
        kept = nn.functional.linear(torch.zeros(4, 8), torch.zeros(16, 8))
        assert ledger.alive["activations"] >= kept.nbytes
        del kept
    assert sum(ledger.alive.values()) == 0
    assert ledger.phases[-1].peak_bytes >= 4 * 16 * 4


def test_forecast_is_plain_data() -> None:
    settings = {"batch": 2, "precision": "fp32", "optimiser": "sgd", "gradient_checkpointing": False, "device": "cpu"}
    made = config("joint", depth=1)
    found = forecast(made, True, (2.0,), settings)
    assert json.loads(json.dumps(found)) == found
    assert found["train"]["peak_bytes"] == predict(made, batch=2, train=True).peak_bytes
    assert found["largest_batch"]["train"]["2"] < found["largest_batch"]["inference"]["2"]
    assert "train" not in forecast(made, False, (2.0,), settings)


TINY = ["--image-size", "32", "--patch-size", "8", "--embed-dim", "32", "--depth", "1", "--num-heads", "2"]


def test_cost_prints_memory_and_the_largest_batch() -> None:
    command = ["cost", "--attention", "joint", *TINY, "--batch", "8", "--train", "--card-gib", "2"]
    done = CliRunner().invoke(app, [*command, "--json", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["memory"]
    made = TimeSformerConfig(image_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2, attention="joint")
    assert found["train"]["peak_bytes"] == predict(made, batch=8, train=True).peak_bytes
    assert found["inference"]["peak_bytes"] == predict(made, batch=8, train=False).peak_bytes
    assert list(found["largest_batch"]["train"]) == ["2"]
    shown = CliRunner().invoke(app, [*command, "--optimiser", "adamw", "--backend", "triton"])
    assert shown.exit_code == 0, shown.output
    assert "Clips, 2" in shown.stdout
    assert "adamw" in shown.stdout
    assert "traced on fake tensors" in shown.stdout


def test_cost_without_batch_says_nothing_of_memory() -> None:
    plain = json.loads(CliRunner().invoke(app, ["cost", "--attention", "joint", *TINY, "--json"]).stdout)
    assert "memory" not in plain
    wrong = CliRunner().invoke(app, ["cost", "--attention", "joint", *TINY, "--train", "--precision", "fp8"])
    assert wrong.exit_code == 2
    assert "precision" in wrong.output
