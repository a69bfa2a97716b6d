"""Sizes from which on a scheme needs less, and the bench of attention cores, at a tiny size."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from timesformer import TimeSformerConfig
from timesformer.config.counting import macs_per_view
from timesformer_experiments.bench import sparse
from timesformer_experiments.cli.main import app
from timesformer_experiments.cost import break_even
from timesformer_experiments.cost.break_even import first_less
from timesformer_experiments.cost.memory import predict
from timesformer_experiments.report.tables import to_markdown

SMALL: dict[str, Any] = {
    "num_frames": 4,
    "image_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "num_heads": 2,
    "depth": 2,
}


def test_the_first_size_from_which_on() -> None:
    assert first_less([False, True, False, True, True]) == 3
    assert first_less([True, True]) == 0
    assert first_less([True, False]) is None


def test_sizes_are_those_of_the_counts() -> None:
    made = TimeSformerConfig(attention="sliding_tile(tile=[1,2,2],window=[3,1,1])", **SMALL)
    found = break_even.break_even(made, ("joint",), frames=(1, 2, 8), patches=(2, 4))
    assert [each.along for each in found] == ["num_frames", "image_size"]
    assert found[0].tried == (1, 2, 8)
    assert found[1].tried == (16, 32)
    for each in found:
        less = {"fewer_macs": [], "less_memory": []}  # type: dict[str, list[bool]]
        for value in each.tried:
            ours, theirs = (
                TimeSformerConfig(**{**SMALL, "attention": name, each.along: value})
                for name in (made.attention, "joint")
            )
            less["fewer_macs"].append(macs_per_view(ours) < macs_per_view(theirs))
            peaks = [predict(size, batch=1, train=True).peak_bytes for size in (ours, theirs)]
            less["less_memory"].append(peaks[0] < peaks[1])
        for name, flags in less.items():
            first = first_less(flags)
            assert getattr(each, f"{name}_from") == (None if first is None else each.tried[first])
    assert found[0].fewer_macs_from == 1  # four tiles of a frame, of which a tile sees one
    assert found[0].fewer_macs_tokens == 16


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(break_even, "FRAMES", (1, 2))
    monkeypatch.setattr(break_even.break_even, "__defaults__", (("divided",), (1, 2), (2,), lambda text: None))
    sizes = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    line = ["cost", "--attention", "neighbourhood", "--option", "window=1,2,2", "--break-even", "--json", *sizes]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["attention"] == "neighbourhood(window=[1,2,2])"
    assert found["break_even"]["macs_executed"] == found["macs_per_view"] >= found["break_even"]["macs_needed"]
    assert [each["reference"] for each in found["break_even"]["sizes"]] == ["divided", "divided"]
    for line, message in (
        (["cost", "--attention", "sliding_tile", "--option", "window"], "expected an option and its value"),
        (["cost", "--attention", "sliding_tile", "--option", "window=3,3"], "expected a list of 3"),
        (["cost", "--attention", "all", "--option", "window=3,3,3"], "the name of one scheme"),
        (["cost", "--attention", "divided", "--schedule", "{0: "], "expected schemes by depth"),
        (["cost", "--baseline", "i3d", "--break-even"], "a CNN has no attention"),
    ):
        refused = CliRunner().invoke(app, line)
        assert refused.exit_code == 2
        assert message in refused.output


@pytest.mark.integration
def test_cores_are_measured_in_turns() -> None:
    record = sparse.run(("joint", sparse.EIGHTH), (16, 2, 2), repetitions=2)
    joint, eighth = record["cases"]
    assert len(joint["seconds"]) == len(eighth["processor_seconds"]) == 2
    assert joint["speedup"] == joint["memory_ratio"] == 1
    assert joint["declared_pairs_share"] == 1
    assert eighth["declared_pairs_share"] == eighth["executed_pairs_share"] == 0.25  # 2 of 8 tiles of whole frames
    assert record["reached"] == (eighth["speedup"] >= 3 and eighth["memory_ratio"] <= 1.2)
    assert "sliding" in to_markdown(sparse.table(record))


def test_the_target_is_an_eighth_of_the_pairs() -> None:
    assert sparse.Core(sparse.EIGHTH).pairs("needed") * 8 == sparse.Core("joint").pairs("needed")
    assert sparse.Core(sparse.EIGHTH).pairs("executed") == sparse.Core(sparse.EIGHTH).pairs("needed")
