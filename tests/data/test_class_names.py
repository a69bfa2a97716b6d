"""Files of class names, as datasets bring them."""

import json
from pathlib import Path

import pytest

from timesformer import InputError
from timesformer.data import read_class_names
from timesformer.data.annotations import read_labels

NAMES = ["b, too", "a", "c d"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.json", json.dumps(NAMES)),
        ("words.json", json.dumps([["b,", "too"], "a", ["c", "d"]])),
        ("by_name.json", json.dumps({"a": "1", "b, too": "0", "c d": 2})),
        ("by_index.json", json.dumps({"2": "c d", "0": "b, too", "1": "a"})),
        ("lines.txt", "b, too\na\n\nc d\n"),
        ("categories.txt", "a,1\nb, too,0\nc d,2\n"),
        ("kinetics.csv", 'id,name\n1,a\n0,"b, too"\n2,c d\n'),
        ("epic.csv", 'id,key,instances,category\n0,"b, too","[\'b\']",x\n1,a,[],y\n2,c d,[],y\n'),
        ("plain.csv", '0,"b, too"\n2,c d\n1,a\n'),
        ("turned.csv", '"b, too",0\nc d,2\na,1\n'),
    ],
)
def test_every_shape(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_class_names(tmp_path / name) == NAMES


def test_names_that_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps({"0": "512", "1": "77"}))
    assert read_class_names(file) == ["512", "77"]
    file.write_text(json.dumps({"512": 0, "77": 1}))
    assert read_class_names(file) == ["512", "77"]
    (tmp_path / "years.txt").write_text("a,3\nb,4\n")  # no indices: they do not begin at 0
    assert read_class_names(tmp_path / "years.txt") == ["a,3", "b,4"]


def test_several_heads(tmp_path: Path) -> None:
    (tmp_path / "verbs.txt").write_text("cut\nopen\n")
    (tmp_path / "nouns.txt").write_text("door\n")
    found = read_labels({"verb": tmp_path / "verbs.txt", "noun": tmp_path / "nouns.txt"})
    assert found == {"verb": ["cut", "open"], "noun": ["door"]}
    assert read_labels(tmp_path / "nouns.txt") == ["door"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "[1]", r"a\.json: entry 1: expected a class name, got 1"),
        ("a.json", '["x", []]', "entry 2: expected a class name"),
        ("a.json", '"x"', "expected a list of class names or a mapping"),
        ("a.json", "[", r"a\.json:1: not valid JSON"),
        ("a.json", "[]", "there are no class names"),
        ("a.json", '["x", "y", "x"]', "classes 0 and 2 have the same name, 'x'"),
        ("a.json", '{"x": 0, "y": 2}', "expected the indices 0 to 1, but 1 is missing"),
        ("a.json", '{"x": 0, "y": 0}', "entry 2: index 0 occurs twice"),
        ("a.json", '{"x": "first"}', "entry 1: expected the index of a class, got 'first'"),
        ("a.json", '{"0": 7.5}', "entry 1: expected a class name, got 7.5"),
        ("a.csv", "", "there are no class names"),
        ("a.csv", "id,name\n0\n", r"a\.csv:2: expected 2 fields, got 1"),
        ("a.csv", "id,name\n0,\n", r"a\.csv:2: the class with index 0 has no name"),
        ("a.csv", "id,name\nx,y\n", r"a\.csv:2: expected the index of a class, got 'x'"),
        ("a.csv", "a,b,c\n", r"a\.csv:1: expected columns id and name"),
        ("a.txt", "\n", "there are no class names"),
        ("a.txt", "x\nx\n", "classes 0 and 1 have the same name"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        read_class_names(tmp_path / name)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt: no such annotation file"):
        read_class_names(tmp_path / "none.txt")
