"""Sparse patterns: their counted densities, and recall from records."""

import json
from pathlib import Path
from typing import Any

import pytest

from timesformer.attention import build
from timesformer.errors import InputError
from timesformer_experiments.cost.break_even import first_less
from timesformer_experiments.paper.artefacts.sparse import sparse
from timesformer_experiments.paper.measured import patterns
from timesformer_experiments.paper.setting import PROBES
from timesformer_experiments.records.log import make_record, now_utc
from timesformer_experiments.specs.sweep import load_sweep

SWEEP = Path(__file__).parents[3] / "experiments" / "sweeps" / "sparse_250_steps.yaml"


def record(probe: str, seed: int, recall: float) -> dict[str, Any]:
    each = {"pattern": "swin(window=[2,2,2])", "layer": 0, "recall": recall, "recall_by_head": [recall - 0.1, recall]}
    spec = {"data": {"probe": probe}}
    return {"kind": "recall", "seed": seed, "spec": spec, "metrics": {"recall": [{**each, "density": 0.0625}]}}


@pytest.mark.parametrize(
    ("name", "declared"),
    [
        ("joint", 100.0),
        ("divided", 100 * (196 + 32) / 6272),
        ("swin", 100 * 8 * 49 / 6272),
        ("dilated", 100 * 3 * 9 * 4 / 6272),
    ],
)
def test_declared_pairs_by_hand(name: str, declared: float) -> None:
    """Of 32 x 14 x 14 patches: a window of 8 x 7 x 7, or 3 x 3 x 3 tiles of 1 x 2 x 2 patches, for every query."""
    found = sparse._density(name)
    assert found["counted_pairs_needed_percent"] == pytest.approx(declared)
    assert found["counted_pairs_executed_percent"] == pytest.approx(declared)


def test_masks_inside_of_tiles_are_executed_in_vain() -> None:
    found = sparse._density("neighbourhood")
    assert found["counted_pairs_needed_percent"] == pytest.approx(100 * 3 * 49 / 6272)
    assert found["counted_pairs_executed_percent"] > found["counted_pairs_needed_percent"]


def test_recall_is_the_mean_over_seeds() -> None:
    records = [record(probe, seed, recall) for probe in PROBES for seed, recall in ((0, 0.4), (1, 0.6))]
    frame = sparse.recalls([{"kind": "run"}, *records])
    assert frame["measured_recall_percent"].tolist() == pytest.approx([50.0, 50.0])
    assert frame["measured_lowest_head_percent"].tolist() == pytest.approx([40.0, 40.0])
    assert frame["counted_pairs_percent"].tolist() == pytest.approx([6.25, 6.25])
    assert frame["measured_seeds"].tolist() == [2, 2]
    assert list(frame["probe"]) == list(PROBES)


def test_recall_of_a_missing_probe() -> None:
    with pytest.raises(InputError, match="sparse: the records have no measurement of recall on motion"):
        sparse.recalls([record("appearance", 0, 0.4)])


def test_patterns_can_be_built_and_the_plan_is_that_of_table_1() -> None:
    for pattern in (pattern for family in sparse.NARROWER.values() for pattern in family):
        assert build(pattern).encoders
    assert {spec.model.attention for spec in sparse.plan("quick")} == {"joint", "space"}  # type: ignore[union-attr]


def test_sizes_from_which_on() -> None:
    assert first_less([False, True, False, True]) == 3
    assert first_less([True, False]) is None


def final_runs() -> list[tuple[Any, dict[str, Any]]]:
    """The final runs of the sweep, without their recipes, with their cells."""
    sweep = load_sweep(SWEEP)
    return [(job.spec, job.cell) for job in sweep.jobs(SWEEP, SWEEP.parent).values() if job.cell is not None]


def test_pairs_that_meet_are_those_that_the_sweep_registers() -> None:
    """Two ways of counting: the sweep's file was written from another script."""
    found = {}
    for spec, _ in final_runs():
        shares = patterns.pairs_met(spec.model, spec.definition()["data"])
        found[spec.model.attention.partition("(")[0]] = [round(100 * share) for share in shares]
    text = " ".join(SWEEP.read_text().replace("#", " ").split())
    for name, shares in found.items():
        assert f"{name} {', '.join(map(str, shares))}" in text
    assert len(found) == 8
    assert found["divided"] == [0, 0, 0]  # by construction: a place meets itself and its own frame


def test_macs_of_the_attention_core_by_hand() -> None:
    """Two blocks of 64 patches and width 96: each pair takes 96 MACs in q·k and as many in attention·v."""
    models = {spec.model.attention.partition("(")[0]: spec.model for spec, _ in final_runs()}
    assert patterns.core_macs(models["joint"], "executed") == 2 * 2 * 96 * 64**2
    assert patterns.core_macs(models["divided"], "executed") == 2 * 2 * 96 * 64 * (4 + 16)
    assert patterns.core_macs(models["neighbourhood"], "needed") == 2 * 2 * 96 * 64 * 27
    assert patterns.core_macs(models["neighbourhood"], "executed") == 2 * 2 * 96 * 64 * 27  # a tile shares its window


def test_accuracy_over_macs_from_the_report_of_the_sweep(tmp_path: Path) -> None:
    assert patterns.patterns(tmp_path) == []
    assert patterns.part([]) is None
    assert f"these results have no {patterns.FOLDER}. `timesformer sweep" in sparse.left_out("quick")
    assert SWEEP.name in sparse.left_out("quick")
    folder = tmp_path / patterns.FOLDER
    folder.mkdir(parents=True)
    percent = {"joint": [98.0, 100.0, 99.0], "divided": [26.0, 25.0, 24.0], "dilated": [60.0, 70.0, 50.0]}
    records = []
    for spec, cell in final_runs():
        name = spec.model.attention.partition("(")[0]
        if name in percent:
            metrics = {"top1_percent": percent[name][spec.seed - 400], "test_videos": 256}
            metrics |= {"top1_low_percent": 0.0, "top1_high_percent": 100.0}
            made = make_record(
                spec, started_utc=now_utc(), wall_seconds=1.0, sweep=SWEEP.stem, cell=cell, metrics=metrics
            )
            records.append(made | {"selection": {"draws": 4, "best_percent": 99.0}})
    validation = {**records[0], "hash": "0" * 16, "cell": None, "evaluated_on": "validation"}
    (folder / "records.jsonl").write_text("".join(json.dumps(each) + "\n" for each in [*records, validation]))
    assert sparse.beside(tmp_path, "smoke") == []
    entries = sparse.beside(tmp_path, "quick")
    assert [entry["measured_top1_percent"] for entry in entries] == pytest.approx([99.0, 25.0, 60.0])
    assert [entry["found"] for entry in entries] == ["learns", "does not", "in part"]
    assert [entry["measured_seeds"] for entry in entries] == [3, 3, 3]
    assert entries[0]["measured_top1_low_percent"] < 99.0 < entries[0]["measured_top1_high_percent"]
    part = patterns.part(entries)
    assert part is not None
    assert "2 of 3 are as predicted; not so: dilated" in part.findings[0]
    assert "divided: 26.0, 25.0, 24.0 % by seed, with 31 % of joint's MACs in the attention core." in part.findings
    assert any("The intervals of 1 of 3 reach down to chance" in finding for finding in part.findings)
    assert set(part.contents()) == {"accuracy.csv", "accuracy.png"}
    (folder / "records.jsonl").write_text(json.dumps(validation) + "\n")
    with pytest.raises(InputError, match="expected finished runs of the sweep on test videos"):
        patterns.patterns(tmp_path)
