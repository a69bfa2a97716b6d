"""Files and names to tensors: what is read, what is refused, what a message says."""

import json
import os
import pickle
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoints.fakes import fair_state, write_fair
from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.checkpoints import load_model, locate, save_model, weight_files
from timesformer.checkpoints.raw import read_raw

NAME = "facebook/timesformer-base-finetuned-k400"


class Creates:
    """Unpickled, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("name", ["x.pyth", "pytorch_model.bin", "x.pt", "x.ckpt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused(name: str, zipped: bool, tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / name
    torch.save(
        {"model_state": fair_state(), "cfg": Creates(victim)}, path, _use_new_zipfile_serialization=zipped
    )  # fmt: skip
    with pytest.raises(InputError, match=r"refused: .* holds \w+\.system.* Nothing was run") as error:
        load_model(path)
    assert str(path) in str(error.value)
    assert not victim.exists()
    torch.load(path, weights_only=False)  # the file does what it says
    assert victim.exists()


def test_a_bare_malicious_pickle_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (tmp_path / "x.pth").write_bytes(pickle.dumps(Creates(victim), protocol=2))
    with pytest.raises(InputError, match=r"x\.pth"):
        load_model(tmp_path / "x.pth")
    assert not victim.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
@pytest.mark.parametrize("name", ["x.pyth", "x.safetensors"])
def test_damaged_files_are_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: not a readable"):
        load_model(tmp_path / name)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = write_fair(tmp_path / "x.pyth", fair_state(), None)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"x\.pyth: not a readable torch file"):
        load_model(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [({"weights": {"a": torch.zeros(1)}}, "weights"), ({}, r"\[\]"), ([1, 2], "list"), ({"model": {"a": 1}}, "'a'")],
)
def test_a_torch_file_with_something_else(content: object, found: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"expected tensors by name, or such a table under .*; found .*" + found):
        load_model(tmp_path / "x.pt")


def test_nothing_matches(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"conv1.weight": torch.zeros(1), "fc.bias": torch.zeros(2)}, path)
    with pytest.raises(InputError, match=r"unknown format: no config.json; 2 tensors: conv1.weight, fc.bias.*FAIR"):
        load_model(path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    path.rename(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"a config.json with model_type 'bert'"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"a config.json with neither library nor model_type"):
        load_model(tmp_path / "model.safetensors")


def test_an_index_of_shards_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "timesformer"}')
    index = tmp_path / "model.safetensors.index.json"
    for table, message in (
        ({"a": "1.safetensors"}, r"1\.safetensors: no such file; model\.safetensors\.index\.json lists 1 files"),
        ({"a": "../1.safetensors"}, r"weight_map names '\.\./1\.safetensors'; expected a file beside the index"),
        ({}, "expected a table weight_map"),
        ({"a": 1}, "expected a table weight_map"),
        (None, "expected a table weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": table}))
        with pytest.raises(InputError, match=message):
            load_model(tmp_path)
    for number in (1, 2):
        save_file({"a": torch.zeros(1)}, tmp_path / f"{number}.safetensors")
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
    with pytest.raises(InputError, match=r"2\.safetensors: a is in another file"):
        load_model(tmp_path)
    index.write_bytes(b"\xff")
    with pytest.raises(InputError, match="not valid JSON"):
        load_model(tmp_path)


def test_a_folder_with_one_checkpoint_file(tmp_path: Path) -> None:
    path = write_fair(tmp_path / "x.pyth", fair_state(), None)
    assert weight_files(tmp_path) == [path]
    assert load_model(tmp_path).model.config.attention == "divided"
    write_fair(tmp_path / "y.pyth", fair_state(), None)
    with pytest.raises(InputError, match=r"no model here: .*found \['x.pyth', 'y.pyth'\]"):
        load_model(tmp_path)


def test_unknown_files_and_names(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(InputError, match=r"x\.txt: unknown kind of file; expected \.safetensors"):
        load_model(tmp_path / "x.txt")
    with pytest.raises(InputError, match="no such file or folder, and no name of a repository"):
        load_model(tmp_path / "missing.pyth")
    with pytest.raises(InputError, match="no such file or folder, and no name of a repository"):
        load_model("missing.pyth")


def test_what_the_container_holds_beside_the_tensors(tmp_path: Path) -> None:
    raw = read_raw(write_fair(tmp_path / "x.pyth", fair_state(), "divided_space_time"))
    assert raw.metadata.keys() == {"epoch", "cfg", "container"}
    assert raw.metadata["container"] == "model_state"
    assert all(name.startswith("model.") for name in raw.tensors)


class Hub:
    """Stands for `huggingface_hub`: a folder of repositories, or no network."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.asked: list[tuple[str, ...]] = []

    def snapshot_download(self, name: str, allow_patterns: list[str]) -> str:
        self.asked.append((name, *allow_patterns))
        if self.folder is None:
            raise huggingface_hub.errors.LocalEntryNotFoundError("cannot reach the hub\nand more")
        return str(self.folder / name)


def test_a_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    config = TimeSformerConfig(image_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=2, num_classes=2)
    folder = save_model(tmp_path / "someone" / "model", TimeSformer(config))
    assert locate("someone/model") == folder
    assert load_model("someone/model").model.config == config
    assert hub.asked[0] == ("someone/model", "*.json", "*.safetensors", "scheme*.py")
    bare = tmp_path / "someone" / "bin"
    bare.mkdir()
    torch.save({}, bare / "pytorch_model.bin")
    hub.asked.clear()
    assert locate("someone/bin") == bare
    assert [patterns[2] for patterns in hub.asked] == ["*.safetensors", "*.bin"]
    (tmp_path / "someone" / "empty").mkdir()
    with pytest.raises(InputError, match="no weights there"):
        load_model("someone/empty")


def test_an_unreachable_hub_says_what_to_download_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(None).snapshot_download)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        TimeSformer.from_pretrained(NAME)
    text = str(error.value)
    assert f"https://huggingface.co/{NAME}/tree/main" in text
    assert f"into the folder {NAME} below the current one" in text
    assert "(cannot reach the hub)" in text
    for file in ("config.json", "preprocessor_config.json", "model.safetensors", "pytorch_model.bin"):
        assert file in text
    config = TimeSformerConfig(image_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=2, num_classes=2)
    save_model(tmp_path / NAME, TimeSformer(config))  # what the message says helps
    assert TimeSformer.from_pretrained(NAME).config == config
