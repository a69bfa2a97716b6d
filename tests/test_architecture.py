"""Structure: no module takes part in an import circle, folders stay small, files stay short.

The layers are held by import-linter (`make lint`); here is what its contracts leave open, such as a package's
`__init__` that imports what imports it.
"""

from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "timesformer": ROOT / "timesformer",
    "timesformer_kernels": ROOT / "kernels" / "timesformer_kernels",
    "timesformer_experiments": ROOT / "experiments" / "timesformer_experiments",
}
MOST_FILES = {"timesformer": 12, "timesformer_experiments": 3}
"""Python files directly in a package."""
MOST_IN_A_FOLDER = 22
MOST_LINES = 400


def circles(graph: grimp.ImportGraph) -> list[set[str]]:
    """Sets of modules that import one another, imports inside functions counted; each is found once."""
    found: list[set[str]] = []
    for module in sorted(graph.modules):
        if any(module in circle for circle in found):
            continue
        after = graph.find_upstream_modules(module)
        circle = {other for other in after if module in graph.find_upstream_modules(other)}
        if circle:
            found.append(circle | {module})
    return found


def folders() -> list[Path]:
    return sorted(path for top in PACKAGES.values() for path in (top, *top.rglob("*/")) if path.name != "__pycache__")


def test_no_module_takes_part_in_a_circle() -> None:
    assert circles(grimp.build_graph(*PACKAGES)) == []


def test_a_circle_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is closed by an import inside a function, or by a package's own file."""
    package = tmp_path / "circular_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("from circular_pkg.first import one\n")
    (package / "first.py").write_text("from circular_pkg.second import two\none = 1\n")
    (package / "second.py").write_text("two = 2\n\n\ndef later():\n    import circular_pkg.first\n")
    (package / "third.py").write_text("from circular_pkg import one\n")
    monkeypatch.syspath_prepend(tmp_path)
    graph = grimp.build_graph("circular_pkg", cache_dir=None)
    assert circles(graph) == [{"circular_pkg.first", "circular_pkg.second"}]
    (package / "second.py").write_text("from circular_pkg import third\n")
    graph = grimp.build_graph("circular_pkg", cache_dir=None)
    assert circles(graph) == [{"circular_pkg", "circular_pkg.first", "circular_pkg.second", "circular_pkg.third"}]


@pytest.mark.parametrize(("package", "most"), MOST_FILES.items())
def test_few_files_lie_directly_in_a_package(package: str, most: int) -> None:
    assert len(list(PACKAGES[package].glob("*.py"))) <= most


def test_no_folder_is_crowded() -> None:
    crowded = {
        str(path.relative_to(ROOT)): count
        for path in folders()
        if (count := len(list(path.glob("*.py")))) > MOST_IN_A_FOLDER
    }
    assert crowded == {}


def test_no_file_is_long() -> None:
    files = [path for top in (*PACKAGES.values(), ROOT / "tests") for path in top.rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}
