"""Frozen weights and learning rates by depth: which weights move, by how much, and what is counted."""

from typing import Any

import pytest
import torch
from torch import nn

from tests.training.training_fakes import FakeModel
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.config.cnn import CnnConfig
from timesformer.config.registry import build_model, macs_per_view, stem_macs
from timesformer.errors import InputError
from timesformer.models.cnn import Cnn
from timesformer.training.freezing import frozen_names, rates, rest_frozen, stem_blocks
from timesformer.training.loop import fit
from timesformer.training.recipe import Recipe
from timesformer_experiments.cost.training import macs_per_trained_clip

TINY: dict[str, Any] = {
    "num_frames": 2, "image_size": 16, "patch_size": 8, "num_classes": 3, "embed_dim": 8, "depth": 3, "num_heads": 2,
}  # fmt: skip
STEPS = {"steps": 2, "batch_size": 4, "schedule": "constant", "workers": 0}


class Clips(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(key[1])
        return {"clip": torch.randn(2, 3, 16, 16, generator=generator), "label": key[1] % 3, "index": key[1]}


def moved(model: nn.Module, recipe: Recipe, folder: Any) -> dict[str, float]:
    """How far each parameter moved, as a root mean square."""
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    fit(model, Clips(), recipe, folder, progress=False)
    return {name: float((value - before[name]).pow(2).mean().sqrt()) for name, value in model.named_parameters()}


def made(**fields: Any) -> TimeSformer:
    torch.manual_seed(0)
    return TimeSformer(TimeSformerConfig(**TINY | {"position": "space_time", "time_std": 0.1} | fields))


def test_the_first_blocks_stay_as_they_are(tmp_path: Any) -> None:
    model = made()
    found = moved(model, Recipe(**STEPS, freeze={"blocks": 2}), tmp_path)  # type: ignore[arg-type]
    still = {name for name, distance in found.items() if distance == 0}
    first = ("patch_embed.", *(f"encoders.0.{part}" for part in ("cls_token", "positions.", "blocks.0.", "blocks.1.")))
    assert still == {name for name in found if name.startswith(first)}
    assert all(parameter.requires_grad for parameter in model.parameters())  # as before the training


def test_patterns_of_names(tmp_path: Any) -> None:
    found = moved(made(), Recipe(**STEPS, freeze=("*.qkv.*", "head.bias")), tmp_path)
    assert {name for name, distance in found.items() if distance == 0} == {
        name for name in found if ".qkv." in name or name == "head.bias"
    }


def test_positions_in_time_belong_to_the_block_before_which_they_are_added(tmp_path: Any) -> None:
    found = moved(made(time_from=2), Recipe(**STEPS, freeze=2), tmp_path)
    assert found["encoders.0.positions.time"] > 0
    assert found["encoders.0.positions.space"] == found["encoders.0.blocks.1.mlp.fc1.weight"] == 0


def test_rates_fall_with_depth(tmp_path: Any) -> None:
    """AdamW's first step moves every weight by its learning rate, whatever the gradient."""
    recipe = Recipe(steps=1, batch_size=4, schedule="constant", lr=0.01, weight_decay=0, layer_decay=0.5, workers=0)
    model = made()
    found = moved(model, recipe, tmp_path)
    wanted = {"head.weight": 1.0, "encoders.0.norm.weight": 1.0, "patch_embed.proj.weight": 0.5**4}
    wanted |= {f"encoders.0.blocks.{n}.mlp.fc2.weight": 0.5 ** (3 - n) for n in range(3) if n < 2}
    for name, factor in wanted.items():
        assert found[name] == pytest.approx(0.01 * factor, rel=0.02), name
    assert len(recipe.build_optimiser(model).param_groups) == 2 * 5  # with and without weight decay


def test_rates_of_named_parameters(tmp_path: Any) -> None:
    plain = moved(made(), Recipe(**STEPS), tmp_path / "plain")
    scaled = moved(made(), Recipe(**STEPS, lr_scale={"head.*": 10}), tmp_path / "scaled")  # type: ignore[arg-type]
    assert scaled["head.weight"] > 5 * plain["head.weight"]
    assert scaled["encoders.0.blocks.0.mlp.fc1.weight"] < 2 * plain["encoders.0.blocks.0.mlp.fc1.weight"]


def test_a_second_encoder_is_deeper_than_the_first() -> None:
    model = made(attention="factorised_encoder", position="table", temporal_depth=2)
    layers = model.layers()
    assert sorted(name for layer in layers for name in layer) == sorted(name for name, _ in model.named_parameters())
    assert len(layers) == 3 + 2 + 2
    assert "encoders.1.positions.table" in layers[4]
    assert not any(name.startswith("encoders.1") for name in frozen_names(model, 3))
    assert stem_blocks(layers, frozen_names(model, 3)) == 3


def test_what_is_frozen_is_in_evaluation_mode() -> None:
    model = made(drop_rate=0.5, drop_path_rate=0.5)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen_names(model, 2))
    model.train()
    rest_frozen(model)
    blocks = model.stacks()[0].blocks
    assert [block.training for block in blocks] == [False, False, True]
    assert not any(module.training for module in (*blocks[0].modules(), model.patch_embed, model.embedding_dropout))
    assert model.head.training
    clip = torch.randn(2, 2, 3, 16, 16)
    assert torch.equal(model.stem(clip, 2), model.eval().stem(clip, 2))


