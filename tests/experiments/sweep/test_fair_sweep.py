"""A sweep that tunes, equalises and adds seeds: from one file, however often it is interrupted, to the same report."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.experiments.spec_fakes import SIZES
from tests.experiments.sweep_fakes import STEADY, in_this_process, places, run, write
from timesformer.data.probes import make_probe
from timesformer.errors import InputError
from timesformer.training.loop import TrainingDiverged
from timesformer_experiments.analysis.report import sweep_report
from timesformer_experiments.jobs import attempt
from timesformer_experiments.records.log import latest, read_records
from timesformer_experiments.report.style import png
from timesformer_experiments.report.tables import to_csv
from timesformer_experiments.specs.sweep import parse_sweep
from timesformer_experiments.sweep.carry_out import carry_out_sweep, open_sweep
from timesformer_experiments.sweep.forecast import forecast

DATA = {"probe": "motion", "num_train": 4, "num_test": 4, "num_val": 4, "preprocessing": {"short_side": 20}}
BASE = {
    "data": DATA,
    "model": {"num_frames": 2, **SIZES, "embed_dim": 8},
    "recipe": {"steps": 2, "batch_size": 4},
    "protocol": "clip",
    "threads": 1,
}
CLAIM = {"name": "divided beats joint", "family": "table", "first": "divided", "second": "joint", "most_seeds": 8}
TUNE = {"budget": 2, "over": {"recipe.lr": "loguniform(1e-4, 1e-2)"}, "seed": 100}
FAIR = {
    "name": "fair",
    "base": BASE,
    "axes": {"model.attention": ["divided", "joint"]},
    "equalise": {"to": "divided", "by": "macs_per_view", "vary": "embed_dim"},
    "tune": TUNE,
    "until": {"claims": "claims.yaml"},
}
TIMES = ("started_utc", "finished_utc", "wall_seconds", "environment")


class Killed(BaseException):
    """As Ctrl-C: nothing of it is recorded."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    in_this_process(monkeypatch)


def fair(folder: Path, claims=(CLAIM,), **fields) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "claims.yaml").write_text(yaml.safe_dump({"claims": list(claims)}))
    return write(folder, FAIR | fields)


def limited(monkeypatch, count):
    """The process is killed in the middle of the run after so many."""
    made = attempt.train_and_evaluate
    left = [count]

    def dying(*words):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return made(*words)

    monkeypatch.setattr(attempt, "train_and_evaluate", dying)


def held(out):
    """The records without times and machine, by hash."""
    found = latest(read_records(out / "records.jsonl"))
    for record in found.values():
        for name in TIMES:
            del record[name]
        record["metrics"] = {name: record["metrics"][name] for name in STEADY}
        for half in ("train", record["evaluated_on"]):
            for name in ("fingerprint_seconds", "fingerprint_read"):  # digests are remembered between runs
                del record["dataset"][half][name]
    return found


def shown(out):
    """A report, as plain data and pictures."""
    made = sweep_report(out)
    return {
        **made.to_dict(),
        "tables": {stem: to_csv(table) for stem, table in made.tables.items()},
        "figures": {name: hashlib.sha256(png(figure, 30)).hexdigest() for name, figure in made.figures.items()},
    }


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The folder of an undisturbed sweep."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        in_this_process(patch)
        done = run("sweep", fair(folder), *places(folder / "out", data), "--jobs", "1", "--json")
        assert done.exit_code == 0, done.output
    return folder, json.loads(done.stdout)


def test_killed_twice_it_ends_with_the_report_of_an_undisturbed_one(whole, data, tmp_path, monkeypatch):
    file, out = fair(tmp_path), tmp_path / "out"
    for count in (3, 13):  # once while recipes are tuned, once in the second look
        with pytest.MonkeyPatch.context() as patch:
            limited(patch, count)
            with pytest.raises(Killed):
                carry_out_sweep(open_sweep(file, out, data), jobs=1, progress=False)
    assert len(read_records(out / "records.jsonl")) == 16
    status = json.loads(run("status", out, "--json").stdout)
    assert status["phases"]["tuning"]["done"] == 4
    assert status["most_runs"] == 20
    assert run("sweep", file, *places(out, data), "--jobs", "1").exit_code == 0
    assert held(out) == held(whole[0] / "out")
    report, other = shown(out), shown(whole[0] / "out")
    assert report == other
    assert {"tuning", "tuning_best_of", "tuning_learning_rate", "equal_cost", "claims"} <= set(report["tables"])
    assert {"tuning_best_of_draws", "tuning_learning_rate"} <= set(report["figures"])
    assert {each["verdict"] for each in report["comparisons"]} == {"not tested"}
    assert all(each["direction_p"] is None and each["low_points"] is not None for each in report["comparisons"])
    assert any(said.startswith("Claim divided beats joint: ") for said in report["findings"])
    cells, others = (
        {k: v for k, v in json.loads((folder / "out" / "cells.json").read_text()).items() if k != "written_utc"}
        for folder in (tmp_path, whole[0])
    )
    assert cells == others
    size = (out / "records.jsonl").stat().st_size
    assert run("sweep", file, *places(out, data), "--jobs", "1").exit_code == 0
    assert (out / "records.jsonl").stat().st_size == size


