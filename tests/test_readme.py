"""What the README shows is run as it stands there."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.spec import load_specs
from timesformer.attention import load_file

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_scheme_of_ones_own(tmp_path: Path) -> None:
    (code,) = [block for block in blocks("python") if "SCHEMES" in block]
    assert len(code.splitlines()) < 20
    path = tmp_path / "rows.py"
    path.write_text(code)
    assert [scheme.name for scheme in load_file(path)] == ["rows"]


def test_first_model() -> None:
    (code,) = [block for block in blocks("python") if "TimeSformerConfig" in block]
    scope: dict[str, object] = {}
    exec(code, scope)
    assert scope["logits"].shape == (1, 400)  # type: ignore[attr-defined]


def test_run_file(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    path = tmp_path / "run.yaml"
    path.write_text(text)
    (spec,) = load_specs(path)
    assert spec.name == "mine"
    assert spec.recipe.total_steps(64) == 15


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("timesformer ")]


@pytest.mark.parametrize("line", [line for line in commands() if line.split()[1] not in {"train", "evaluate"}])
def test_commands(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [block for block in blocks("python") if "SCHEMES" in block]
    (tmp_path / "rows.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)[1:]
    if words[0] == "probe":
        words += ["--num-test", "16"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output


def test_folders_of_the_map_exist() -> None:
    for folder in re.findall(r"^\| `([a-z/]+/)` \|", README, flags=re.MULTILINE):
        assert (Path(__file__).parent.parent / folder).is_dir(), folder
