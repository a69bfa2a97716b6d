"""The Kinetics csv, good and bad."""

from pathlib import Path

import pytest

from timesformer import InputError
from timesformer.data import Sample, read_kinetics_csv


def write(folder: Path, text: str) -> Path:
    path = folder / "train.csv"
    path.write_text(text)
    return path


def test_separators_spaces_and_roots(tmp_path: Path) -> None:
    path = write(tmp_path, "a.mp4 3\nsome folder/b c, d.mp4 0\nc.mp4,12\n\n/abs/d.mp4, 1\r\n")
    samples = read_kinetics_csv(path, num_classes=13)
    assert [sample.label for sample in samples] == [3, 0, 12, 1]
    assert [sample.name for sample in samples] == ["a.mp4", "some folder/b c, d.mp4", "c.mp4", "/abs/d.mp4"]
    assert samples[1].path == tmp_path / "some folder/b c, d.mp4"
    assert samples[3].path == Path("/abs/d.mp4")
    assert read_kinetics_csv(path, root="/videos")[0].path == Path("/videos/a.mp4")
    assert Sample(Path("x.mp4"), 1).name == "x.mp4"


@pytest.mark.parametrize("text", ["", "\n  \n"])
def test_empty(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"train\.csv: the annotation file is empty"):
        read_kinetics_csv(write(tmp_path, text))


@pytest.mark.parametrize("line", ["b.mp4", "b.mp4 cat", "7", "b.mp4 1.5", " 3"])
def test_malformed_line_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(InputError, match=r"train\.csv:2: expected `path label`"):
        read_kinetics_csv(write(tmp_path, f"a.mp4 0\n{line}\n"))


@pytest.mark.parametrize(("label", "expected"), [(8, "0 to 7"), (-1, "0 to 7")])
def test_label_out_of_range(tmp_path: Path, label: int, expected: str) -> None:
    with pytest.raises(InputError, match=rf"train\.csv:3: label {label} is out of range, expected {expected}"):
        read_kinetics_csv(write(tmp_path, f"a.mp4 0\nb.mp4 7\nc.mp4 {label}\n"), num_classes=8)


def test_negative_label_without_a_number_of_classes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 or more"):
        read_kinetics_csv(write(tmp_path, "a.mp4 -1\n"))


def test_missing_and_binary(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such annotation file"):
        read_kinetics_csv(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="not a text file"):
        read_kinetics_csv(tmp_path / "binary.csv")
