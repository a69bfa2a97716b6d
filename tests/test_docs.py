"""What the README shows is run as it stands there."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from timesformer.attention import load_file
from timesformer.data import read_annotations
from timesformer.data.probes import make_probe
from timesformer_experiments.cli.main import app
from timesformer_experiments.paper.probes import ceiling_percent
from timesformer_experiments.specs.run import load_specs
from timesformer_experiments.specs.sweep import parse_sweep

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_scheme_of_ones_own(tmp_path: Path) -> None:
    (code,) = [block for block in blocks("python") if "SCHEMES" in block]
    assert len(code.splitlines()) < 20
    path = tmp_path / "rows.py"
    path.write_text(code)
    assert [scheme.name for scheme in load_file(path)] == ["rows"]


def test_first_model() -> None:
    (code,) = [block for block in blocks("python") if "TimeSformerConfig" in block]
    scope: dict[str, object] = {}
    exec(code, scope)
    assert scope["logits"].shape == (1, 400)  # type: ignore[attr-defined]


def yaml_file(name: str) -> str:
    """The README's file of this name."""
    (text,) = [block for block in blocks("yaml") if block.startswith(f"# {name}\n")]
    return text


def test_run_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml_file("run.yaml"))
    (spec,) = load_specs(path)
    assert spec.name == "mine"
    assert spec.recipe.total_steps(64) == 15


def test_run_file_of_a_probe(tmp_path: Path) -> None:
    path = tmp_path / "i3d.yaml"
    path.write_text(yaml_file("i3d.yaml"))
    (spec,) = load_specs(path)
    assert (spec.name, spec.protocol) == ("i3d-on-order", "coverx1")
    assert ceiling_percent(spec) == 75  # clips of 4 frames span half of the video


