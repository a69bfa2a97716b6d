"""scenic's flax checkpoints: written here with their nesting, compared with their model written out in numpy."""

from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch

from tests.checkpoints.formats.flax_files import Tree, chunked, factorised, logits, pack, train_state, unfactorised
from timesformer import InputError
from timesformer.checkpoints import load_model, read_source
from timesformer.checkpoints.formats.flax import is_flax, read_flax
from timesformer.data import Preprocessing


def write(folder: Path, tree: Tree) -> Path:
    path = folder / "checkpoint_30"
    path.write_bytes(pack(tree))
    return path


def clip_of(frames: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(frames, 16, 16, 3)).astype(np.float32)


def ours(model: torch.nn.Module, clip: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(clip).movedim(-1, 1)[None])[0].numpy()


@pytest.mark.parametrize(("params", "frames"), [(unfactorised(), 32), (factorised(), 6)], ids=["unfactorised", "fe"])
def test_logits_are_those_of_the_model_written_out(params: Tree, frames: int, tmp_path: Path) -> None:
    loaded = load_model(write(tmp_path, train_state(params)))
    config, clip = loaded.model.config, clip_of(frames)
    assert config.attention == ("joint" if "cls" in params else "factorised_encoder")
    assert (config.num_frames, config.image_size, config.patch_size, config.tubelet_size) == (frames, 16, 8, 2)
    assert (config.depth, config.num_heads, config.embed_dim, config.num_classes) == (2, 2, 16, 5)
    np.testing.assert_allclose(ours(loaded.model, clip), logits(params, clip), rtol=1e-4, atol=1e-4)
    assert "optimizer.state.param_states.cls.momentum" in loaded.report.left_out
    record = Preprocessing.from_dict(loaded.preprocessing)
    assert (record.value_range, record.mean, record.std) == ((-1.0, 1.0), (0.0,) * 3, (1.0,) * 3)
    assert (record.num_frames, record.sampling, record.frame_rate) == (frames, "dense", 2)
    assert not loaded.report.initialised
    if "cls" not in params:
        assert config.temporal_depth == 1


@pytest.mark.parametrize("root", ["params", "optimizer.target.params", "target", ""])
def test_every_nesting(root: str, tmp_path: Path) -> None:
    params, tree = factorised(), {}
    inner = tree
    for key in root.split(".") if root else []:
        inner = inner.setdefault(key, {})
    inner |= params
    if root == "params":
        tree["opt_state"] = {"0": {"trace": params}, "1": {"count": np.int32(3)}}
    loaded = load_model(write(tmp_path, tree))
    np.testing.assert_allclose(ours(loaded.model, clip_of(6)), logits(params, clip_of(6)), rtol=1e-4, atol=1e-4)


def test_epic_kitchens_has_a_verb_and_a_noun_head(tmp_path: Path) -> None:
    """scenic's single projection has 300 nouns, then 97 verbs; here verbs come first."""
    params = factorised(classes=397)
    loaded = load_model(write(tmp_path, train_state(params)))
    expected = logits(params, clip_of(6))
    assert loaded.model.config.num_classes == (97, 300)
    found = ours(loaded.model, clip_of(6))
    np.testing.assert_allclose(found, np.concatenate([expected[300:], expected[:300]]), rtol=1e-4, atol=1e-4)
    assert Preprocessing.from_dict(loaded.preprocessing).frame_rate == 1
    assert any("Epic-Kitchens" in note for note in loaded.report.notes)


def test_frames_of_the_unfactorised_model_are_the_released_ones(tmp_path: Path) -> None:
    """Its table does not tell t from h and w: 32 frames where they fit, else images of 224 pixels."""
    path = write(tmp_path, train_state(unfactorised()))
    source = read_source(path)
    assert source.config.grid == (16, 2, 2)
    assert source.assumed == ("num_frames",)
    assert any("num_frames" in note for note in source.notes)
    params = unfactorised()
    params["Transformer"]["posembed_input"]["pos_embedding"] = np.ones((1, 3 * 28 * 28 + 1, 16), np.float32)
    assert read_source(write(tmp_path, {"params": params})).config.grid == (3, 28, 28)
    with pytest.raises(InputError, match="60 rows for patches"):
        read_source(write(tmp_path, train_state(unfactorised(frames=30))))


def test_a_body_without_its_classifier(tmp_path: Path) -> None:
    params = factorised()
    del params["output_projection"]
    loaded = load_model(write(tmp_path, {"params": params}), num_classes=3)
    assert loaded.model.config.num_classes == 3
    assert sorted(loaded.report.initialised) == ["head.bias", "head.weight"]


