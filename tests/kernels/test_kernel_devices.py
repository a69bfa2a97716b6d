"""Where the kernels can run, what is said where they cannot, and what `backend="auto"` chooses."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from timesformer_kernels import AxisTile, Tile, auto, device, grouped_attention, prefers_kernels, why_unusable
from timesformer_kernels.auto import decide, measurements
from timesformer_kernels.device import KernelsUnavailable

ROOT = Path(__file__).parents[2]

WITHOUT_TRITON = """
import sys
for name in ("triton", "einops", "jaxtyping", "pandas", "accelerate", "scipy"):
    sys.modules[name] = None  # as if it were not installed
import torch
import timesformer_kernels as kernels
tile = kernels.Tile(kernels.AxisTile(0, 1, 0, 2, 2, 1), *[kernels.AxisTile(0, 1, 0, 1, 1, 1)] * 2)
qkv = torch.randn(1, 2, 1, 1, 3, 1, 16)
print(kernels.reference_groups(qkv, None, (tile,), 0)[0].shape[1])
print(kernels.why_unusable("cpu"))
two = torch.ones(2)
for call in (lambda: kernels.grouped_attention(qkv, None, [tile]), lambda: kernels.add_norm(two, two, two, two, 1e-6)):
    try:
        call()
    except kernels.KernelsUnavailable as error:
        print(error)
print(kernels.prefers_kernels(torch.device("cuda"), torch.bfloat16, 8))
"""


def run(script: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env={"PATH": "", **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.integration
def test_everything_imports_with_torch_alone_and_says_that_triton_is_missing() -> None:
    tokens, reason, *errors, preferred = run(WITHOUT_TRITON)
    assert tokens == "2"
    assert reason == "Triton is not installed: pip install 'timesformer-ablations[triton]'"
    assert errors == [f"Triton kernels cannot run: {reason}"] * 2
    assert preferred == "False"


@pytest.mark.integration
def test_a_model_without_a_gpu_says_what_is_missing() -> None:
    """In a process of its own: here the interpreter is on."""
    script = (
        "from timesformer import TimeSformer, TimeSformerConfig\n"
        "from timesformer.attention.backends import BackendError\n"
        "try:\n    TimeSformer(TimeSformerConfig(attention='divided', image_size=16, depth=1, backend='triton'))\n"
        "except BackendError as error:\n    print(error)\n"
    )
    (line,) = run(script, CUDA_VISIBLE_DEVICES="")
    assert line == (
        "backend 'triton' cannot run: they need tensors on an NVIDIA GPU, got cpu; TRITON_INTERPRET=1 runs "
        "them on a CPU"
    )


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """A GPU of a capability that the test sets, without the interpreter."""
    capability = [(9, 0)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: capability[0])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda where: "Fast GPU")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    return capability


def test_old_and_new_gpus(gpu: list[tuple[int, int]]) -> None:
    assert why_unusable(None) is None
    assert why_unusable("cuda:0") is None
    assert why_unusable("meta") is None
    assert why_unusable("cpu") is not None
    gpu[0] = (7, 5)
    assert why_unusable("cuda") == "they need compute capability 8.0 (Ampere) or newer, this GPU has 7.5"
    assert not prefers_kernels(torch.device("cuda"), torch.bfloat16, 8)


def test_the_interpreter_counts_as_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert why_unusable("cpu") is None
    assert not prefers_kernels(torch.device("cuda"), torch.bfloat16, 8)  # it is slow


def test_tensors_on_a_cpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "interpreted", lambda: False)
    one = AxisTile(0, 1, 0, 1, 1, 1)
    with pytest.raises(KernelsUnavailable, match="got cpu"):
        grouped_attention(torch.zeros(1, 1, 1, 1, 3, 1, 16), None, [Tile(one, one, one)])


def test_auto_takes_short_groups_where_nothing_was_measured(
    gpu: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "measurements", tuple)
    where = torch.device("cuda")
    assert [length for length in (1, 8, 32, 33, 196) if prefers_kernels(where, torch.bfloat16, length)] == [1, 8, 32]
    assert prefers_kernels(where, torch.float16, 8)
    assert not prefers_kernels(where, torch.float32, 8)
    assert not prefers_kernels(torch.device("cpu"), torch.bfloat16, 8)


def test_auto_goes_by_the_nearest_measured_length() -> None:
    def row(gpu: str, dtype: str, length: int, ours: float, theirs: float) -> dict[str, str]:
        return {
            "gpu": gpu,
            "dtype": dtype,
            "group_length": str(length),
            "kernels_ms": str(ours),
            "other_ms": str(theirs),
        }

    table = (
        row("Fast GPU", "bfloat16", 8, 1.0, 3.0),
        row("Fast GPU", "bfloat16", 96, 2.0, 1.0),
        row("Fast GPU", "bfloat16", 784, 1.0, 2.0),
        row("Fast GPU", "float16", 8, 3.0, 1.0),
        row("Other GPU", "bfloat16", 8, 3.0, 1.0),
    )
    lengths = (1, 8, 27, 28, 96, 274, 275, 2000)  # the borders: sqrt(8 * 96) = 27.7 and sqrt(96 * 784) = 274.3
    assert [decide(table, "Fast GPU", "bfloat16", n) for n in lengths] == [True] * 3 + [False] * 3 + [True] * 2
    assert not decide(table, "Fast GPU", "float16", 8)
    assert not decide(table, "Other GPU", "bfloat16", 8)
    assert decide(table, "Third GPU", "bfloat16", 8)
    assert not decide(table, "Third GPU", "bfloat16", 96)


def test_the_committed_measurements_can_be_read() -> None:
    names = ["gpu", "dtype", "group_length", "kernels_ms", "other_ms"]
    assert (ROOT / "kernels/timesformer_kernels/measured.csv").read_text().splitlines()[0].split(",") == names
    for row in measurements():
        assert row["dtype"] in ("float16", "bfloat16")
        assert int(row["group_length"]) > 0
        assert min(float(row["kernels_ms"]), float(row["other_ms"])) > 0