def test_frozen_statistics_of_a_convolutional_network_stay(tmp_path: Any) -> None:
    config = CnnConfig("i3d", num_frames=2, image_size=16, num_classes=3, width=4, blocks=(1, 1, 1, 1))
    model = build_model(config)
    before = {name: value.clone() for name, value in model.named_buffers()}
    found = moved(model, Recipe(**STEPS, freeze=2), tmp_path)
    frozen = ("path.stem.", "path.stages.0.", "path.stages.1.")
    assert {name for name, distance in found.items() if distance == 0} == {n for n in found if n.startswith(frozen)}
    after = dict(model.named_buffers())
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith(frozen)}
    slow = build_model(CnnConfig("slowfast", num_frames=4, image_size=16, num_classes=3, width=8, blocks=(1, 2, 1, 1)))
    assert isinstance(slow, Cnn)
    layers = slow.layers()
    assert [len({name.split(".")[0] for name in layer}) for layer in layers] == [2, 3, 3, 2, 3, 3, 1]
    assert sum(len(layer) for layer in layers) == len(list(slow.parameters()))


@pytest.mark.parametrize(
    ("freeze", "stem"), [(None, None), (0, 0), (2, 2), (("*.blocks.0.*",), None), (("patch_embed.*",), None)]
)
def test_the_backward_pass_of_frozen_blocks_is_not_counted(freeze: Any, stem: int | None) -> None:
    config = TimeSformerConfig(**TINY)
    whole = macs_per_view(config)
    first = 0 if stem is None else stem_macs(config, stem)
    assert macs_per_trained_clip(config, Recipe(steps=1, freeze=freeze)) == 3 * whole - 2 * first
    if stem:
        cached = Recipe(steps=1, freeze=freeze, cache_stem=True)
        assert macs_per_trained_clip(config, cached) == 3 * (whole - first)
        part = TimeSformerConfig(**TINY | {"depth": stem})
        assert first == macs_per_view(part) - part.head_width * 3


def test_the_stem_of_a_convolutional_network_is_counted() -> None:
    config = CnnConfig("c2d", num_frames=2, image_size=32, num_classes=3, width=4, blocks=(1, 1, 1, 1))
    counts = [stem_macs(config, blocks) for blocks in range(5)]
    assert counts == sorted(set(counts))
    assert counts[-1] == macs_per_view(config) - build_model(config).head.weight.numel()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"freeze": {"blocks": -1}}, "freeze: expected {blocks: n}"),
        ({"freeze": []}, "freeze: expected {blocks: n}"),
        ({"freeze": "head"}, "freeze: expected {blocks: n}"),
        ({"layer_decay": 0}, "layer_decay"),
        ({"lr_scale": {"head.*": 0}}, "lr_scale"),
        ({"cache_stem": True}, "cache_stem: expected freeze"),
        ({"cache_stem": True, "freeze": 1, "mixup_alpha": 0.2}, "cache_stem: expected mixup_alpha 0"),
    ],
)
def test_impossible_recipes(fields: Any, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("{", r"\{").replace("}", r"\}")):
        Recipe(steps=1, **fields)


def test_what_the_model_does_not_have() -> None:
    model = made()
    with pytest.raises(InputError, match=r"freeze.blocks: expected at most 3, the model's blocks, got 4"):
        frozen_names(model, 4)
    with pytest.raises(InputError, match=r"freeze: no parameter is called 'backbone.\*'"):
        frozen_names(model, ("backbone.*",))
    with pytest.raises(InputError, match=r"lr_scale: no parameter is called"):
        rates(model, 1.0, [("backbone.*", 2.0)])
    with pytest.raises(InputError, match="layer_decay: FakeModel does not tell the depth"):
        rates(FakeModel(), 0.9, [])


def test_positions_in_time_before_a_later_block() -> None:
    """Added before block 1 to tokens that the first block made alike in all frames."""
    model = made(attention="joint", schedule={"0-1": "space"}, time_from=2).eval()
    frame = torch.randn(1, 1, 3, 16, 16)
    clip = frame.expand(1, 2, 3, 16, 16)
    tokens = model.stem(clip, 2)
    torch.testing.assert_close(tokens[:, 0], tokens[:, 1])
    with torch.no_grad():
        here = model(torch.cat([frame, frame * 2], 1))
        turned = model(torch.cat([frame * 2, frame], 1))
    assert not torch.allclose(here, turned)
    for fields, said in (({"position": "table"}, "space_time"), ({"time_from": 3}, "from 0 to 2")):
        with pytest.raises(InputError, match=f"time_from: expected .*{said}"):
            made(**{"time_from": 1} | fields)
