"""README and documentation: links, names and tables agree with the repository."""

import pkgutil
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from markdown.extensions import toc

from tests.pages import PAGES, ROOT
from timesformer import TimeSformerConfig
from timesformer.config.cnn import CnnConfig
from timesformer.data import Preprocessing
from timesformer.data.probes import Difficulty
from timesformer.training.recipe import Recipe
from timesformer_experiments.specs.data import CsvData, ProbeData
from timesformer_experiments.specs.run import RunSpec

LINKING = [*PAGES, *(ROOT / name for name in ("kernels/README.md", "results/README.md"))]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {
        toc.slugify(heading.replace("`", ""), "-") for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    }


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in LINKING])
def test_links_lead_somewhere(page: str) -> None:
    for address in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        if re.match(r"https://", address):
            continue
        path, _, anchor = address.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.is_file(), f"{page}: {address}"
        if anchor:
            assert anchor in anchors(target), f"{page}: {address}"


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in LINKING])
def test_tables_are_whole(page: str) -> None:
    """A table has a heading, a rule and rows with as many cells: rows after a blank line would be plain text."""
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        rows = re.sub(r"`[^`\n]*`|\\\|", "", table).splitlines()
        assert re.fullmatch(r"\|[-|: ]+\|", "".join(rows[1:2])), f"{page}: {rows[0]}"
        assert len({row.count("|") for row in rows}) == 1, f"{page}: {rows[0]}"


def test_the_pages_name_what_exists() -> None:
    """Dotted names of our packages can be imported, `make` targets and extras are there, folders of the map as well."""
    texts = "\n".join(page.read_text(encoding="utf-8") for page in LINKING)
    for name in set(re.findall(r"`((?:timesformer|timesformer_kernels|timesformer_experiments)(?:\.\w+)+)`", texts)):
        pkgutil.resolve_name(name)
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^)make ([a-z-]+)", texts, flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(rows_under("docs/install.md", "extra")) == set(extras)
    for folder in rows_under("README.md", "folder"):
        assert (ROOT / folder).is_dir(), folder


def rows_under(page: str, first: str, number: int = 0) -> dict[str, list[str]]:
    """The rows of a page's table whose first column is called so: names in the first column -> the other cells."""
    tables = re.findall(rf"^\| {first} \|.*\n\|[-|: ]+\|\n((?:\|.*\n)+)", (ROOT / page).read_text(), flags=re.MULTILINE)
    found = {}
    for line in tables[number].splitlines():
        name, *cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        for each in re.findall(r"`([^`]+)`", name):
            found[each] = cells
    return found


SECTIONS: list[tuple[str, int, dict[str, Any]]] = [
    ("docs/train.md", 0, {name: field.default for name, field in RunSpec.model_fields.items()}),
    (
        "docs/train.md",
        1,
        {name: field.default for kind in (ProbeData, CsvData) for name, field in kind.model_fields.items()},
    ),
    ("docs/train.md", 2, {field.name: field.default for field in fields(TimeSformerConfig)}),
    ("docs/train.md", 3, {field.name: field.default for field in fields(CnnConfig)}),
    ("docs/train.md", 4, {field.name: field.default for field in fields(Recipe) if field.name != "seed"}),
    ("docs/data.md", 0, {field.name: field.default for field in fields(Preprocessing)}),
    ("docs/probes.md", 0, {field.name: field.default for field in fields(Difficulty)}),
]


@pytest.mark.parametrize(("page", "number", "known"), SECTIONS, ids=[f"{page}-{n}" for page, n, _ in SECTIONS])
def test_tables_of_fields_are_complete(page: str, number: int, known: dict[str, Any]) -> None:
    """Every field has a row, no row has another name, and plain defaults are those of the code."""
    rows = rows_under(page, "field", number)
    assert set(rows) - {"train", "val", "test"} == set(known)
    for name, default in known.items():
        stated = rows[name][0].strip("`")
        if isinstance(default, bool | int | float | str) and re.fullmatch(r"[\d.e-]+|true|false|[a-z0-9_]+", stated):
            assert str(default).lower() == stated or float(stated) == float(default), name
