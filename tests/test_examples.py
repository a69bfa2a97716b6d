"""Each file of `examples/` is run as it stands, but for its sizes."""

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from tests.experiments.jobs.fake_ray import FakeRay
from tests.experiments.sweep_fakes import in_this_process
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.checkpoints import load_model, settings_of
from timesformer.data import Preprocessing
from timesformer.data.probes import ProbeInfo, make_probe
from timesformer_experiments.cli.main import app
from timesformer_experiments.jobs import cluster
from timesformer_experiments.specs.sweep import parse_sweep

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
TINY_MODEL = {"image_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
TINY_DATA = {"num_train": 8, "num_test": 8}
TINY_RECIPE = {"steps": 2, "batch_size": 4}


def fields(name: str) -> dict[str, Any]:
    values = yaml.safe_load((EXAMPLES / name).read_text())
    assert isinstance(values, dict)
    return values


def run(*arguments: object) -> Any:
    """What a command prints as JSON."""
    result = CliRunner().invoke(app, [str(argument) for argument in (*arguments, "--json")])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def train(tmp_path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The record of a run with these fields."""
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    (record,) = run("train", tmp_path / "run.yaml", "--runs", tmp_path / "runs")["records"]
    assert isinstance(record, dict)
    return record


def test_train(tmp_path: Path) -> None:
    values = fields("train.yaml")
    for part, sizes in (("data", TINY_DATA), ("model", TINY_MODEL), ("recipe", TINY_RECIPE)):
        values[part] |= sizes
    record = train(tmp_path, values)
    assert (record["outcome"], record["metrics"]["test_videos"]) == ("done", 8)
    model = TimeSformer.from_pretrained(tmp_path / "runs" / record["hash"] / "model")
    assert model.config.attention == values["model"]["attention"]


def test_fine_tune(tmp_path: Path) -> None:
    """The checkpoint is the committed one, found from the file's own folder; its model is as large as it is."""
    values = fields("finetune.yaml")
    checkpoint = (EXAMPLES / values["init_from"]).resolve()
    assert checkpoint == ROOT / "results" / "checkpoints" / "divided-motion"
    values |= {"init_from": str(checkpoint)}
    values["data"] |= TINY_DATA
    values["recipe"] |= {"epochs": 1, "batch_size": 4}
    record = train(tmp_path, values)
    folder = tmp_path / "runs" / record["hash"] / "model"
    source, tuned = settings_of(checkpoint), settings_of(folder)
    assert tuned[0].drop_path_rate == values["model"]["drop_path_rate"]
    assert tuned[0].depth == source[0].depth
    assert Preprocessing.from_dict(tuned[1]) == Preprocessing.from_dict(source[1])
    assert run("evaluate", tmp_path / "run.yaml", "--runs", tmp_path / "runs", "--protocol", "2x3")


def small_sweep(tmp_path: Path, name: str, axes: dict[str, list[Any]]) -> tuple[Path, dict[str, Any]]:
    """The file with fewer values on its axes and smaller runs."""
    values = fields(name)
    for part, sizes in (("data", TINY_DATA), ("model", TINY_MODEL), ("recipe", TINY_RECIPE)):
        values["base"][part] |= sizes
    for path, kept in axes.items():
        assert set(kept) <= set(values["axes"][path])
    values["axes"] |= axes
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "sweep.yaml", values


@pytest.mark.integration
def test_sweep(tmp_path: Path) -> None:
    file, _ = small_sweep(tmp_path, "sweep.yaml", {"seed": [0], "model.attention": ["joint"]})
    out = tmp_path / "runs"
    done = run("sweep", file, "--out", out)
    assert (done["cells"], done["failed"]) == (1, 0)  # joint with 2 frames is excluded
    assert run("status", out)["counts"]["done"] == 1
    assert {"top1_percent", "params", "macs_per_view", "train_peak_memory_bytes"} <= set(done["records"][0]["metrics"])


def test_fair_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of its schemes, a draw each, and the first look."""
    in_this_process(monkeypatch)
    values = fields("fair_comparison.yaml")
    assert set(parse_sweep(values).jobs()) != set()
    values["tune"] |= {"budget": 1}
    values["until"] |= {"seeds": [5], "claims": values["until"]["claims"][:1]}
    values["axes"]["model.attention"] = ["divided", "space"]
    for part, sizes in (("data", TINY_DATA | {"num_val": 4}), ("model", TINY_MODEL), ("recipe", TINY_RECIPE)):
        values["base"][part] |= sizes
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(values))
    done = run("sweep", tmp_path / "sweep.yaml", "--out", tmp_path / "runs")
    assert (done["cells"], done["failed"]) == (10, 0)
    assert {record["selection"]["draws"] for record in done["records"]} == {1}
    (claim,) = run("status", tmp_path / "runs")["claims"]
    assert (claim["name"], claim["seeds"]) == ("time matters", 5)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRay:
    """A cluster of one process in place of Ray's."""
    fake = FakeRay()
    monkeypatch.setattr(cluster, "connect", lambda address: fake)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "machine"))
    monkeypatch.setattr(cluster, "SETTLE_SECONDS", 0.0)
    return fake


