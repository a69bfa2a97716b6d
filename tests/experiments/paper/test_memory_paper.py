"""Figure 3's out-of-memory points and mmaction2's published memory, beside the prediction."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from timesformer_experiments.paper.artefact import Folders
from timesformer_experiments.paper.artefacts.figures import memory as artefact
from timesformer_experiments.paper.measured import memory_peers
from timesformer_experiments.paper.measured.memory_peers import Mmaction2, rows, structure
from timesformer_experiments.paper.registry import load
from timesformer_experiments.report.published import published


@pytest.fixture(scope="module")
def explained() -> dict[str, dict[str, float]]:
    return {row["attention"]: row for row in rows()}


def test_mmaction2s_structure_explains_its_memory(explained: dict[str, dict[str, float]]) -> None:
    """All but three copies of the tokens a step, the same in every scheme; ours keeps less throughout."""
    assert set(explained) == {"space", "divided", "joint"}
    for row in explained.values():
        assert 0.84 < row["predicted_structure_mib"] / row["published_peak_mib"] < 1
        assert row["predicted_left_copies"] == pytest.approx(3.1, abs=0.1)
        assert row["predicted_ours_mib"] < row["predicted_structure_mib"]
        assert row["predicted_ours_kept_mib"] < row["predicted_structure_kept_mib"]


def test_the_joint_model_would_not_have_fitted_with_eight_clips(explained: dict[str, dict[str, float]]) -> None:
    kept, peak, weights = structure("joint", 8)
    assert peak / 2**20 > 32000
    assert kept["activations"] / 2**20 == pytest.approx(8 / 6 * explained["joint"]["predicted_structure_kept_mib"])
    assert weights == pytest.approx(4 * 86.1e6, rel=1e-3)


@pytest.mark.parametrize("attention", ["space", "divided", "joint"])
def test_the_structure_is_a_model(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes logits, and every parameter has a gradient."""
    monkeypatch.setattr(memory_peers, "WIDTH", 24)
    monkeypatch.setattr(memory_peers, "PIXELS", 32)
    torch.manual_seed(0)
    model = Mmaction2(attention, depth=2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    logits = model(torch.randn(2, memory_peers.FRAMES, 3, 32, 32))
    assert logits.shape == (2, memory_peers.CLASSES)
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def fabricated() -> pd.DataFrame:
    """Joint attention as it is predicted, divided attention small."""
    points = []
    for panel in artefact.PANELS:
        for point in published("figure3", panel).rows:
            frames, crop = (8, point["crop"]) if panel == "crop" else (point["frames"], 224)
            tokens = frames * (crop // 16) ** 2
            size = (tokens / 1568) ** 2 if point["attention"] == "joint" else tokens / 1568
            points.append(
                {
                    "panel": panel,
                    "attention": point["attention"],
                    "num_frames": frames,
                    "crop_pixels": crop,
                    **{
                        artefact.key(clips, softmax): size * clips * (3 if softmax else 1.8)
                        for clips in artefact.CLIPS
                        for softmax in artefact.SOFTMAXES
                    },
                    "published_out_of_memory": "yes" if point.get("out_of_memory") else "no",
                }
            )
    return pd.DataFrame(points)


def test_contradictions_name_the_points() -> None:
    frame = fabricated()
    assert artefact.contradictions(frame, 32, artefact.key(1, "_old_softmax")) == [
        "divided at 96 x 224 does not (36.0 GiB)"
    ]
    both = artefact.contradictions(frame, 32, artefact.key(1, ""))
    assert both == ["joint at 8 x 448 fits (28.8 GiB)", "joint at 32 x 224 fits (28.8 GiB)"]


def test_the_artefact_is_made_from_the_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        {
            "attention": "joint",
            "clips": 6,
            "predicted_ours_mib": 1.0,
            "predicted_structure_mib": 2.0,
            "published_peak_mib": 3,
            "predicted_ours_kept_mib": 0.1,
            "predicted_structure_kept_mib": 0.2,
            "predicted_gradient_copies_mib": 0.3,
            "predicted_left_mib": 1.0,
            "predicted_left_copies": 3.1,
        }
    ]
    monkeypatch.setattr(artefact, "mmaction2_rows", lambda: iter(found))
    monkeypatch.setattr(artefact, "structure", lambda attention, clips: ({}, 2**35, 0))
    monkeypatch.setattr(artefact, "peaks", lambda config: dict.fromkeys(KEYS, 40.0))
    report = load("memory").report([], "quick")
    assert artefact.plan("full") == ()
    assert len(report.table.frame) == 16
    assert "none of those tried" in report.findings[0]
    assert report.findings[-1].startswith("At 8 clips a card, mmaction2's joint structure would take 32,768 MiB")
    assert "published 3 MiB, ours 1" in report.findings[-2]
    folder = tmp_path / "memory" / "quick"
    folder.mkdir(parents=True)
    files = artefact.finish([], "quick", Folders(tmp_path, tmp_path, tmp_path))
    assert {file.name for file in files} == {"mmaction2.csv", "mmaction2.md"}
    assert "Left, in copies" in (folder / "mmaction2.md").read_text()


KEYS = [artefact.key(clips, softmax) for clips in artefact.CLIPS for softmax in artefact.SOFTMAXES]


def test_peaks_of_a_point() -> None:
    found = artefact.peaks(next(iter(artefact.sweep("crop").jobs().values())).spec.model)
    assert set(found) == set(KEYS)
    assert (
        1 < found[artefact.key(1, "")] < found[artefact.key(1, "_old_softmax")] < found[artefact.key(2, "_old_softmax")]
    )


@pytest.mark.slow
def test_one_card_batch_and_version_agree_with_the_paper(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "timesformer_experiments.cli.main",
        "reproduce",
        "memory",
        "--out",
        str(tmp_path),
        "--json",
    ]
    made = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["artefacts"][0]
    assert "follow from: 32 GiB, 1 clip a card, torch 1.10. " in made["findings"][0]
    files = {path.name for path in (tmp_path / "memory" / "quick").iterdir()}
    assert files == {"memory.csv", "memory.md", "memory.png", "report.html", "mmaction2.csv", "mmaction2.md"}
