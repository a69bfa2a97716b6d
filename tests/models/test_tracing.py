"""Models seen by tools that trace: torch.jit, fvcore, torch.export, torch.compile."""

import copy
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fvcore.nn import FlopCountAnalysis

from tests.attention.custom import SHIPPED
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.checkpoints.graphs import program_of
from timesformer.models.steps import Steps

ROOT = Path(__file__).parents[2]
SMALL = {
    "num_frames": 4,
    "image_size": (12, 8),
    "patch_size": 4,
    "num_classes": 5,
    "embed_dim": 32,
    "num_heads": 2,
    "depth": 1,
    "temporal_depth": 1,
}
SCHEMES = sorted(SHIPPED)
FEW = ("divided", "local_global", "sliding_tile", "trajectory")
MOST = [pytest.param(name, marks=[] if name in FEW[:2] else pytest.mark.slow) for name in SCHEMES]


def make(attention: str) -> tuple[TimeSformer, torch.Tensor]:
    torch.manual_seed(0)
    model = TimeSformer(TimeSformerConfig.from_dict({**SMALL, "attention": attention})).eval().requires_grad_(False)
    return model, torch.randn(2, 4, 3, 12, 8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("attention", SCHEMES)
def test_torch_jit_and_fvcore_trace_every_scheme(attention: str) -> None:
    model, clip = make(attention)
    traced = torch.jit.trace(model, clip, check_trace=False)
    torch.testing.assert_close(traced(clip), model(clip), rtol=1e-4, atol=1e-5)
    analysis = FlopCountAnalysis(model, clip)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    assert analysis.total() > 2 * 4 * 6 * 32 * 3 * 32


@pytest.mark.parametrize("attention", MOST)
def test_torch_export_of_every_scheme_holds_for_any_number_of_clips(attention: str) -> None:
    model, clip = make(attention)
    program = program_of(model, clip).module()
    for given in (clip, clip[:1], torch.cat([clip, clip[:1]])):
        torch.testing.assert_close(program(given), model(given), rtol=1e-4, atol=1e-5)


def test_a_step_called_by_a_keyword_keeps_its_name_in_a_state() -> None:
    model, _ = make("local_global")
    name = "encoders.0.blocks.0.steps.global.qkv.bias"
    state = model.state_dict()
    steps = model.stacks()[0].blocks[0].steps
    assert isinstance(steps, Steps)
    assert list(steps) == list(steps.keys()) == ["local", "global"]
    assert [list(dict(steps.items())), "global" in steps, len(steps)] == [["local", "global"], True, 2]
    assert name in state
    assert model.get_parameter(name) is steps["global"].qkv.bias
    order = [key.split(".steps.")[1].split(".")[0] for key in state if ".steps." in key]
    assert order == sorted(order, reverse=True)  # local, then global
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), make("local_global")[0]):
        other.load_state_dict({key: value + 1 for key, value in state.items()})
        assert torch.equal(other.get_parameter(name), model.get_parameter(name) + 1)
    lacking = {key: value for key, value in state.items() if key != name} | {f"{name}2": state[name]}
    found = model.load_state_dict(lacking, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == ([name], [f"{name}2"])


COMPILE = """
import sys, torch
sys.path[:0] = sys.argv[3:]
from timesformer import TimeSformer, TimeSformerConfig
torch.manual_seed(0)
config = TimeSformerConfig(attention=sys.argv[1], num_frames=4, depth=1, image_size=(12, 8), patch_size=4,
                           num_classes=5, embed_dim=32, num_heads=2)
model = TimeSformer(config).eval().requires_grad_(False)
counts = torch._dynamo.utils.counters
for made in (model, model.fuse_for_inference()):
    compiled = torch.compile(made, backend=sys.argv[2], dynamic=True)
    for shape in ((2, 4, 3, 12, 8), (3, 4, 3, 12, 8), (3, 6, 3, 16, 8), (2, 8, 3, 12, 12)):
        clip = torch.randn(shape)
        torch.testing.assert_close(compiled(clip), made(clip), rtol=1e-4, atol=1e-5)
print("same")
"""


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize(("attention", "backend"), [*((name, "eager") for name in FEW), ("divided", "inductor")])
def test_compiled_for_any_size_plain_and_fused(attention: str, backend: str) -> None:
    """In a process of its own: the type checks of the tests are no code to compile."""
    paths = [str(ROOT / name) for name in ("", "kernels", "experiments")]
    command = [sys.executable, "-c", COMPILE, attention, backend, *paths]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "same", done.stderr
