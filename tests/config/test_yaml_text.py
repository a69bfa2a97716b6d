"""YAML as users write it."""

import pytest
import yaml

from timesformer.config.yaml_text import parse_yaml
from timesformer.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E3", 1000.0), ("-2e+5", -2e5), (".5e1", 5.0), ("1.e2", 100.0), ("1.0e-3", 0.001),
        ("12", 12), ("1.5", 1.5), ("e3", "e3"), ("1e", "1e"), ("'1e-3'", "1e-3"), ("yes", True),
        ("123456e789012345", "123456e789012345"), ("0123456701234567", "0123456701234567"),
        ("010", 10), ("-0o10", -8), ("0x1F", 31), ("0b11", 3), ("1_000", 1000), ("1_0.5", 10.5),
        ("+.inf", float("inf")),
        ("1:30", "1:30"), ("1:30.5", "1:30.5"), ("08:30", "08:30"), ("10x3", "10x3"), (".", "."),
    ],
)  # fmt: skip
def test_numbers(text: str, value: object) -> None:
    found = parse_yaml(f"x: {text}", "file.yaml")["x"]
    assert found == value
    assert type(found) is type(value)


def test_a_key_that_is_given_twice_is_an_error_with_its_line() -> None:
    with pytest.raises(InputError, match=r"^file\.yaml:4: 'lr' is given twice, first in line 2$"):
        parse_yaml("recipe:\n  lr: 1\n  steps: 2\n  lr: 3\n", "file.yaml")
    with pytest.raises(InputError, match=r"^file\.yaml:1: 'a' is given twice, first in line 1$"):
        parse_yaml("[{a: 1, a: 1}]", "file.yaml")
    with pytest.raises(InputError, match=r"^file\.yaml:3: '<<' is given twice, first in line 2$"):
        parse_yaml("a:\n  <<: {x: 1}\n  <<: {x: 2}\n", "file.yaml")


def test_merged_mappings_may_be_completed_by_the_same_key() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, x: 4}\nd: *b\n"
    found = parse_yaml(text, "file.yaml")
    assert (found["b"], found["c"], found["d"]) == ({"x": 3, "y": 2}, {"x": 4, "y": 2}, {"x": 3, "y": 2})


def test_nothing_but_plain_data_is_made() -> None:
    with pytest.raises(yaml.YAMLError):
        parse_yaml("!!python/object/apply:os.system [exit]", "file.yaml")
