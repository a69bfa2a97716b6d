"""The package: every folder of code is in the wheel, and the model imports with torch and einops alone."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def folders() -> set[str]:
    found = set()
    for top, name in (
        ("timesformer", "timesformer"),
        ("kernels/timesformer_kernels", "timesformer_kernels"),
        ("experiments/timesformer_experiments", "timesformer_experiments"),
    ):
        for init in (ROOT / top).rglob("__init__.py"):
            found.add(".".join((name, *init.parent.relative_to(ROOT / top).parts)))
    return found


@pytest.mark.slow
def test_wheel_holds_every_package(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(ROOT)], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in folders():
        assert f"{package.replace('.', '/')}/__init__.py" in names, package
    assert "timesformer_experiments/report/values.yaml" in names
    assert "timesformer_kernels/measured.csv" in names


BLOCKER = """
import sys
from importlib.abc import MetaPathFinder

class Blocker(MetaPathFinder):
    blocked = {"accelerate", "av", "beartype", "fvcore", "huggingface_hub", "jaxtyping", "matplotlib", "pandas",
               "pyarrow", "pydantic", "rich", "safetensors", "scipy", "sklearn", "triton", "typer", "yaml"}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.blocked:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Blocker())
import torch
from timesformer import TimeSformer, TimeSformerConfig
config = TimeSformerConfig(attention="local_global", image_size=16, patch_size=8, embed_dim=12, depth=1)
print(tuple(TimeSformer(config)(torch.zeros(1, 8, 3, 16, 16)).shape))
"""


@pytest.mark.integration
def test_the_model_needs_torch_and_einops_alone() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKER], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "(1, 400)", done.stderr
