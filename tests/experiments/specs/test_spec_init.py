"""What a run takes over from its checkpoint, and the augmentations that its data name."""

from pathlib import Path
from typing import Any

import pytest
import torch

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.checkpoints import save_model, settings_of
from timesformer.data import Augment, RandAugment
from timesformer.errors import InputError
from timesformer_experiments.run.inputs import datasets
from timesformer_experiments.specs.run import RunSpec, load_specs

SIZES = {"num_frames": 2, "image_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
RECORD = {"num_frames": 2, "short_side": 20, "crop": 16, "mean": [0.5, 0.5, 0.5], "colour_order": "BGR"}
DATA = {"probe": "appearance", "num_train": 8, "num_test": 8}
RECIPE = {"steps": 1, "batch_size": 4}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = TimeSformer(TimeSformerConfig(attention="joint", num_classes=3, activation="relu", **SIZES))
    return save_model(tmp_path / "model", model, preprocessing=RECORD, labels=["a", "b", "c"])


def spec(**fields: Any) -> RunSpec:
    return RunSpec.parse({"name": "x", "data": DATA, "recipe": RECIPE} | fields)


def test_the_checkpoints_model_and_preprocessing(checkpoint: Path) -> None:
    found = spec(init_from=str(checkpoint))
    assert (found.model.attention, found.model.activation, found.model.embed_dim) == ("joint", "relu", 16)
    assert found.model.num_classes == 8
    record = found.preprocessing
    assert (record.short_side, record.crop, record.colour_order, record.mean) == (20, 16, "BGR", (0.5, 0.5, 0.5))


def test_what_is_stated_comes_first(checkpoint: Path) -> None:
    data = DATA | {"preprocessing": {"colour_order": "RGB"}}
    found = spec(init_from=str(checkpoint), data=data, model={"drop_path_rate": 0.3, "image_size": 32, "num_frames": 4})
    assert (found.model.drop_path_rate, found.model.attention) == (0.3, "joint")
    record = found.preprocessing
    assert (record.colour_order, record.mean) == ("RGB", (0.5, 0.5, 0.5))
    assert (record.crop, record.short_side, record.num_frames) == (32, 40, 4)


def test_switches_of_the_checkpoint_are_taken_over(tmp_path: Path) -> None:
    """And fields that only another position reads go with it."""
    config = TimeSformerConfig(
        attention="joint", class_token=False, position="rope", rope_pairing="vjepa2", qkv_bias="qv", num_classes=3,
        **SIZES | {"embed_dim": 24},
    )  # fmt: skip
    folder = str(save_model(tmp_path / "model", TimeSformer(config)))
    found = spec(init_from=folder)
    assert found.model.changed_switches() == config.changed_switches()
    assert spec(init_from=folder, model={"position": "space_time"}).model.rope_pairing == "half"
    assert spec(model=found.model.to_dict()).model == found.model


def test_a_model_that_names_its_scheme_is_described_anew(checkpoint: Path) -> None:
    model = {"attention": "joint", **SIZES}
    found = spec(init_from=str(checkpoint), model=model)
    assert found.model.activation == "gelu"
    assert found.preprocessing.colour_order == "RGB"


def test_another_runs_name_is_no_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "runs.yaml"
    file.write_text(
        f"defaults: {{data: {DATA}, recipe: {RECIPE}, model: {SIZES}}}\n"
        "runs: [{name: first}, {name: second, init_from: first, model: {num_frames: 4}}]\n"
    )
    first, second = load_specs(file)
    assert second.init_from == first
    assert second.model.attention == "divided"


def test_a_scheme_of_ones_own_is_known_before_its_checkpoint_is_read(checkpoint: Path, tmp_path: Path) -> None:
    scheme = tmp_path / "columns.py"
    scheme.write_text(
        "from timesformer.attention import ALL, EACH, Encoder, Partition, Scheme, Step\n"
        "STEP = Step('joint', (Partition(t=ALL, h=ALL, w=EACH),), cls='global')\n"
        "SCHEMES = [Scheme('columns', (Encoder(block=((STEP,),)),))]\n"
    )
    config = checkpoint / "config.json"
    config.write_text(config.read_text().replace('"joint"', '"columns"'))
    with pytest.raises(InputError, match="columns"):
        spec(init_from=str(checkpoint))
    assert spec(init_from=str(checkpoint), scheme_file=str(scheme)).model.attention == "columns"


def test_bad_checkpoints(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.yaml: .*gone: no such file or folder"):
        RunSpec.parse({"name": "x", "data": DATA, "recipe": RECIPE, "init_from": "/gone"}, "x.yaml")
    with pytest.raises(InputError, match="unknown option 'colour'"):
        spec(init_from=str(checkpoint), model={"colour": 1})
    (checkpoint / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        spec(init_from=str(checkpoint))


def test_settings_are_those_of_the_loaded_model(checkpoint: Path) -> None:
    config, record = settings_of(checkpoint, num_frames=4)
    assert (config.attention, config.num_frames, config.num_classes) == ("joint", 4, 3)
    assert record == RECORD | {"num_frames": 4}


def test_augmentations_reach_the_training_set(tmp_path: Path) -> None:
    data = DATA | {"randaugment": {"ops": 1, "magnitude": 7}, "colour_jitter": 0.5}
    train, test, _ = datasets(spec(data=data, model=SIZES), tmp_path)
    assert train.augment == Augment(RandAugment(1, 7), 0.5)
    assert test.augment is None


def test_augmentations_define_a_run_only_where_they_are_on() -> None:
    plain = spec(model=SIZES)
    assert not {"randaugment", "colour_jitter"} & set(plain.definition()["data"])
    assert spec(model=SIZES, data=DATA | {"randaugment": None, "colour_jitter": 0}).hash() == plain.hash()
    hashes = {plain.hash()}
    for extra in ({"colour_jitter": 0.5}, {"randaugment": {}}, {"randaugment": {"magnitude": 15}}):
        hashes.add(spec(model=SIZES, data=DATA | extra).hash())
    hashes.add(spec(model=SIZES, recipe=RECIPE | {"mixup_alpha": 0.1}).hash())
    assert len(hashes) == 5
    given = spec(model=SIZES, data=DATA | {"randaugment": RandAugment(2, 15)})
    assert given.definition()["data"]["randaugment"] == {"ops": 2, "magnitude": 15}


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"randaugment": {"strength": 3}}, "data.randaugment: unknown field 'strength'"),
        ({"randaugment": 9}, "data.randaugment: expected ops and magnitude, got 9"),
        ({"randaugment": {"magnitude": 99}}, "randaugment.magnitude: expected a number from 0 to 30"),
        ({"colour_jitter": 2}, "colour_jitter: expected a probability"),
    ],
)
def test_bad_augmentations(extra: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        spec(model=SIZES, data=DATA | extra)