def test_each_variant_has_the_same_draws_and_the_best_on_validation(whole):
    records = read_records(whole[0] / "out" / "records.jsonl")
    draws = parse_sweep(FAIR).tune.draws()
    tuned = [record for record in records if "tuning" in record]
    finals = [record for record in records if record["cell"] is not None]
    assert {record["hash"] for record in whole[1]["records"]} == {record["hash"] for record in finals}
    for variant in ("divided", "joint"):
        own = [record for record in tuned if record["tuning"]["variant"] == {"model.attention": variant}]
        assert [record["tuning"]["values"] for record in own] == draws
        assert {(record["evaluated_on"], record["seed"], record["cell"]) for record in own} == {
            ("validation", 100, None)
        }
        accuracies = [record["metrics"]["top1_percent"] for record in own]
        best = accuracies.index(max(accuracies))  # of equal ones the earlier
        mine = [record for record in finals if record["cell"]["model.attention"] == variant]
        assert len(mine) == 8
        for seed, record in enumerate(mine):
            selection = record["selection"]
            assert (record["evaluated_on"], record["seed"], record["spec"]["data"]["seed"]) == ("test", seed, seed)
            assert (selection["on"], selection["draws"], selection["search"]) == ("validation", 2, "random")
            assert (selection["draw"], selection["chosen"]) == (best, draws[best])
            assert selection["over"] == {"recipe.lr": "loguniform(0.0001, 0.01)"}
            assert selection["best_percent"] == max(accuracies)
            assert record["spec"]["recipe"]["lr"] == draws[best]["recipe.lr"]
            assert len(record["claims_digest"]) == 64
            assert record["equalised"]["variant"] == variant
        digests = {record["selection"]["tuning_sha256"] for record in mine}
        assert len(digests) == 1


def test_a_dry_run_knows_both_phases(data, tmp_path):
    plan, most_runs = open_sweep(fair(tmp_path), tmp_path / "out", data).outlook()
    shown = forecast("fair", plan, 1, memory=False, most_runs=most_runs).to_dict()
    assert shown["phases"] == {
        "tuning": {"runs": 4, "done": 0, "failed": 0, "left": 4},
        "final": {"runs": 10, "done": 0, "failed": 0, "left": 10},
    }
    assert (shown["runs"], shown["most_runs"]) == (14, 20)
    assert not (tmp_path / "out").exists()


def test_a_driver_that_began_before_another_ended_all_makes_nothing_again(whole, data, tmp_path):
    opened = open_sweep(fair(tmp_path), tmp_path / "out", data)
    assert opened.plan.left() == 4
    shutil.copytree(whole[0] / "out", tmp_path / "out")
    size = (tmp_path / "out" / "records.jsonl").stat().st_size
    result = carry_out_sweep(opened, progress=False)
    assert [cell["hash"] for cell in result.cells] == [record["hash"] for record in whole[1]["records"]]
    assert (tmp_path / "out" / "records.jsonl").stat().st_size == size


def test_draws_that_fail_hold_their_variant_back(data, tmp_path, monkeypatch):
    """A diverged draw is an outcome; another failure is not, until it is run again."""
    made = attempt.train_and_evaluate

    def failing(spec, *rest):
        if spec.evaluate_on == "validation" and spec.recipe.lr == parse_sweep(FAIR).tune.draws()[0]["recipe.lr"]:
            raise TrainingDiverged("loss of step 1") if spec.model.attention == "divided" else MemoryError("no room")
        return made(spec, *rest)

    sweep = {k: v for k, v in FAIR.items() if k != "until"}
    sweep |= {"axes": FAIR["axes"] | {"seed": [0]}}
    file = write(tmp_path, sweep)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempt, "train_and_evaluate", failing)
        result = carry_out_sweep(open_sweep(file, tmp_path / "out", data), progress=False)
    assert [cell["cell"]["model.attention"] for cell in result.cells] == ["divided"]
    assert result.cells[0]["selection"]["draw"] == 1
    assert set(result.failures) == {
        "fair attention=joint seed=100 draw=0",
        'variant {"model.attention": "joint"}',
    }
    again = carry_out_sweep(open_sweep(file, tmp_path / "out", data, retry="failed"), progress=False)
    assert [cell["cell"]["model.attention"] for cell in again.cells] == ["divided", "joint"]
    assert again.failures == {}


def test_claims_are_frozen_once_a_final_run_is_recorded(whole, data, tmp_path):
    out = shutil.copytree(whole[0] / "out", tmp_path / "out")
    changed = fair(tmp_path, claims=[CLAIM | {"expected": "near"}])
    with pytest.raises(InputError, match=r"until\.claims: changed after the first final run"):
        open_sweep(changed, out, data)
    with pytest.raises(InputError, match=r"was made under claims with digest"):
        open_sweep(write(tmp_path, FAIR | {"until": {"claims": [CLAIM | {"margin": 1}]}}), out, data)
    inline = write(tmp_path, FAIR | {"until": {"claims": [CLAIM]}})
    assert open_sweep(inline, out, data).plan.left() == 0  # the same claims, however they are written


