"""GPU-hours: by hand, in the table of costs and in a sweep's forecast."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from timesformer import InputError, TimeSformerConfig
from timesformer.config.registry import macs_per_view
from timesformer_experiments.cli.main import app
from timesformer_experiments.cost.gpu_hours import PEAKS, Budget, training_macs

SIZES = {"num_frames": 2, "image_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 1, "num_heads": 2}
WORDS = [word for name, value in SIZES.items() for word in (f"--{name.replace('_', '-')}", str(value))]
GPU = ["--gpu", "h100", "--precision", "bf16", "--mfu", "0.4"]


def run(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == code, result.output
    return result


def test_hours_by_hand() -> None:
    """Divided ViT-B at 8 frames of 224 pixels: 196.6 GMACs a view, 15 epochs of 240,000 videos."""
    macs = macs_per_view(TimeSformerConfig())
    trained = training_macs(macs, 15, 240_000)
    assert trained == 3 * macs * 3_600_000
    seconds = 2 * trained / (0.4 * 989e12)
    assert Budget("h100", 0.4).hours(trained) == pytest.approx(seconds / 3600)
    assert 2.5 < seconds / 3600 < 3.5
    assert Budget("a100", 0.4, "fp32").hours(trained) == pytest.approx(2 * trained / (0.4 * 19.5e12) / 3600)


def test_the_table_of_costs_has_hours_and_is_written(tmp_path: Path) -> None:
    words = ["cost", "--attention", "divided", "--num-classes", 8, *WORDS, *GPU, "--epochs", 2, "--videos", 1000]
    found = json.loads(run(*words, "--price", 2.5, "--json").stdout)
    config = TimeSformerConfig(num_classes=8, **SIZES)  # type: ignore[arg-type]
    hours = 2 * 3 * macs_per_view(config) * 2000 / (0.4 * PEAKS["h100"]["bf16"]) / 3600
    assert found["gpu_hours"]["gpu_hours"] == pytest.approx(hours)
    assert found["gpu_hours"]["price"] == pytest.approx(2.5 * hours)
    assert "bound by bandwidth" in found["gpu_hours"]["how"]
    files = [tmp_path / f"costs.{kind}" for kind in ("csv", "tex", "md")]
    shown = run(*words, *(word for path in files for word in ("--out", path))).stdout
    assert "GPU-hours, H100" in " ".join(shown.split())
    assert "40% of the peak of 989 TFLOP/s of one H100 in bf16" in " ".join(shown.split())
    (row,) = csv.DictReader(files[0].open())
    assert float(row["predicted_gpu_hours"]) == pytest.approx(hours)
    assert int(row["macs_per_view"]) == macs_per_view(config)
    assert r"\begin{tabular}" in files[1].read_text()
    assert "| divided |" in files[2].read_text()


def test_a_dry_run_has_hours_for_every_cell(tmp_path: Path) -> None:
    sweep = {
        "name": "hours",
        "base": {
            "data": {"probe": "motion", "num_train": 16, "num_test": 8},
            "model": SIZES,
            "recipe": {"steps": 3, "batch_size": 4},
        },
        "axes": {"model.attention": ["space", "divided"]},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    words = ["sweep", tmp_path / "sweep.yaml", "--out", tmp_path / "out", "--dry-run", "--gpu", "a100", "--price", 2]
    found = json.loads(run(*words, "--json").stdout)
    each = [run["gpu_hours"] for run in found["each"]]
    assert each == pytest.approx([2 * run["train_macs"] / (0.4 * 312e12) / 3600 for run in found["each"]])
    assert found["gpu_hours"]["gpu_hours"] == pytest.approx(sum(each))
    shown = " ".join(run(*words).stdout.split())
    assert "time GPU-hours" in shown
    assert " GPU-hours in all, 0 at 2 an hour. " in shown
    said = run(*words[:4], "--gpu", "a100", code=2).stderr
    assert "--gpu: expected with --dry-run" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gpu": "v100"}, "--gpu v100: expected one of a100, h100, h200"),
        ({"gpu": "a100", "mfu": 40}, "--mfu 40: expected a share above 0 and at most 1"),
        ({"gpu": "a100", "precision": "fp8"}, "--precision fp8: expected bf16 or fp32"),
        ({"gpu": "a100", "price": 0.0}, "--price 0: expected a number above 0"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Budget(**options)  # type: ignore[arg-type]
    words = ["cost", "--attention", "space", "--num-classes", 8, *WORDS]
    assert "expected --videos too" in run(*words, *GPU, code=2).stderr
    assert "--out costs.txt: expected a name" in run(*words, "--out", "costs.txt", code=2).stderr