def test_cluster(tmp_path: Path, ray: FakeRay) -> None:
    file, values = small_sweep(tmp_path, "cluster.yaml", {"seed": [1], "model.attention": ["divided"]})
    assert (values["base"]["processes"], values["base"]["strategy"]) == (1, "ddp")
    done = run("sweep", file, "--out", tmp_path / "runs", "--ray", "HEAD:6379")
    assert (done["cells"], done["failed"]) == (1, 0)
    assert len(ray.requests) == 1
    assert not ray.up


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> ProbeInfo:
    return make_probe("appearance", tmp_path_factory.mktemp("examples"), num_train=8, num_test=8)


def test_real_data(tmp_path: Path, probe: ProbeInfo) -> None:
    """With a folder in the place and form of the dataset, a small image model for the one of the hub, one worker."""
    data = tmp_path / "data" / "ssv2"
    shutil.copytree(probe.train_csv.parent / "train", data / "videos")
    for video in (data / "videos").glob("*.mp4"):
        video.rename(video.with_suffix(".webm"))  # read by content, as the dataset's own
    names = ["Opening something", "Closing something"]
    entries = [
        {"id": f"{i:06}", "label": "", "template": names[i % 2].replace("something", "[something]")} for i in range(8)
    ]
    values = fields("real_data.yaml")
    for part, listed in (("train", entries), ("test", entries[:2])):
        path = (tmp_path / "examples" / values["data"][part]).resolve()
        assert path.parent == data
        path.write_text(json.dumps(listed))
    (data / "something-something-v2-labels.json").write_text(json.dumps({name: str(i) for i, name in enumerate(names)}))
    image = TimeSformerConfig("space", num_frames=1, num_classes=3, **TINY_MODEL)  # type: ignore[arg-type]
    TimeSformer(image).save_pretrained(tmp_path / "image")
    values |= {"init_from": "../image"}
    values["data"] |= {"jitter": [18, 20], "preprocessing": values["data"]["preprocessing"] | {"short_side": 16}}
    values["model"] |= TINY_MODEL
    values["recipe"] |= {"epochs": 1, "batch_size": 4, "accumulate": 2, "lr_steps": [0, 0.5, 0.8], "workers": 0}
    (tmp_path / "examples").mkdir()
    record = train(tmp_path / "examples", values)
    assert (record["outcome"], record["metrics"]["test_videos"]) == ("done", 2)
    assert record["spec"]["recipe"]["precision"] == "bf16"


def plain_training() -> Any:
    spec = importlib.util.spec_from_file_location("plain_training", EXAMPLES / "plain_training.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("form", ["csv", "folders"])
def test_plain_training(form: str, tmp_path: Path, probe: ProbeInfo) -> None:
    """On a csv file, and on a folder of classes."""
    given = (probe.train_csv, probe.test_csv)
    if form == "folders":
        for part in ("train", "test"):
            for number, video in enumerate(sorted((probe.folder / part).glob("*.mp4"))):
                target = tmp_path / part / "ab"[number % 2] / video.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(video, target)
        given = (tmp_path / "train", tmp_path / "test")
    arguments = ["--train", given[0], "--test", given[1], "--data-dir", tmp_path / "data", "--out", tmp_path / "model"]
    found = plain_training().main([*map(str, arguments), "--epochs", "1", "--attention", "joint"])
    assert 0 <= found <= 100
    loaded = load_model(tmp_path / "model")
    assert (loaded.model.config.attention, loaded.preprocessing["short_side"]) == ("joint", 40)
    assert len(loaded.labels) == (8 if form == "csv" else 2)


def test_plain_training_makes_its_own_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = plain_training()
    monkeypatch.setattr(
        module, "make_probe", lambda name, folder, **sizes: make_probe(name, folder, **sizes | TINY_DATA)
    )
    module.main(["--data-dir", str(tmp_path), "--out", str(tmp_path / "model"), "--epochs", "1", "--videos", "8"])
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert torch.is_grad_enabled()


def test_plain_training_is_short() -> None:
    assert len((EXAMPLES / "plain_training.py").read_text().splitlines()) <= 80


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_a_file_explains_itself(path: Path) -> None:
    """It opens with its command, cost and expectation, in that order."""
    text = path.read_text()
    opening = text[: text.index("\nname:")]
    assert re.search(rf"^#     timesformer (train|sweep) examples/{path.name}", opening, re.MULTILINE)
    assert re.search(r"^# Cost: ", opening, re.MULTILINE)
    assert re.search(r"^# Expect: ", opening, re.MULTILINE)
    assert "@" not in opening


def test_every_example_is_there() -> None:
    names = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".yaml")}
    yaml_files = {"train", "finetune", "sweep", "fair_comparison", "cluster", "real_data"}
    assert names == {"plain_training.py", *(f"{name}.yaml" for name in yaml_files)}
