"""Graphs that run without this library: the same outputs, for any number of clips."""

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from tests.attention.custom import SHIPPED
from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.checkpoints import export, graphs
from timesformer_experiments.cli.main import app

SMALL = {
    "num_frames": 2,
    "image_size": 16,
    "patch_size": 8,
    "num_classes": 3,
    "embed_dim": 32,
    "num_heads": 2,
    "depth": 1,
    "temporal_depth": 1,
}
OPENVINO = {"INFERENCE_PRECISION_HINT": "f32", "CPU_RUNTIME_CACHE_CAPACITY": 0}
"""Its cache of compiled primitives gives NaN now and then where the number of clips is dynamic (2026.4.1)."""
ALL = [pytest.param(name, marks=[] if name == "divided" else pytest.mark.slow) for name in sorted(SHIPPED)]


def make(attention: str, **fields: Any) -> TimeSformer:
    torch.manual_seed(0)
    model = TimeSformer(TimeSformerConfig.from_dict({**SMALL, "attention": attention, **fields})).eval()
    for parameter in model.parameters():  # extra linears and times are zero at first
        torch.nn.init.normal_(parameter, std=0.05)
    return model.requires_grad_(False)


def clips(number: int) -> torch.Tensor:
    return torch.randn(number, 2, 3, 16, 16, generator=torch.Generator().manual_seed(number))


@pytest.mark.parametrize("attention", ALL)
def test_onnx_agrees_in_onnxruntime_and_openvino(
    attention: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)  # it would send statistics when imported
    import onnxruntime
    import openvino

    model = make(attention)
    folder = export(model, tmp_path, "onnx")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model(str(folder / "model.onnx"), "CPU", OPENVINO)
    for number in (1, 2, 5):
        expected = model(clips(number)).numpy()
        scale = max(1.0, float(abs(expected).max()))
        assert abs(session.run(None, {"clip": clips(number).numpy()})[0] - expected).max() <= 1e-4 * scale
        assert abs(compiled(clips(number).numpy())[0] - expected).max() <= 1e-4 * scale


@pytest.mark.parametrize("backend", ["auto", "triton"])
def test_a_program_of_torch_export(backend: str, tmp_path: Path) -> None:
    """Whatever the model's backend is, the program needs PyTorch alone."""
    model = make("divided", backend=backend)
    export(model, tmp_path, "torch-export")
    program = torch.export.load(tmp_path / "model.pt2")
    assert not any("timesformer" in str(node.target) for node in program.graph.nodes if node.op == "call_function")
    for number in (1, 3):
        torch.testing.assert_close(program.module()(clips(number)), model(clips(number)), rtol=1e-4, atol=1e-4)


def test_the_command_writes_names_and_preprocessing_beside_the_graph(tmp_path: Path) -> None:
    model = make("divided")
    model.save_pretrained(tmp_path / "model", labels=["a", "b", "c"], preprocessing={})
    words = ["export", str(tmp_path / "model"), "--format", "torch-export", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out/labels.json").read_text()) == ["a", "b", "c"]
    assert json.loads((tmp_path / "out/preprocessing.json").read_text())["crop"] == [16, 16]
    assert json.loads((tmp_path / "out/config.json").read_text())["model"]["attention"] == "divided"


def test_a_graph_that_differs_is_refused(tmp_path: Path) -> None:
    model = make("divided")
    with pytest.raises(InputError, match=r"outputs differ from the model's by \d\.\de"):
        graphs._compare(tmp_path, model, graphs._clip(model), lambda clip: model(clip) + model(clip).abs().max())


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else builtins)
    with pytest.raises(InputError, match=r"needs onnxscript: pip install 'timesformer-ablations\[onnx\]'"):
        export(make("divided"), tmp_path, "onnx")
    monkeypatch.undo()
    with pytest.raises(InputError, match="fused for inference"):
        export(make("divided").fuse_for_inference(), tmp_path, "torch-export")
