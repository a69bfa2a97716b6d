"""The package: what the wheel holds, what it installs, and that the model imports with torch and einops alone."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOTS = {
    "timesformer": "timesformer",
    "kernels/timesformer_kernels": "timesformer_kernels",
    "experiments/timesformer_experiments": "timesformer_experiments",
}


def tracked() -> set[str]:
    """Every file that git tracks inside the packages, by its place in a wheel."""
    listed = subprocess.run(["git", "ls-files", "-z", *ROOTS], cwd=ROOT, capture_output=True, text=True, check=True)
    found = set()
    for name in filter(None, listed.stdout.split("\0")):
        (top,) = [top for top in ROOTS if name.startswith(f"{top}/")]
        found.add(ROOTS[top] + name.removeprefix(top))
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of what git tracks, so that nothing left over from earlier builds gets in."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z", *ROOTS, "pyproject.toml", "README.md", "LICENSE"],
                            cwd=ROOT, capture_output=True, text=True, check=True)  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(folder / "source")]
    subprocess.run(command, check=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.mark.slow
def test_the_wheel_holds_what_git_tracks(wheel: Path) -> None:
    """Code and data alike: py.typed, csv, yaml, css, html, js and whatever else there is."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert not tracked() - names
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == set(ROOTS.values())  # no `experiments`, `kernels` or `tests`


def venv(folder: Path) -> Path:
    """The Python of a new environment that sees the dependencies installed here, not an editable install of ours."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    import torch

    Path(own.stdout.strip(), "dependencies.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    return python


def install(python: Path, *what: str) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", *what]
    subprocess.run(command, check=True, env=outside())


def outside() -> dict[str, str]:
    """The environment without the paths of this checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


WHERE = """
import timesformer, timesformer_kernels, timesformer_experiments
from timesformer_experiments import load_results
for module in (timesformer, timesformer_kernels, timesformer_experiments):
    print(module.__file__)
"""


def check(python: Path, cwd: Path) -> list[Path]:
    """Run the command and import the packages outside the checkout; where the packages were found."""
    shown = subprocess.run(
        [python.parent / "timesformer", "--help"], cwd=cwd, env=outside(), capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert "reproduce" in shown.stdout
    done = subprocess.run([python, "-c", WHERE], cwd=cwd, env=outside(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [Path(line) for line in done.stdout.split()]


@pytest.mark.slow
def test_an_installed_wheel_works(wheel: Path, tmp_path: Path) -> None:
    """The command and `load_results` work from the wheel alone.

    Dependencies are those of this environment: that `pip` resolves and installs them is not shown here.
    """
    python = venv(tmp_path / "env")
    install(python, "--ignore-installed", str(wheel))
    assert all(tmp_path / "env" in path.parents for path in check(python, tmp_path))


@pytest.mark.slow
def test_an_editable_install_works(wheel: Path, tmp_path: Path) -> None:
    """All three roots are found where they lie."""
    source = wheel.parent / "source"
    python = venv(tmp_path / "env")
    install(python, "--ignore-installed", "--editable", str(source))
    assert all(source in path.parents for path in check(python, tmp_path))


def test_all_data_files_are_declared() -> None:
    """The quick half of `test_the_wheel_holds_what_git_tracks`: every kind of file is in `package-data`."""
    (patterns,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"].values()
    ends = tuple(pattern.removeprefix("**/").removeprefix("*") for pattern in patterns)
    assert not [name for name in tracked() if not name.endswith((".py", *ends))]


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
