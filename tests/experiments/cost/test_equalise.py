"""Equal cost: the nearest width, depth or steps, held against all of them; and what a sweep makes of it."""

import json
from dataclasses import replace

import pytest

from tests.experiments.spec_fakes import SIZES
from tests.experiments.sweep_fakes import BASE, COST, changed, in_this_process, places, run, write
from timesformer import TimeSformerConfig
from timesformer.attention import names
from timesformer.config.cnn import CnnConfig
from timesformer.config.registry import macs_per_view
from timesformer.errors import InputError
from timesformer_experiments.cost.equalise import HEAD_TOLERANCE, Subject, cost_of, equalised
from timesformer_experiments.cost.training import train_macs
from timesformer_experiments.specs.sweep import parse_sweep

MODEL = TimeSformerConfig("joint", num_frames=4, num_classes=8, **SIZES | {"embed_dim": 24, "num_heads": 3, "depth": 2})
TO = Subject(replace(MODEL, attention="divided"), 8, 20)


def miss(found, by, target):
    return abs(cost_of(found, by) - target)


@pytest.mark.parametrize("by", ["macs_per_view", "params", "train_macs"])
@pytest.mark.parametrize("scheme", ["joint", "axial", "space"])
def test_width_is_the_nearest_of_all(scheme, by):
    target = cost_of(TO, by)
    start = Subject(replace(MODEL, attention=scheme), 8, 20)
    found = equalised(start, by, "embed_dim", target)
    heads = [replace(start, model=replace(start.model, num_heads=k, embed_dim=8 * k)) for k in range(1, 12)]
    heads = [each for each in heads if _fits(each)]
    widths = [replace(start, model=replace(start.model, embed_dim=3 * k)) for k in range(1, 40)]
    least_heads, least_width = (min(miss(each, by, target) for each in all_) for all_ in (heads, widths))
    kept = found.model.embed_dim // found.model.num_heads == 8
    assert kept == (least_heads <= max(least_width, HEAD_TOLERANCE * target))
    assert miss(found, by, target) == (least_heads if kept else least_width)
    assert (found.model.depth, found.steps) == (2, 20)


def _fits(subject):
    parts = {len(step.over) for encoder in subject.model.scheme.encoders for step in encoder.steps}
    return all(subject.model.num_heads % part == 0 for part in parts)


def test_heads_stay_whole_for_schemes_that_share_them():
    """A scheme whose steps have two parts never gets an odd number of heads."""
    model = replace(MODEL, num_heads=4)
    sharing = [name for name in names() if not _fits(Subject(replace(model, attention=name, num_heads=12), 1, 1))]
    assert sharing == []
    for name in names():
        found = equalised(Subject(replace(model, attention=name)), "params", "embed_dim", cost_of(TO, "params"))
        assert _fits(found)


@pytest.mark.parametrize("by", ["macs_per_view", "params"])
def test_depth_is_the_nearest_of_all(by):
    target = cost_of(Subject(replace(TO.model, depth=5)), by)
    found = equalised(Subject(MODEL), by, "depth", target)
    all_ = [Subject(replace(MODEL, depth=depth)) for depth in range(1, 20)]
    assert miss(found, by, target) == min(miss(each, by, target) for each in all_)
    assert found.model == replace(MODEL, depth=found.model.depth)


def test_steps_are_the_nearest_of_all():
    target = cost_of(TO, "train_macs")
    found = equalised(Subject(MODEL, 8, 3), "train_macs", "steps", target)
    assert miss(found, "train_macs", target) == min(
        miss(Subject(MODEL, 8, steps), "train_macs", target) for steps in range(1, 60)
    )
    assert cost_of(found, "train_macs") == train_macs(macs_per_view(MODEL), 8 * found.steps)
    assert found.model == MODEL


def test_what_costs_less_than_the_smallest_gets_the_smallest():
    assert equalised(Subject(MODEL), "macs_per_view", "depth", 1).model.depth == 1
    for schedule in (["joint", "space", "divided"], {"2": "space"}):
        scheduled = replace(MODEL, depth=4, schedule=schedule)
        assert equalised(Subject(scheduled), "macs_per_view", "depth", 1).model.depth == 3  # all that it names
        assert (
            equalised(Subject(scheduled), "macs_per_view", "depth", cost_of(Subject(scheduled), "macs_per_view")).model
            == scheduled
        )