NEW_CLASSES = {
    "left": "sideways", "right": "sideways", "up": "up and down", "down": "up and down",
    "clockwise": "turning", "anticlockwise": "turning", "growing": "zooming", "shrinking": "zooming",
}  # fmt: skip


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README's commands are run on: small videos of four classes in folders, and a longer one."""
    folder = tmp_path_factory.mktemp("readme")
    probe = make_probe("motion", folder / "probe", num_train=32, num_test=16, seed=11)
    for part, csv in (("train", probe.train_csv), ("test", probe.test_csv)):
        for number, sample in enumerate(read_annotations("kinetics", csv)):
            assert isinstance(sample.label, int)
            target = folder / "clips" / part / NEW_CLASSES[probe.labels[sample.label]] / f"{number:03}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sample.path, target)
    shutil.copytree(probe.test_csv.parent, folder / "videos")
    shutil.copy(probe.test_csv, folder / "val.csv")
    with av.open(str(folder / "long.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=4)
        stream.height, stream.width, stream.pix_fmt = 40, 60, "yuv420p"
        for number in range(48):
            pixels = np.full((40, 60, 3), 5 * number, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))
    return folder


@pytest.fixture
def place(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with all that the README's commands and files name."""
    for name in ("clips", "videos", "val.csv", "long.mp4"):
        (tmp_path / name).symlink_to(videos / name)
    (tmp_path / "results").symlink_to(ROOT / "results")
    (code,) = [block for block in blocks("python") if "SCHEMES" in block]
    (tmp_path / "rows.py").write_text(code)
    (tmp_path / "finetune.yaml").write_text(yaml_file("finetune.yaml"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("timesformer ")]


OWN_TESTS = r"\b(run|finetune|sweep)\.yaml|runs/frames|\$"
"""In commands that have a test of their own, or that train what takes longer."""


def run(line: str, *more: str) -> str:
    result = CliRunner().invoke(app, [*shlex.split(line)[1:], *more])
    assert result.exit_code == 0, result.output
    return result.stdout


def marked(line: str) -> Any:
    """A command as a case; that which traces all schemes at the paper's scale takes minutes."""
    return pytest.param(line, id=line, marks=[pytest.mark.slow] if "--attention all" in line else [])


@pytest.mark.integration
@pytest.mark.parametrize("line", [marked(line) for line in commands() if not re.search(OWN_TESTS, line)])
def test_commands(line: str, place: Path) -> None:
    run(line, *(["--num-test", "16"] if line.startswith("timesformer probe") else []))
    for name in re.findall(r"--(?:out|plot) (\S+\.\w+)", line):
        assert (place / name).stat().st_size > 0


def test_fine_tuning_and_prediction(place: Path) -> None:
    """From the committed checkpoint to other classes, by the README's lines; then its videos get the new names."""
    train, predict = [line for line in commands() if "finetune.yaml" in line]
    (record,) = json.loads(run(train, "--json"))["records"]
    assert record["metrics"]["test_videos"] == 16
    assert record["metrics"]["top1_percent"] >= 50  # chance is 25
    found = json.loads(run(predict, "--json"))["videos"]
    assert {guess["label"] for guess in found[0]["top"]} == set(NEW_CLASSES.values())
    right = sum(video["top"][0]["label"] == Path(video["path"]).parent.name for video in found)
    assert 100 * right / 16 == record["metrics"]["top1_percent"]
    started = json.loads((place / "runs" / record["hash"] / "model" / "provenance.json").read_text())["started_from"]
    assert started["weights"]["left_out"] == 2  # the head of the eight old classes


def test_loading_and_export(place: Path) -> None:
    (code,) = [block for block in blocks("python") if "export(" in block]
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["longer"].config.grid == (16, 4, 6)
    assert json.loads((place / "exported" / "config.json").read_text())["model_type"] == "timesformer"


def test_features_in_python(place: Path) -> None:
    (code,) = [block for block in blocks("python") if "forward_features" in block]
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["vectors"].shape == (2, 96)
    assert scope["patches"].shape == (2, 8, 4, 4, 96)
    assert scope["cls"].shape == (2, 96)


def test_attention_maps_in_python(place: Path) -> None:
    (code,) = [block for block in blocks("python") if "attention_maps" in block]
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["weights"].shape == (1, scope["model"].config.num_heads, 2, 8, 4, 4)
    assert scope["flow"].shape == scope["why"].shape == (1, 1, 8, 4, 4)
    assert len(scope["heads"]) == 2 * 3 * scope["model"].config.num_heads


@pytest.fixture
def sweep_file(place: Path) -> dict[str, Any]:
    """The README's sweep with less to do; its fields."""
    values: dict[str, Any] = yaml.safe_load(yaml_file("sweep.yaml"))
    assert len(parse_sweep(values).jobs()) == 8
    values["base"]["data"] |= {"num_train": 16, "num_test": 8}
    values["base"]["recipe"] |= {"steps": 4, "batch_size": 8}
    values["axes"]["model.num_frames"] = [2]
    (place / "sweep.yaml").write_text(yaml.safe_dump(values))
    return values


@pytest.mark.integration
def test_a_sweep_on_one_machine(place: Path, sweep_file: dict[str, Any]) -> None:
    lines = [line for line in commands() if "runs/frames" in line and "HEAD" not in line]
    dry, start, report = lines
    assert json.loads(run(dry, "--json"))["left"] == 4
    assert not (place / "runs").exists()
    assert json.loads(run(start, "--json"))["failed"] == 0
    found = json.loads(run(report, "--json"))
    assert found["runs"] == 4
    assert {"summary.tex", "report.md", "report.html"} <= {Path(name).name for name in found["files"]}
    assert json.loads(run("timesformer status runs/frames", "--json"))["counts"]["done"] == 4
    assert "timesformer status runs/frames" in README


def test_several_gpus_are_three_lines(sweep_file: dict[str, Any]) -> None:
    (text,) = [block for block in blocks("yaml") if block.startswith("processes:")]
    assert len(text.splitlines()) == 3
    more = yaml.safe_load(text)
    assert more == {"processes": 2, "strategy": "fsdp", "tracker": "tensorboard"}
    specs = [job.spec for job in parse_sweep(sweep_file | {"base": sweep_file["base"] | more}).jobs().values()]
    assert {(spec.processes, spec.strategy, spec.tracker) for spec in specs} == {(2, "fsdp", "tensorboard")}
    # They are how a run is made, not what it is.
    assert [spec.hash() for spec in specs] == list(parse_sweep(sweep_file).jobs())


SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift 2; done
exec "$@"
"""


@pytest.mark.slow
def test_the_slurm_recipe(place: Path, sweep_file: dict[str, Any]) -> None:
    """With a stand-in for Slurm: `srun` runs its command here, so that both nodes are on this machine."""
    (recipe,) = [block for block in blocks("bash") if "#SBATCH" in block]
    (shown,) = [line for line in README.splitlines() if line.startswith("timesformer sweep") and "HEAD:6379" in line]
    assert "--ray" in shown
    (place / "bin").mkdir()
    (place / "bin" / "srun").write_text(SRUN)
    (place / "bin" / "srun").chmod(0o755)
    told = {"SLURM_NNODES": "2", "SLURM_CPUS_ON_NODE": "1", "SLURMD_NODENAME": "first", "RAY_USAGE_STATS_ENABLED": "0"}
    path = f"{place / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    for _ in range(3):  # Ray gives its processes 30 seconds to start, which may be too few on a busy machine
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        (place / "ray.slurm").write_text(recipe.replace("6379", str(port)))
        code, out, err = in_a_group(["bash", "ray.slurm", "sweep.yaml", "shared"], os.environ | told | {"PATH": path})
        if code != 3:
            break
        assert "timed out during startup" in out + err
    assert code == 0, err
    assert "cluster: 2 nodes, 2 CPUs" in err
    assert "4 of 4 cells done" in out


def in_a_group(command: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
    """Exit code, standard output and error of a command; nothing that it has started lives on."""
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as process:
        try:
            out, err = process.communicate(timeout=600)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


def test_folders_of_the_map_exist() -> None:
    for folder in re.findall(r"^\| `([a-z/]+/)` \|", README, flags=re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder
