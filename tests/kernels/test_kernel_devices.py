"""Where the kernels can run, what is said where they cannot, and what `backend="auto"` chooses."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.kernels.kernel_cases import STEPS
from timesformer.attention.backends import choose
from timesformer_kernels import (
    AxisTile,
    Tile,
    auto,
    device,
    grouped_attention,
    prefers_add_norm,
    prefers_kernels,
    why_unusable,
)
from timesformer_kernels.auto import decide, known_on, measurements, read
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
print(kernels.auto.known_on(torch.device("cuda"), torch.bfloat16))
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
    assert preferred == "None"


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
    monkeypatch.setattr(auto, "measurements", dict)  # nothing was measured
    return capability


def prefers(
    dtype: torch.dtype,
    length: int,
    batch: int = 2,
    heads: int = 2,
    width: int = 64,
    where: str = "cuda",
    rows: int = 3,
) -> bool:
    """Whether `auto` takes the kernels for time attention of so many frames, on a GPU that is not there."""
    grid = (length, rows, 15)
    with FakeTensorMode():
        qkv = torch.empty(batch, *grid, 3, heads, width, dtype=dtype, device=where)
        return prefers_kernels(qkv, None, STEPS["time"].tiles(grid))


def test_old_and_new_gpus(gpu: list[tuple[int, int]]) -> None:
    assert why_unusable(None) is None
    assert why_unusable("cuda:0") is None
    assert why_unusable("meta") is None
    assert why_unusable("cpu") is not None
    gpu[0] = (7, 5)
    assert why_unusable("cuda") == "they need compute capability 8.0 (Ampere) or newer, this GPU has 7.5"
    assert not prefers(torch.bfloat16, 8)


def test_an_amd_gpu_is_refused_in_words(gpu: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch calls it cuda, and its capability reads as one of NVIDIA's."""
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "AMD GPUs (ROCm) are not supported" in str(why_unusable("cuda"))
    assert not prefers(torch.bfloat16, 8)


@pytest.mark.parametrize(("installed", "usable"), [("3.3.1", False), ("3.4.0", True), ("3.10.0+git", True)])
def test_the_oldest_triton(
    gpu: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, installed: str, usable: bool
) -> None:
    monkeypatch.setattr(device, "triton_version", lambda: installed)
    device.triton_missing.cache_clear()
    try:
        expected = None if usable else "they need Triton 3.4 or newer, this is 3.3.1"
        assert why_unusable("cuda") == expected
        assert prefers(torch.bfloat16, 8) == usable
    finally:
        device.triton_missing.cache_clear()


def test_the_oldest_triton_is_that_of_the_package() -> None:
    floor = "triton>={}.{};".format(*device.TRITON)
    assert (ROOT / "pyproject.toml").read_text().count(floor) == 2


def test_the_interpreter_counts_as_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert why_unusable("cpu") is None
    assert not prefers(torch.bfloat16, 8)  # it is slow


def test_tensors_on_a_cpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "interpreted", lambda: False)
    one = AxisTile(0, 1, 0, 1, 1, 1)
    with pytest.raises(KernelsUnavailable, match="got cpu"):
        grouped_attention(torch.zeros(1, 1, 1, 1, 3, 1, 16), None, [Tile(one, one, one)])


def test_auto_takes_short_groups_where_nothing_was_measured(gpu: list[tuple[int, int]]) -> None:
    assert [length for length in (1, 8, 32, 33, 196) if prefers(torch.bfloat16, length)] == [1, 8, 32]
    assert prefers(torch.float16, 8)
    assert not prefers(torch.float32, 8)
    assert not prefers(torch.bfloat16, 8, where="cpu")


def test_auto_asks_everything_that_the_kernels_ask(gpu: list[tuple[int, int]]) -> None:
    """What the kernels would refuse goes to sdpa, instead of raising."""
    assert prefers(torch.bfloat16, 8, width=16)
    assert prefers(torch.bfloat16, 8, width=128)
    assert not prefers(torch.bfloat16, 8, width=15)
    assert not prefers(torch.bfloat16, 8, width=129)
    assert prefers(torch.bfloat16, 8, batch=70000)  # in two launches
    assert not prefers(torch.bfloat16, 8, batch=2, rows=4370)  # 65550 groups, one to a block at worst
    assert prefers(torch.bfloat16, 8, batch=2, rows=4369)
    assert not prefers(torch.bfloat16, 8, heads=65535, width=128)  # a clip of more than 2^31 elements


@pytest.mark.parametrize(("width", "chosen"), [(64, "triton"), (8, "sdpa")])
def test_a_step_falls_back_to_sdpa(gpu: list[tuple[int, int]], width: int, chosen: str) -> None:
    grid = (8, 3, 5)

    def tensor(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(2, *shape, 3, 2, width, dtype=dtype, device="cuda")

    with FakeTensorMode():
        qkv = tensor(*grid)
        for token, expected in (
            (None, chosen),
            (tensor(1), chosen),
            (tensor(2), "sdpa"),  # a register
            (tensor(1, dtype=torch.float32), "sdpa"),
        ):
            assert choose("auto", STEPS["time"], qkv.device, qkv, token) == expected


def test_auto_is_decided_without_a_graph_break(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads a file and asks the driver, which torch.compile takes as a constant."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda where: "Fast GPU")
    monkeypatch.setattr(auto, "why_unusable", lambda where: None)
    monkeypatch.setattr(auto, "interpreted", lambda: False)

    def function(x: torch.Tensor) -> torch.Tensor:
        known = known_on(torch.device("cuda"), torch.bfloat16)
        return x + 1 if known is not None and decide(known, len(x)) else x - 1

    compiled = torch.compile(function, fullgraph=True, backend="eager", dynamic=True)
    assert [float(compiled(torch.zeros(length)).sum()) for length in (8, 32, 33)] == [8, 32, -33]


@pytest.mark.parametrize(
    ("dtype", "channels", "where", "expected"),
    [
        (torch.bfloat16, 768, "cuda", True),
        (torch.float16, 768, "cuda", True),
        (torch.float32, 768, "cuda", False),
        (torch.float64, 768, "cuda", False),
        (torch.bfloat16, 8200, "cuda", False),
        (torch.bfloat16, 768, "cpu", False),
    ],
)
def test_auto_fuses_residual_and_norm_in_half_precision(
    gpu: list[tuple[int, int]], dtype: torch.dtype, channels: int, where: str, expected: bool
) -> None:
    with FakeTensorMode():
        x = torch.empty(2, channels, dtype=dtype, device=where)
        assert prefers_add_norm(x, x) == expected
        assert prefers_add_norm(x, torch.empty_like(x, dtype=torch.float64)) is False


TABLE = """gpu,dtype,group_length,kernels_ms,other_ms
Fast GPU,bfloat16,8,1.0,3.0
Fast GPU,bfloat16,96,2.0,1.0
Fast GPU,bfloat16,784,1.0,2.0
Fast GPU,float16,8,3.0,1.0
Other GPU,bfloat16,8,3.0,1.0
"""


def test_auto_goes_by_the_nearest_measured_length() -> None:
    table = read(TABLE)
    lengths = (1, 8, 27, 28, 96, 274, 275, 2000)  # the borders: sqrt(8 * 96) = 27.7 and sqrt(96 * 784) = 274.3
    assert [decide(table["Fast GPU", "bfloat16"], n) for n in lengths] == [True] * 3 + [False] * 3 + [True] * 2
    assert not decide(table["Fast GPU", "float16"], 8)
    assert not decide(table["Other GPU", "bfloat16"], 8)
    assert decide((), 8)
    assert not decide((), 96)


def test_auto_reads_the_table_of_its_gpu(gpu: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "measurements", lambda: read(TABLE))
    assert [prefers(torch.bfloat16, length) for length in (8, 60, 700)] == [True, False, True]
    assert not prefers(torch.float16, 8)


def test_the_committed_measurements_can_be_read() -> None:
    names = ["gpu", "dtype", "group_length", "kernels_ms", "other_ms"]
    header, *rows = (ROOT / "kernels/timesformer_kernels/measured.csv").read_text().splitlines()
    assert header.split(",") == names
    assert sum(len(known) for known in measurements().values()) == len(rows)
    for (_, dtype), known in measurements().items():
        assert dtype in ("float16", "bfloat16")
        assert all(length > 0 for length, _ in known)
