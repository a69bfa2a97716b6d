"""Sweep files: what they mean, and what is wrong with them is said before anything runs."""

from pathlib import Path

import pytest
import yaml

from tests.experiments.spec_fakes import SIZES, fields, small
from tests.experiments.sweep_fakes import BASE, COST, TINY, changed, write
from timesformer.errors import InputError
from timesformer_experiments import load_results
from timesformer_experiments.cost.measures import measured
from timesformer_experiments.records.log import LOG, latest, read_records
from timesformer_experiments.specs.run import RunSpec
from timesformer_experiments.specs.sweep import load_sweep, parse_sweep

SWEEPS = Path(__file__).parents[3] / "experiments" / "sweeps"
RESULTS = Path(__file__).parents[3] / "results" / "sweeps"


def test_axes_are_crossed_in_their_order():
    jobs = parse_sweep(TINY).jobs()
    assert [job.cell for job in jobs.values()] == [
        {"model.attention": attention, "model.num_frames": frames}
        for attention in ("divided", "joint")
        for frames in (2, 4)
    ]
    assert next(iter(jobs.values())).name == "tiny attention=divided num_frames=2"
    # A cell is the run that it would be alone.
    first = next(iter(jobs))
    assert first == RunSpec.parse(fields(model={"attention": "divided", "num_frames": 2, **SIZES})).hash()


def test_zipped_axes_move_together():
    sweep = changed(
        axes={"model.num_frames": [2, 4], "seed": [0, 1], "recipe.batch_size": [8, 4]},
        zip=[["model.num_frames", "recipe.batch_size"]],
    )
    cells = parse_sweep(sweep).values()
    assert [tuple(cell.values()) for cell in cells] == [(2, 0, 8), (2, 1, 8), (4, 0, 4), (4, 1, 4)]
    assert "tiny num_frames=4 seed=1" in [job.name for job in parse_sweep(sweep).jobs().values()]


def test_a_cell_is_left_out_if_it_has_all_of_an_entry():
    sweep = changed(exclude=[{"model.attention": "joint", "model.num_frames": [4, 8]}])
    cells = [tuple(cell.values()) for cell in parse_sweep(sweep).values()]
    assert cells == [("divided", 2), ("divided", 4), ("joint", 2)]


def test_no_axes_is_one_cell():
    assert [job.cell for job in parse_sweep(changed(axes={})).jobs().values()] == [{}]


def test_a_run_to_start_from_is_made_once_and_its_fields_are_axes():
    image = fields(
        name="image",
        data={"probe": "appearance", "num_train": 16, "num_test": 8, "stills": True},
        model={"attention": "space", "num_frames": 1, **SIZES},
    )
    sweep = changed(
        base=BASE | {"init_from": image},
        axes=TINY["axes"] | {"seed": [0, 1], "init_from.seed": [0, 1]},
        zip=[["seed", "init_from.seed"]],
    )
    jobs = parse_sweep(sweep).jobs()
    starts = [key for key, job in jobs.items() if job.cell is None]
    assert len(jobs) == 2 + 8
    assert len(starts) == 2
    order = list(jobs)
    for key, job in jobs.items():
        if job.cell is not None:
            assert job.source.seed == job.spec.seed
            assert order.index(job.source.hash()) < order.index(key)


def test_names_of_cells():
    sweep = changed(cell="{name}/{model.attention}-{data.probe}-{model.num_frames}")
    assert [job.name for job in parse_sweep(sweep).jobs().values()][1] == "tiny/divided-motion-4"
    two_seeds = parse_sweep(changed(axes={"seed": [0], "data.seed": [1]})).jobs()
    assert next(iter(two_seeds.values())).name == "tiny seed=0 data.seed=1"


def test_costs_need_no_data():
    jobs = parse_sweep(COST).jobs()
    assert {job.spec.kind for job in jobs.values()} == {"cost"}
    assert len(jobs) == 4
    batches = changed(COST, axes={"recipe.batch_size": [1, 2]}, base={"model": SIZES, "recipe": {"precision": "bf16"}})
    assert [job.spec.recipe.batch_size for job in parse_sweep(batches).jobs().values()] == [1, 2]


