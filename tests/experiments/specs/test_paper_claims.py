"""Files of claims are validated when they are read; a fault is named with its file and field."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from timesformer.errors import InputError
from timesformer_experiments.specs.paper_claims import read_claims

CLAIM = {"text": "A is better", "artefact": "table1", "on": "motion", "first": "a", "second": "b", "family": "table1"}
FILE = {"level": 0.05, "failed_below_percent": {"motion": 80}, "claims": [CLAIM]}


def written(folder: Path, **other: Any) -> Path:
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump(FILE | other))
    return path


def test_a_file_of_claims_and_its_digest(tmp_path: Path) -> None:
    path = written(tmp_path)
    found = read_claims(path)
    (claim,) = found.claims.claims
    assert (claim.name, claim.expected, claim.bound) == ("A is better (motion)", "more", None)
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"claims": []}, "claims: "),
        ({"claims": [CLAIM | {"expected": "less"}]}, r"claims\.0\.expected: .*got 'less'"),
        ({"claims": [CLAIM | {"second": "a"}]}, "first and second are both 'a'"),
        ({"claims": [CLAIM | {"bound": {"first": "clips"}}]}, r"claims\.0\.bound\.second: Field required"),
        ({"claims": [CLAIM | {"wanted": 1}]}, r"claims\.0\.wanted: unknown field"),
        ({"claims": [CLAIM, CLAIM]}, "'A is better (motion)' is there twice".replace("(", r"\(").replace(")", r"\)")),
        ({"claims": [CLAIM | {"margin": 0}]}, r"claims\.0\.margin: "),
        ({"claims": [CLAIM | {"name": "x"}]}, "name: it follows from text and on"),
        ({"failed_below_percent": {"motion": 180}}, "failed_below_percent: motion: expected a percentage or midpoint"),
        ({"failed_below_percent": "half"}, "failed_below_percent: expected a percentage or midpoint, got 'half'"),
        ({"failed_below_percent": {"moton": 75}}, "failed_below_percent: moton: expected one of the probes"),
    ],
)
def test_faults_are_named(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    path = written(tmp_path, **other)
    with pytest.raises(InputError, match=message) as found:
        read_claims(path)
    assert str(found.value).startswith(f"{path}: ")


def test_on_without_quotes_is_an_unknown_field(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(FILE).replace("on: motion", "on : motion").replace("'on'", "on"))
    with pytest.raises(InputError, match=r"claims\.0\.on: Field required"):
        read_claims(path)
