"""The published values: every block has its source, what contradicts what is printed with the rows it concerns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from timesformer.errors import InputError
from timesformer_experiments.report.published import CONFIDENCES, VALUES, contradictions, published, remarks

FILE: dict[str, Any] = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
ARTEFACTS = [name for name, value in FILE.items() if isinstance(value, dict)]
BLOCKS = [(name, block) for name in ARTEFACTS for block in FILE[name] if block != "remarks"]
UNITS = (
    "percent", "points", "millions", "total", "view", "hours", "seconds", "ms", "mib", "videos", "gpus", "classes",
    "clips", "card",
)  # fmt: skip
NO_UNIT = {"frames", "crop", "patch_size", "temporal_depth"}


@pytest.mark.parametrize(("artefact", "name"), BLOCKS)
def test_every_block_is_sourced_and_its_numbers_have_units(artefact: str, name: str) -> None:
    block = published(artefact, name)
    rows = list(block.rows.values()) if isinstance(block.rows, dict) else block.rows
    assert rows
    assert block.confidence in CONFIDENCES
    assert (block.digitising_error is None) == (block.confidence != "digitised")
    for row in rows:
        for field, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                assert field in NO_UNIT or field.endswith(UNITS), field
            if field.endswith("percent"):
                assert 0 < value <= 100


@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_contradictions_name_rows_that_exist(artefact: str) -> None:
    known = set()
    for name in FILE[artefact]:
        if name == "remarks":
            continue
        rows = FILE[artefact][name]["rows"]
        known |= set(rows) if isinstance(rows, dict) else set()
        for row in rows.values() if isinstance(rows, dict) else rows:
            known |= {str(value) for value in row.values()}
    for remark in contradictions(artefact):
        assert set(remark.rows) <= known, remark
        assert remark in remarks(artefact)


def test_the_contradictions_are_all_there_and_concern_something() -> None:
    entries = FILE["contradictions"]
    assert [entry["number"] for entry in entries] == list(range(1, 24))
    for entry in entries:
        assert entry["concerns"]
        assert set(entry["concerns"]) <= set(ARTEFACTS)
    assert any("1.11" in remark.text and remark.rows == ("i3d",) for remark in contradictions("table2"))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text("table1: {a: {source: b, confidence: digitised, digitising_error: 0.1, rows: [{}]}}")
    with pytest.raises(InputError, match=r"table1\.a: `digitising_unit` is missing"):
        published("table1", "a", path)
    assert remarks("table1", path) == ()
    with pytest.raises(InputError, match="no published values under table9"):
        remarks("table9", path)