def test_costs_of_runs_are_those_of_the_model_and_its_batch():
    (job,) = parse_sweep(changed(axes={}, measure=["memory"])).jobs().values()
    assert (job.spec.kind, job.spec.recipe.batch_size, job.spec.protocol) == ("cost", 8, "clip")
    with pytest.raises(InputError, match="'tiny seed=1' and 'tiny seed=0' are the same"):
        parse_sweep(changed(axes={"seed": [0, 1]}, measure=["params"])).jobs()


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (changed(axis={}), r"s.yaml: axis: unknown field"),
        (changed(name="a b"), r"s.yaml: name"),
        (changed(base={}), r"s.yaml: base"),
        (changed(base=BASE | {"name": "x"}), r"s.yaml: base: name: the cells' names"),
        (changed(axes={"model..x": [1]}), r"s.yaml: axes: 'model..x': expected the path"),
        (changed(axes={"name": ["x"]}), r"s.yaml: axes: 'name'"),
        (changed(axes={"seed": []}), r"s.yaml: axes: seed: it has no values"),
        (changed(axes={"seed": [float("nan")]}), r"s.yaml: axes: seed: expected plain values"),
        (changed(axes={"model.atention": ["joint"]}), r"s.yaml: cell tiny atention=joint: model: .*'atention'"),
        (changed(axes={"modle.attention": ["joint"]}), r"s.yaml: cell tiny .*: modle: unknown field"),
        (changed(axes={"model.attention": ["jiont"]}), r"s.yaml: cell tiny attention=jiont: model: .*'jiont'"),
        (changed(axes={"seed.x": [1]}, base=BASE | {"seed": 1}), r"s.yaml: axes.seed.x: seed has no fields, it is 1"),
        (
            changed(axes={}, base=BASE | {"init_from": fields(recipe={"stops": 4})}),
            r"s.yaml: cell tiny: init_from.recipe: recipe: unknown field 'stops'[^\n]*$",
        ),
        (changed(axes={"seed": [0, 0]}), r"s.yaml: 'tiny seed=0' and 'tiny seed=0' are the same"),
        (changed(zip=[["seed", "model.attention"]]), r"s.yaml: zip: 'seed' is no axis"),
        (changed(zip=[["model.attention"], ["model.attention"]]), r"s.yaml: zip: 'model.attention' occurs twice"),
        (
            changed(axes={"seed": [0, 1], "recipe.lr": [1]}, zip=[["seed", "recipe.lr"]]),
            r"s.yaml: zip: axes that move together .* \{'seed': 2, 'recipe.lr': 1\}",
        ),
        (changed(exclude=[{"seed": 1}]), r"s.yaml: exclude: 'seed' is no axis"),
        (changed(exclude=[{"model.attention": "axial"}]), r"s.yaml: exclude.0: no cell has"),
        (changed(exclude=[{"model.num_frames": [2, 4]}]), r"s.yaml: exclude: it leaves no cell"),
        (changed(measure=["speed"]), r"s.yaml: measure.0"),
        (changed(measure=[]), r"s.yaml: measure"),
        (changed(cell="{model.frames}"), r"s.yaml: cell: model.frames is no field"),
        (changed(COST, axes={"recipe.lr": [1]}), r"s.yaml: cell cost lr=1: recipe: lr: it is no part of a cost"),
        (changed(COST, base={"model": 3}, axes={}), r"s.yaml: cell cost: model: expected fields"),
        (changed(COST, base={"model": SIZES, "protocol": "x"}, axes={}), r"s.yaml: cell cost: protocol: .*'x'"),
    ],
)
def test_what_is_wrong_is_named(sweep, message):
    with pytest.raises(InputError, match=message):
        parse_sweep(sweep, "s.yaml").jobs("s.yaml")