def test_of_two_equally_near_the_smaller():
    one, two = (train_macs(macs_per_view(MODEL), steps) for steps in (1, 2))
    assert equalised(Subject(MODEL), "train_macs", "steps", (one + two) // 2).steps == 1


def test_a_convolutional_network_has_steps_alone():
    cnn = Subject(CnnConfig(baseline="c2d", num_classes=8, num_frames=4, image_size=32), 2, 2)
    with pytest.raises(InputError, match="vary: the c2d network has no depth; expected steps"):
        equalised(cnn, "params", "depth", 1000)


# In a sweep

EQUAL = {"to": "divided", "by": "macs_per_view", "vary": "embed_dim"}
AXES = {"model.attention": ["divided", "joint", "axial"], "model.num_frames": [2, 4], "seed": [0, 1]}


def test_each_cell_costs_what_the_reference_does_beside_it():
    sweep = changed(axes=AXES, equalise=EQUAL)
    jobs = [job for job in parse_sweep(sweep).jobs().values() if job.cell is not None]
    plain = {tuple(job.cell.values()): job for job in parse_sweep(changed(axes=AXES)).jobs().values()}
    assert len(jobs) == 12
    for job in jobs:
        note = job.notes["equalised"]
        scheme, frames, seed = job.cell.values()
        reference = plain["divided", frames, seed]
        assert note["target"] == cost_of(Subject(reference.spec.model), "macs_per_view")
        assert note["cost"] == cost_of(Subject(job.spec.model), "macs_per_view")
        assert note["value"] == job.spec.model.embed_dim
        assert abs(note["difference_percent"]) < 15
        if scheme == "divided":
            assert job.hash() == plain[scheme, frames, seed].hash()
            assert note["difference_percent"] == 0
    # Hashes are those of the runs as they are made, and those of a plain sweep stay.
    assert {job.hash() for job in jobs if job.cell["model.attention"] == "joint"}.isdisjoint(
        job.hash() for job in plain.values()
    )


def test_steps_at_equal_training_from_a_budget_of_epochs():
    base = BASE | {"recipe": {"epochs": 2, "batch_size": 8}}
    equal = {"to": "divided", "by": "train_macs", "vary": "steps"}
    axes = {"model.attention": ["divided", "joint"]}
    divided, joint = parse_sweep(changed(base=base, axes=axes, equalise=equal)).jobs().values()
    assert divided.spec.recipe.epochs == 2
    assert (joint.spec.recipe.epochs, joint.spec.recipe.steps) == (None, joint.notes["equalised"]["value"])
    assert joint.notes["equalised"]["target"] == train_macs(macs_per_view(divided.spec.model), 4 * 8)


@pytest.mark.parametrize(
    ("equal", "axes", "message"),
    [
        (EQUAL | {"to": "other"}, {}, r"equalise.to: expected one of \['divided', 'joint'\], got 'other'"),
        (EQUAL | {"axis": "model.depth"}, {}, "equalise.axis: 'model.depth' is no axis"),
        (EQUAL | {"vary": "steps"}, {}, "vary: steps change no macs_per_view"),
        (EQUAL, {"model.embed_dim": [16]}, "equalise.vary: model.embed_dim is an axis already"),
        (EQUAL | {"by": "train_macs"}, {}, "equalise.by: train_macs needs the data"),
    ],
)
def test_what_cannot_be_is_refused(equal, axes, message):
    sweep = changed(COST, equalise=equal, axes=COST["axes"] | axes)
    with pytest.raises(InputError, match=message):
        parse_sweep(sweep).jobs()


def test_a_schedule_of_named_steps_is_not_stretched():
    recipe = {"steps": 4, "batch_size": 8, "schedule": "steps", "lr_steps": [0, 2], "lr_factors": [1, 0.1]}
    equal = {"to": "divided", "by": "train_macs", "vary": "steps"}
    with pytest.raises(InputError, match=r"equalise\.vary: the schedule 'steps' names the steps of its cuts"):
        parse_sweep(changed(base=BASE | {"recipe": recipe}, equalise=equal)).jobs()


def test_the_difference_is_printed_and_kept(tmp_path, monkeypatch):
    in_this_process(monkeypatch)
    file = write(tmp_path, changed(COST, equalise=EQUAL))
    where = places(tmp_path / "out", tmp_path)
    shown = json.loads(run("sweep", file, *where, "--dry-run", "--json").stdout)["equalised"]
    text = run("sweep", file, *where, "--dry-run").stdout
    assert "at equal cost" in text
    assert f"{shown['cost attention=joint num_frames=4']['difference_percent']:+.2f} %" in text
    done = run("sweep", file, *where, "--jobs", "1", "--json")
    assert done.exit_code == 0, done.output
    records = {record["name"]: record for record in json.loads(done.stdout)["records"]}
    cells = json.loads((tmp_path / "out" / "cells.json").read_text())["cells"]
    assert {cell["name"]: cell["equalised"] for cell in cells} == shown
    assert {name: record["equalised"] for name, record in records.items()} == shown
    for record in records.values():
        assert record["metrics"]["macs_per_view"] == record["equalised"]["cost"]