def test_recipes_that_are_chosen_again_after_the_test_are_told(whole, data, tmp_path):
    """With one draw instead of two the folder has final runs of another choice."""
    out = shutil.copytree(whole[0] / "out", tmp_path / "out")
    opened = open_sweep(fair(tmp_path, tune=TUNE | {"budget": 1}), out, data)
    finals = [each for each in latest(read_records(out / "records.jsonl")).values() if each.get("selection")]
    assert opened.stages.superseded({**opened.plan.records, **opened.plan.failures}) == len(finals) == 16
    cells = json.loads((out / "cells.json").read_text())
    assert "superseded" not in cells
    (out / "cells.json").write_text(json.dumps(cells | {"superseded": 16}))
    assert any("16 final runs of recipes that an earlier tuning chose" in said for said in sweep_report(out).findings)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"until": {"claims": [CLAIM | {"first": "axial"}]}}, "first: 0 variants have"),
        ({"until": {"claims": [CLAIM | {"where": {"data.probe": "motion"}}]}}, "data.probe is no axis"),
        ({"until": {"claims": [CLAIM], "seeds": [5, 20]}}, r"until.seeds: expected the first of \[5, 8, 12, 20\]"),
        ({"until": {"claims": [CLAIM, CLAIM]}}, "twice in the family"),
        ({"until": None}, "tune.seed: 0 is a seed of the final runs too"),
        ({"axes": FAIR["axes"] | {"seed": [1, 2]}}, "axes.seed: until asks for up to 20 seeds, got 2"),
        ({"measure": ["params"]}, "tune: needs accuracy in measure"),
        ({"base": BASE | {"data": {k: v for k, v in DATA.items() if k != "num_val"}}}, "no validation set"),
        ({"tune": TUNE | {"over": {"model.depth": [1, 2]}, "budget": 4}}, "changes the macs_per_view of 'divided'"),
    ],
)
def test_what_cannot_be_is_refused(fields, message, data, tmp_path):
    sweep = FAIR | fields
    if sweep["until"] is None:
        sweep = {k: v for k, v in sweep.items() if k != "until"} | {"tune": TUNE | {"seed": 0}}
    fair(tmp_path)
    with pytest.raises(InputError, match=message):
        open_sweep(write(tmp_path, sweep), tmp_path / "out", data)


# The test list is not opened


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """Annotation files of a probe in a folder."""
    probe = make_probe("appearance", tmp_path_factory.mktemp("lists"), num_train=8, num_test=8, num_val=8)
    return probe.folder


def on_lists(folder: Path, test_csv: Path) -> Path:
    data = {"train": "train.csv", "val": "val.csv", "test": str(test_csv), "num_classes": 8, "root": "."}
    data["preprocessing"] = {"short_side": 20}
    base = BASE | {"data": data}
    sweep = {k: v for k, v in FAIR.items() if k not in ("until", "equalise")}
    return write(
        folder, sweep | {"base": base, "axes": {"model.attention": ["divided"], "seed": [0]}}, f"{test_csv.stem}.yaml"
    )


def tuning_of(out):
    return [
        {name: record[name] for name in ("hash", "tuning")} | {"top1": record["metrics"]["top1_percent"]}
        for record in read_records(out / "records.jsonl")
        if "tuning" in record
    ]


def test_the_test_list_has_no_part_in_the_choice(lists, data, tmp_path):
    """Labels permuted choose the same recipe; a list that cannot be read stops what needs it, not the tuning."""
    rows = [line.rsplit(" ", 1) for line in (lists / "test.csv").read_text().splitlines()]
    poisoned = [f"{path} {(int(label) + 3) % 8}" for path, label in rows]
    (lists / "poisoned.csv").write_text("\n".join(poisoned) + "\n")
    clean, other = (
        carry_out_sweep(open_sweep(on_lists(lists, lists / f"{name}.csv"), tmp_path / name, data), progress=False)
        for name in ("test", "poisoned")
    )
    assert clean.cells[0]["selection"] == other.cells[0]["selection"]
    assert clean.cells[0]["hash"] != other.cells[0]["hash"]
    missing = on_lists(lists, lists / "missing.csv")
    with pytest.raises(InputError, match=r"test_csv: no such annotation file"):
        carry_out_sweep(open_sweep(missing, tmp_path / "missing", data), progress=False)
    assert tuning_of(tmp_path / "missing") == tuning_of(tmp_path / "test") == tuning_of(tmp_path / "poisoned")
    shutil.copy(lists / "test.csv", lists / "missing.csv")
    found = carry_out_sweep(open_sweep(missing, tmp_path / "missing", data), progress=False)
    assert found.cells[0]["selection"] == clean.cells[0]["selection"]