def test_paths_are_taken_from_the_files_folder(tmp_path):
    (tmp_path / "scheme.py").write_text((Path(__file__).parents[1] / "own_scheme.py").read_text())
    sweep = changed(COST, base={"model": SIZES, "scheme_file": "scheme.py"}, axes={"model.attention": ["checkers"]})
    path = write(tmp_path, sweep)
    (job,) = load_sweep(path).jobs(path, path.parent).values()
    assert job.spec.scheme_file == tmp_path / "scheme.py"
    assert len(job.spec.definition()["scheme_file_sha256"]) == 64
    with pytest.raises(InputError, match=r"nowhere.yaml: no such file"):
        load_sweep(tmp_path / "nowhere.yaml")


def test_the_shipped_sweeps():
    cost = load_sweep(SWEEPS / "cost_grid.yaml")
    assert len(cost.jobs()) == 252
    assert "memory" in cost.measure
    assert "accuracy" not in cost.measure
    probe = load_sweep(SWEEPS / "probe_grid.yaml")
    sizes = {path: len(values) for path, values in probe.axes.items()}
    assert list(sizes)[:3] == ["model.attention", "model.num_frames", "model.image_size"]
    assert min(sizes.values()) >= 2
    assert len(probe.jobs()) == len(probe.values()) + 1 >= 31
    for path in SWEEPS.glob("*.yaml"):
        assert f"experiments/sweeps/{path.name}" in path.read_text()
        assert yaml.safe_load(path.read_text())["name"] == path.stem


def test_the_committed_results_are_those_of_the_shipped_sweeps():
    folders = {folder.name: folder for folder in RESULTS.iterdir()}
    assert "cost_grid" in folders
    for name, folder in folders.items():
        file = SWEEPS / f"{name}.yaml"
        shipped = yaml.safe_load(file.read_text())
        shipped["base"].pop("init_head", None)  # the rule of the committed runs, stated since
        assert yaml.safe_load((folder / "sweep.yaml").read_text()) == shipped
        frame, sweep = load_results(folder), load_sweep(file)
        cells = {key: job for key, job in sweep.jobs().items() if job.cell is not None}
        assert list(frame["name"]) == [job.name for job in cells.values()]
        assert (frame["outcome"] == "done").all()
        if sweep.tune is None:  # with it, recipes are those of the best draws
            assert list(frame["hash"]) == list(cells)
        else:
            assert set(frame["hash"]).isdisjoint(cells)
    # Counted and predicted anew, of the smallest and of the largest model.
    cells = list(load_sweep(SWEEPS / "cost_grid.yaml").jobs().values())
    records = latest(read_records(folders["cost_grid"] / LOG))
    for job in (cells[0], cells[-1]):
        assert measured(job.cost, job.measure) == records[job.hash()]["metrics"]


def test_several_processes_are_no_part_of_the_hash_unless_they_draw_their_own_noise():
    model = {"attention": "divided", "num_frames": 2, **SIZES}
    one = small()
    assert small(processes=2, strategy="fsdp", tracker="tensorboard").hash() == one.hash()
    noisy = {"model": model | {"drop_rate": 0.1}}
    assert small(processes=2, **noisy).hash() != small(**noisy).hash()
    with pytest.raises(InputError, match="processes: 3 cannot share batch_size / accumulate = 8 clips equally"):
        small(processes=3)
    with pytest.raises(InputError, match=r"run: tracker: expected one of .*tensorboard.*, got 'paper'"):
        small(tracker="paper")
    with pytest.raises(InputError, match="run: strategy"):
        small(strategy="dp")


@pytest.mark.parametrize("name", ["steps", "epochs", "lr", "workers"])
def test_a_cost_says_which_fields_of_a_recipe_it_has(name):
    sweep = changed(COST, base={"model": SIZES, "recipe": {name: 2}})
    with pytest.raises(InputError, match=rf"{name}: it is no part of a cost: .* a cost has batch_size"):
        parse_sweep(sweep).jobs()
    with pytest.raises(InputError, match=rf"recipe: {name}: it is no part of a cost"):
        parse_sweep(changed(COST, axes={f"recipe.{name}": [1, 2]})).jobs()
