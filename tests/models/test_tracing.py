"""Models seen by tools that trace: torch.jit, fvcore, torch.export, torch.compile."""

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.attention.custom import SHIPPED
from timesformer import TimeSformer, TimeSformerConfig
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
SETUP = f"""
import json, logging, sys, warnings
warnings.simplefilter("ignore")
import torch
from timesformer import TimeSformer, TimeSformerConfig

def make(attention):
    torch.manual_seed(0)
    return TimeSformer(TimeSformerConfig.from_dict({{"attention": attention, **{SMALL}}})).eval().requires_grad_(False)

def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

clip = torch.randn(2, 4, 3, 12, 8)
"""


def run(script: str, *arguments: str) -> list[str]:
    """Run a script in a process of its own: the type checks of the tests are no code to trace."""
    paths = os.pathsep.join(str(ROOT / name) for name in ("", "kernels", "experiments"))
    done = subprocess.run(
        [sys.executable, "-c", SETUP + script, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths + os.pathsep + os.environ.get("PYTHONPATH", "")},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def make(attention: str) -> tuple[TimeSformer, torch.Tensor]:
    torch.manual_seed(0)
    model = TimeSformer(TimeSformerConfig.from_dict({**SMALL, "attention": attention})).eval().requires_grad_(False)
    return model, torch.randn(2, 4, 3, 12, 8)


TRACE = """
from fvcore.nn import FlopCountAnalysis
logging.disable(logging.WARNING)
for attention in sys.argv[1:]:
    model = make(attention)
    for made in (model, model.fuse_for_inference()):
        same(torch.jit.trace(made, clip, check_trace=False)(clip), made(clip))
    assert FlopCountAnalysis(model, clip).total() > 2 * 4 * 6 * 32 * 3 * 32
    print(attention)
"""


@pytest.mark.integration
def test_torch_jit_and_fvcore_trace_every_scheme() -> None:
    assert run(TRACE, *SCHEMES) == SCHEMES


EXPORT = """
from timesformer.checkpoints.graphs import program_of
for attention in sys.argv[1:]:
    model = make(attention)
    program = program_of(model, clip).module()
    for given in (clip, clip[:1], torch.cat([clip, clip[:1]])):
        same(program(given), model(given))
    print(attention)
"""


@pytest.mark.integration
@pytest.mark.parametrize("schemes", [FEW[:2], pytest.param(SCHEMES, marks=pytest.mark.slow)], ids=["few", "all"])
def test_torch_export_holds_for_any_number_of_clips(schemes: Sequence[str]) -> None:
    assert run(EXPORT, *schemes) == list(schemes)


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
model = make(sys.argv[1])
for made in (model, model.fuse_for_inference()):
    compiled = torch.compile(made, backend=sys.argv[2], dynamic=True)
    for shape in ((2, 4, 3, 12, 8), (3, 4, 3, 12, 8), (3, 6, 3, 16, 8), (2, 8, 3, 12, 12)):
        given = torch.randn(shape)
        same(compiled(given), made(given))
print("same")
"""


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize(("attention", "backend"), [*((name, "eager") for name in FEW), ("divided", "inductor")])
def test_compiled_for_any_size_plain_and_fused(attention: str, backend: str) -> None:
    assert run(COMPILE, attention, backend) == ["same"]
