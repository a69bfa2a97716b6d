"""`timesformer export`, and runs that start from checkpoints of other formats."""

import hashlib
import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from tests.checkpoints.fakes import fair_state, write_fair
from tests.experiments.spec_fakes import small
from timesformer import InputError
from timesformer.checkpoints import load_model
from timesformer_experiments.cli.main import app
from timesformer_experiments.run.train import run_one
from timesformer_experiments.specs.run import load_specs, resolve

SIZES = {"width": 64, "depth": 1, "hidden": 128, "side": 2}
MODEL = {
    "image_size": 16,
    "patch_size": 8,
    "embed_dim": 64,
    "depth": 1,
    "num_heads": 1,
    "mlp_ratio": 2.0,
    "num_frames": 2,
}


@pytest.fixture
def released(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    return write_fair(tmp_path / "x.pyth", fair_state(**SIZES), "divided_space_time")


def test_export_converts_and_reports(released: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(released), "--out", str(tmp_path / "hf"), "--json"])
    assert done.exit_code == 0
    values = json.loads(done.stdout)
    assert values["format"] == "hf-timesformer"
    assert values["weights"]["copied"] == len(load_model(released).model.state_dict())
    assert "CC-BY-NC-4.0" in done.stderr
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["model_type"] == "timesformer"
    words = ["export", str(tmp_path / "hf"), "--out", str(tmp_path / "ours"), "--format", "timesformer-ablations"]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'ours'}\n")
    ours, source = load_model(tmp_path / "ours").model.state_dict(), load_model(released).model.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in source.items())


def test_export_says_what_is_wrong(released: Path, tmp_path: Path) -> None:
    scheme = tmp_path / "own.py"
    scheme.write_text("SCHEMES = 3\n")
    for words, message in (
        ([str(tmp_path / "nothing")], "no such file or folder"),
        ([str(released), "--format", "tflite"], "expected one of hf-timesformer, hf-vivit"),
        ([str(released), "--format", "hf-vivit"], "cannot express"),
        ([str(released), "--scheme-file", str(scheme)], "expected a list named SCHEMES"),
    ):
        done = CliRunner().invoke(app, ["export", *words, "--out", str(tmp_path / "out")])
        assert done.exit_code == 2, words
        assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_starts_from_a_released_file(released: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        json.dumps(
            {
                "name": "tuned",
                "data": {"probe": "motion", "num_train": 8, "num_test": 8, "preprocessing": {"short_side": 20}},
                "model": {"attention": "divided", **MODEL},
                "recipe": {"steps": 1, "batch_size": 4},
                "protocol": "clip",
                "threads": 1,
                "init_from": "x.pyth",
            }
        )
    )
    (spec,) = load_specs(tmp_path / "run.yaml")
    assert spec.init_from == str(released)
    digest = hashlib.sha256(released.read_bytes()).hexdigest()
    assert spec.definition()["init_from"] == f"sha256:{digest}"
    run_one(spec, tmp_path / "runs", progress=False)
    provenance = load_model(tmp_path / "runs" / spec.hash() / "model").provenance
    assert provenance["licence"] == "CC-BY-NC-4.0"
    counts = provenance["started_from"]["weights"]
    assert counts["resized"] == 1  # positions in time, 4 -> 2
    assert counts["initialised"] == counts["left_out"] == 2  # the head
    assert sum(counts.values()) == len(load_model(released).model.state_dict()) + 2


def test_shards_count_by_content(tmp_path: Path) -> None:
    hashes = []
    for name, second in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        folder = tmp_path / name
        folder.mkdir()
        save_file({"x": torch.zeros(1)}, folder / "1.safetensors")
        save_file({"y": torch.full((1,), second)}, folder / "2.safetensors")
        table = {"weight_map": {"x": "1.safetensors", "y": "2.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(table))
        hashes.append(small(init_from=str(folder)).hash())
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_hub_name_becomes_its_local_snapshot(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_model(released).model.save_pretrained(tmp_path / "snapshot")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(tmp_path / "snapshot"))
    (spec,) = resolve([small(init_from="someone/model")])
    assert spec.init_from == str(tmp_path / "snapshot")
    assert spec.hash() == small(init_from=str(tmp_path / "snapshot")).hash()

    def unreachable(name: str, allow_patterns: list[str]) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(InputError, match=r"init_from: 'someone/other' is neither .* Without a connection: download"):
        resolve([small(init_from="someone/other")])


def test_a_folder_beside_the_file_with_the_name_of_a_run(tmp_path: Path) -> None:
    """Only a folder with weights is meant as a checkpoint."""
    (tmp_path / "first").mkdir()
    run = {"data": {"probe": "motion", "num_train": 8, "num_test": 8}, "recipe": {"steps": 1, "batch_size": 4}}
    run["model"] = {"attention": "joint", **MODEL, "image_size": 32}
    runs = [{"name": "first", **run}, {"name": "second", **run, "init_from": "first"}]
    (tmp_path / "runs.yaml").write_text(json.dumps({"runs": runs}))
    first, second = load_specs(tmp_path / "runs.yaml")
    assert second.init_from == first