def test_chunked_arrays_half_precision_and_folders(tmp_path: Path) -> None:
    params = factorised()
    kernel = params["embedding"]["kernel"]
    params["embedding"]["kernel"] = chunked(kernel, 1000)
    raw = read_flax(write(tmp_path, train_state(params)))
    assert np.array_equal(raw.tensors["optimizer.target.embedding.kernel"].numpy(), kernel)
    assert raw.metadata["global_step"] == 7
    assert is_flax(tmp_path)
    assert read_flax(tmp_path).tensors.keys() == raw.tensors.keys()

    values = torch.randn(2, 3).bfloat16()
    body = msgpack.packb(((2, 3), "bfloat16", values.view(torch.uint8).numpy().tobytes()))
    tree = {"params": {"a": msgpack.ExtType(1, body), "empty": np.zeros((0, 4), np.float32), "complex": 1}}
    (tmp_path / "checkpoint_30").write_bytes(msgpack.packb(tree, default=lambda x: msgpack.ExtType(1, _array(x))))
    found = read_flax(tmp_path).tensors
    assert torch.equal(found["params.a"], values)
    assert found["params.empty"].shape == (0, 4)


def _array(x: np.ndarray) -> bytes:
    return msgpack.packb((x.shape, x.dtype.name, x.tobytes()))


def test_other_files_are_no_flax(tmp_path: Path) -> None:
    for content in (b"", b"\x80\x02}q\x00.", b"PK\x03\x04", b"\x81\x01\x02", b"\x90", b"\x84" + b"\x00" * 30, b"{}"):
        (tmp_path / "checkpoint_1").write_bytes(content)
        assert not is_flax(tmp_path / "checkpoint_1"), content
    (tmp_path / "checkpoint_2").write_bytes(b"")
    assert not is_flax(tmp_path)
    assert not is_flax(tmp_path / "nothing")
    with pytest.raises(InputError, match="one file named checkpoint"):
        read_flax(tmp_path)


def ext(code: int, *values: Any) -> bytes:
    return msgpack.packb({"params": msgpack.ExtType(code, msgpack.packb(values))})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pack(train_state(factorised()))[:900], "not a readable flax"),
        (msgpack.packb([1, 2]), "expected a table"),
        (msgpack.packb({"step": 3}), "no arrays"),
        (ext(1, (2, 3), "float32", b"1234"), r"shape \(2, 3\)"),
        (ext(1, (1,), "object", b"1234"), "'object'"),
        (ext(1, (1,)), "not a readable flax"),
        (ext(42, 1), "extension type 42"),
        (pack({"params": {"__msgpack_chunked_array__": True, "shape": {"0": 3}}}), "damaged array table"),
    ],
)
def test_damaged_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_flax(tmp_path / "checkpoint")


def test_plain_values_are_metadata(tmp_path: Path) -> None:
    tree = {"params": {"a": np.ones(2)}, "i": msgpack.ExtType(2, msgpack.packb((1.0, 2.0)))}
    assert read_flax(write(tmp_path, tree)).metadata == {"i": 1 + 2j}


def without(tree: Tree, *path: str) -> Tree:
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return tree


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (without(factorised(), "cls_TemporalTransformer"), "cls_TemporalTransformer missing"),
        (without(factorised(), "TemporalTransformer", "encoder_norm", "bias"), "encoder_norm.bias missing"),
        (
            without(unfactorised(), "Transformer", "encoderblock_1", "MultiHeadDotProductAttention_0", "key", "bias"),
            "key.bias missing",
        ),
        (without(unfactorised(), "cls"), "params.cls missing"),
        (without(unfactorised(), "Transformer", "encoderblock_0"), "encoderblock_1"),
        (unfactorised() | {"pre_logits": {"kernel": np.ones((2, 2))}}, "pre_logits.kernel: no known use"),
        (unfactorised() | {"embedding": {"kernel": np.ones((2, 8, 4, 3, 16)), "bias": np.ones(16)}}, "square patches"),
        (unfactorised() | {"embedding": {"kernel": np.ones((2, 8, 8, 3, 9)), "bias": np.ones(9)}}, "embedding.kernel"),
        (factorised(frames=6) | {"cls_SpatialTransformer": np.ones((1, 1, 9))}, "cls_SpatialTransformer"),
    ],
)
def test_weights_that_do_not_fit_are_named(params: Tree, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_model(write(tmp_path, {"params": params}))


def test_misshapen_blocks_are_named(tmp_path: Path) -> None:
    params = unfactorised()
    block = params["Transformer"]["encoderblock_1"]
    block["MultiHeadDotProductAttention_0"]["key"]["kernel"] = np.ones((9, 2, 8), np.float32)
    with pytest.raises(InputError, match=r"encoderblock_1.*query.kernel"):
        load_model(write(tmp_path, {"params": params}))
    first = params["Transformer"]["encoderblock_0"]["MultiHeadDotProductAttention_0"]
    first["query"]["kernel"] = np.ones((16, 16), np.float32)
    with pytest.raises(InputError, match="expected 3 axes"):
        load_model(write(tmp_path, {"params": params}))
    params = unfactorised()
    params["output_projection"]["kernel"] = np.ones(5, np.float32)
    with pytest.raises(InputError, match="expected 2 axes"):
        load_model(write(tmp_path, {"params": params}))
    params = factorised()
    for part in ("SpatialTransformer", "TemporalTransformer"):
        params[part] = {name: value for name, value in params[part].items() if "block" not in name}
    with pytest.raises(InputError, match="encoderblock_0 missing"):
        load_model(write(tmp_path, {"params": params}))
