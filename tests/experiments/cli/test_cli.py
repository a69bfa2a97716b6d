"""The command line: one JSON object with --json, exit codes, messages that name what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.experiments.sweep_records import write_sweep
from timesformer.attention import names
from timesformer_experiments.cli import main as cli
from timesformer_experiments.cli.main import app

SMALL = ["--image-size", "32", "--patch-size", "8", "--embed-dim", "24", "--depth", "1", "--num-heads", "2"]

OWN_SCHEME = """
from timesformer.attention import ALL, EACH, Encoder, Partition, Scheme, Step

ROWS = Partition(t=ALL, h=EACH, w=ALL)
SCHEMES = [Scheme(name="cli_rows", encoders=(Encoder(block=((Step("rows", (ROWS,)),),)),))]
"""

RUN = """
name: tiny
data: {probe: appearance, num_train: 8, num_test: 8}
model: {attention: joint, num_frames: 2, image_size: 32, patch_size: 16, embed_dim: 16, depth: 1, num_heads: 2}
recipe: {steps: 1, batch_size: 4}
protocol: clip
"""


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})


@pytest.mark.integration
def test_cost_prints_exactly_one_json_object() -> None:
    words = ["--num-frames", "8", "--image-size", "224", "--num-classes", "174", "--views", "3", "--json"]
    command = [sys.executable, "-m", "timesformer_experiments.cli.main", "cost", "--attention", "divided", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["params"] == 121_392_558
    assert found["macs_per_view"] == found["macs_needed"] == pytest.approx(195.8e9, rel=2e-3)
    assert found["macs_fvcore"] == pytest.approx(found["macs_per_view"], rel=1e-3)
    assert found["tflops_total"] == pytest.approx(0.59, abs=0.005)
    assert done.stdout.count("\n") == 1


def test_cost_of_every_scheme() -> None:
    shown = run("cost", "--attention", "all", *SMALL, "--num-frames", "2", "--json")
    assert [cost["attention"] for cost in json.loads(shown.stdout)["costs"]] == list(names())
    table = run("cost", "--attention", "joint", *SMALL).stdout
    assert "joint" in table
    assert "GMACs per view" in table


def test_cost_options_reach_the_configuration() -> None:
    def params(*words: str) -> int:
        return int(json.loads(run("cost", "--attention", "divided", *SMALL, *words, "--json").stdout)["params"])

    assert params() - params("--no-temporal-fc") == 24 * 24 + 24
    assert params("--position", "none") < params()
    assert params("--image-size", "32x64") - params() == 16 * 24
    assert params("--set", "registers=4", "--set", "qkv_bias=qv") - params() == 4 * 24 - 2 * 24
    shown = run("cost", "--attention", "divided", *SMALL, "--cls-policy", "global", "--json")
    assert json.loads(shown.stdout)["comparisons_per_patch"] == 8 + 16 + 2


def test_a_scheme_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "rows.py"
    file.write_text(OWN_SCHEME)
    shown = run("cost", "--scheme-file", str(file), *SMALL, "--json")
    assert json.loads(shown.stdout)["comparisons_per_patch"] == 8 * 4 + 1
    picture = tmp_path / "rows.svg"
    assert run("draw", "cli_rows", "--scheme-file", str(file), "--grid", "2x3x4", "--out", str(picture)).exit_code == 0
    assert picture.read_text().lstrip().startswith("<?xml")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cost", "--attention", "nonsense"], "unknown scheme 'nonsense'"),
        (["cost"], "--attention: expected `all` or one of"),
        (["cost", "--attention", "joint", "--image-size", "225"], "expected a multiple of patch_size 16, got 225"),
        (["cost", "--attention", "joint", "--image-size", "2x2x2"], "--image-size 2x2x2"),
        (["cost", "--attention", "joint", "--image-size", "big"], "--image-size big"),
        (["cost", "--attention", "joint", "--num-heads", "5"], "num_heads"),
        (["cost", "--attention", "joint", "--cls-policy", "absent"], "class token"),
        (["cost", "--attention", "joint", "--set", "registers"], "--set registers: expected FIELD=VALUE"),
        (["cost", "--attention", "joint", "--set", "registers=-1"], "registers: expected 0 or a positive integer"),
        (["cost", "--attention", "joint", "--set", "speed=1"], "unknown field 'speed'"),
        (["cost", "--scheme-file", "missing.py"], "missing.py"),
        (["reproduce", "table9"], "artefact 'table9': expected one or more of"),
        (["reproduce", "table1", "--profile", "long"], "--profile long: expected one of smoke, quick, full, paper"),
        (["reproduce"], "ARTEFACTS: expected some of table1, table1_tuned, table2,"),
        (["draw", "joint", "--out", "picture.txt"], "expected a name that ends in .png, .svg or .pdf"),
        (["draw", "joint", "--out", "picture.png", "--grid", "3x4"], "--grid 3x4"),
        (["draw", "joint", "--out", "picture.png", "--grid", "0x4x4"], "--grid 0x4x4"),
        (["train", "missing.yaml"], "missing.yaml: no such file"),
        (["evaluate", "missing.yaml"], "missing.yaml: no such file"),
        (["probe", "smell", "--out", "probes"], "unknown probe 'smell'"),
        (["probe", "motion", "--out", "probes", "--num-test", "3"], "num_test"),
        (["report", "--out", "nowhere"], "--out nowhere: no results of all in this folder"),
    ],
)
def test_bad_input_is_named_and_exits_with_2(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*words)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("words", [["cost", "--no-such-option"], ["nonsense"], ["cost", "--views", "0"]])
def test_bad_usage_exits_with_2(words: list[str]) -> None:
    assert run(*words).exit_code == 2


def test_list_names_every_artefact() -> None:
    assert set(json.loads(run("reproduce", "--list", "--json").stdout)) >= {"figure3", "table1"}
    assert "table1" in run("reproduce", "--list").stdout


@pytest.mark.integration
def test_help_does_not_wait_for_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "timesformer_experiments.cli.main", "--help"], capture_output=True
    )
    assert done.returncode == 0
    assert b" torch\n" not in done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A file with one tiny run, and the options under which it is trained."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "run.yaml").write_text(RUN)
    places = ["--runs", str(folder / "runs"), "--data-dir", str(folder / "data")]
    done = run("train", str(folder / "run.yaml"), *places, "--json")
    assert done.exit_code == 0, done.output
    (record,) = json.loads(done.stdout)["records"]
    assert record["outcome"] == "done"
    return folder, places


def test_train_then_evaluate_agree(trained: tuple[Path, list[str]]) -> None:
    folder, places = trained
    again = json.loads(run("train", str(folder / "run.yaml"), *places, "--json").stdout)["records"][0]
    scores = folder / "scores.csv"
    done = run("evaluate", str(folder / "run.yaml"), *places, "--scores", str(scores), "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["evaluations"]
    assert found["top1_percent"] == again["metrics"]["top1_percent"]
    assert len(scores.read_text().splitlines()) == 1 + 8
    other = run("evaluate", str(folder / "run.yaml"), *places, "--protocol", "paper")
    assert other.exit_code == 0, other.output
    assert "tiny, protocol paper" in " ".join(other.stdout.split())
    words = ["--clips", "2", "--merge", "sum_logits", "--allow-unreadable", "--json"]
    (found,) = json.loads(run("evaluate", str(folder / "run.yaml"), *places, *words).stdout)["evaluations"]
    assert (found["protocol"], found["views"], found["merge"]) == ("clip 2x1 sum_logits", 16, "sum_logits")
    said = run("evaluate", str(folder / "run.yaml"), *places, "--clips", "cover").stderr
    assert 'clips "cover" needs dense sampling' in said


def test_runs_are_listed_with_settings_state_and_folder(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, _ = trained
    done = run("runs", str(folder / "runs"), "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["runs"]
    assert (found["name"], found["state"]) == ("tiny", "done")
    assert Path(found["folder"]) == folder / "runs" / found["hash"]
    assert Path(found["folder"], "model").is_dir()
    assert found["settings"]["data"] == "appearance"
    assert 0 <= found["top1_percent"] <= 100
    shown = " ".join(run("runs", str(folder / "runs")).stdout.split())
    assert "1 run in" in shown
    assert "tiny" in shown
    assert "no runs there" in run("runs", str(tmp_path)).stderr


def test_runs_of_a_sweep_have_their_values_on_its_axes(tmp_path: Path) -> None:
    cells = write_sweep(tmp_path, {"model.attention": ["space", "divided"], "seed": [0, 1]}, scores=False)
    entries = [{"hash": key, "name": job.spec.name, "cell": job.belongs["cell"]} for key, job in cells.items()]
    waiting = {"hash": "0" * 16, "name": "last", "cell": {"model.attention": "axial", "seed": 0}}
    text = json.dumps({"sweep": "made-up", "cells": [*entries, waiting], "starts": []})
    (tmp_path / "cells.json").write_text(text)
    found = json.loads(run("runs", str(tmp_path), "--json").stdout)["runs"]
    assert [each["state"] for each in found] == ["done"] * 4 + ["waiting"]
    shown = run("runs", str(tmp_path)).stdout
    assert shown.count("Folder") == shown.count("State") == shown.count("Run") == 1  # one table, nothing told twice
    for key in cells:
        assert key in shown
    assert found[0]["settings"] == {"model.attention": "space", "seed": 0}
    assert found[-1]["top1_percent"] is None


def test_evaluate_refuses_what_does_not_fit(trained: tuple[Path, list[str]]) -> None:
    folder, places = trained
    untrained = folder / "untrained.yaml"
    untrained.write_text(RUN + "seed: 1\n")
    assert "no model in this folder" in run("evaluate", str(untrained), *places).stderr
    model = next((folder / "runs").glob("*/model"))
    unlike = folder / "unlike.yaml"
    unlike.write_text(RUN.replace("num_test: 8", "num_test: 8, preprocessing: {mean: [0.5, 0.5, 0.5]}"))
    done = run("evaluate", str(unlike), *places, "--checkpoint", str(model))
    assert done.exit_code == 2
    assert "preprocessing has mean" in done.stderr
    motion = folder / "motion.yaml"
    motion.write_text(RUN.replace("appearance, num", "motion, num"))
    assert run("evaluate", str(motion), *places, "--protocol", "worse").exit_code == 2
    two = folder / "two.yaml"
    indented = "".join(f"    {line}\n" for line in RUN.strip().splitlines())
    two.write_text("runs:\n  -\n" + indented + "  -\n" + indented.replace("tiny", "other") + "    seed: 1\n")
    assert (
        "a file with one run for --checkpoint and --scores, got 2"
        in run("evaluate", str(two), "--checkpoint", str(model)).stderr
    )
    assert "--scores" in run("evaluate", str(folder / "run.yaml"), *places, "--scores", "scores.txt").stderr


def test_a_failed_run_among_several_exits_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from timesformer_experiments.jobs import attempt as jobs

    def broken(*args: object, **kwargs: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(jobs, "train_and_evaluate", broken)
    indented = "".join(f"    {line}\n" for line in RUN.strip().splitlines())
    other = indented.replace("tiny", "other") + "    seed: 1\n"
    (tmp_path / "two.yaml").write_text(f"runs:\n  -\n{indented}  -\n{other}")
    places = ["--runs", str(tmp_path / "runs"), "--data-dir", str(tmp_path / "data")]
    done = run("train", str(tmp_path / "two.yaml"), *places)
    assert done.exit_code == cli.FAILED
    assert "the disk is full" in done.stderr


def test_probe_writes_videos_lists_and_what_they_look_like(tmp_path: Path) -> None:
    words = ["probe", "motion", "--out", str(tmp_path), "--num-train", "8", "--num-test", "8", "--diagnose", "--json"]
    done = run(*words)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert all(Path(path).is_file() for path in found["files"])
    assert {Path(path).suffix for path in found["files"]} == {".csv", ".png", ".md", ".json"}
    assert len(list(Path(found["folder"]).glob("train/*.mp4"))) == 8
    assert run(*words[:-2]).stdout.splitlines() == found["files"][:2]
