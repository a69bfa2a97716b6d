"""How a CNN starts from an image network: inflation, image ResNets by the names of torchvision, refusals."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from tests.models.cnn.test_networks import lively, small
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.checkpoints import load_any_model, load_model, save_model, transfer
from timesformer.checkpoints.formats.cnn import inflate
from timesformer.errors import InputError
from timesformer.models.cnn import BASELINES, CnnConfig, build

BLOCKS = (1, 2, 1, 1)


def image_resnet(width: int = 8, classes: int = 5) -> dict[str, Tensor]:
    """Random weights of a small ResNet with bottlenecks, by torchvision's names."""
    generator, state = torch.Generator().manual_seed(0), dict[str, Tensor]()

    def conv(name: str, out: int, channels: int, size: int) -> None:
        state[f"{name}.weight"] = torch.randn(out, channels, size, size, generator=generator) / (channels**0.5 * size)

    def norm(name: str, channels: int) -> None:
        for kind in ("weight", "bias", "running_mean"):
            state[f"{name}.{kind}"] = 0.3 * torch.randn(channels, generator=generator)
        state[f"{name}.running_var"] = 0.5 + torch.rand(channels, generator=generator)
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    conv("conv1", width, 3, 7)
    norm("bn1", width)
    before = width
    for stage, count in enumerate(BLOCKS, start=1):
        inner = width * 2 ** (stage - 1)
        for block in range(count):
            name = f"layer{stage}.{block}"
            for number, (out, channels, size) in enumerate(
                ((inner, before, 1), (inner, inner, 3), (4 * inner, inner, 1)), start=1
            ):
                conv(f"{name}.conv{number}", out, channels, size)
                norm(f"{name}.bn{number}", out)
            if block == 0:
                conv(f"{name}.downsample.0", 4 * inner, before, 1)
                norm(f"{name}.downsample.1", 4 * inner)
            before = 4 * inner
    state["fc.weight"] = torch.randn(classes, before, generator=generator) / before**0.5
    state["fc.bias"] = torch.randn(classes, generator=generator)
    return state


def run_image_resnet(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """ResNet with the stride in the 3x3, written out on images (b, 3, h, w)."""

    def conv_norm(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        weight = state[f"{conv}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        of = {kind: state[f"{norm}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")}
        return F.batch_norm(x, of["running_mean"], of["running_var"], of["weight"], of["bias"])

    x = F.max_pool2d(conv_norm(x, "conv1", "bn1", 2).relu(), 3, 2, 1)
    for stage, count in enumerate(BLOCKS, start=1):
        for block in range(count):
            name, stride = f"layer{stage}.{block}", 2 if block == 0 and stage > 1 else 1
            inside = conv_norm(x, f"{name}.conv1", f"{name}.bn1").relu()
            inside = conv_norm(inside, f"{name}.conv2", f"{name}.bn2", stride).relu()
            inside = conv_norm(inside, f"{name}.conv3", f"{name}.bn3")
            if block == 0:
                x = conv_norm(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = (inside + x).relu()
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


@pytest.fixture
def resnet(tmp_path: Path) -> Path:
    path = tmp_path / "resnet.safetensors"
    save_file(image_resnet(), path)
    return path


def test_an_inflated_kernel_gives_on_a_still_clip_what_it_gave_on_the_image() -> None:
    weight, image = torch.randn(4, 3, 3, 3), torch.randn(2, 3, 9, 9)
    clip = image.unsqueeze(2).repeat(1, 1, 7, 1, 1)
    found = F.conv3d(clip, inflate(weight, 5), padding=(0, 1, 1))
    assert found.shape[2] == 3
    torch.testing.assert_close(
        found, F.conv2d(image, weight, padding=1).unsqueeze(2).expand_as(found), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(InputError, match="inflate"):
        inflate(torch.zeros(4, 3, 1, 3, 3), 5)


@torch.no_grad()
def test_an_image_resnet_is_c2d_of_one_frame(resnet: Path) -> None:
    loaded, images = load_any_model(resnet, image_size=64), torch.randn(2, 3, 64, 64)
    assert loaded.model.config == CnnConfig("c2d", num_frames=1, image_size=64, num_classes=5, width=8, blocks=BLOCKS)
    assert loaded.report.counts()["copied"] == len(image_resnet())
    torch.testing.assert_close(
        loaded.model(images[:, None]), run_image_resnet(image_resnet(), images), rtol=1e-4, atol=1e-4
    )


def test_i3d_starts_from_an_image_resnet(resnet: Path) -> None:
    model, image = build(small("i3d")), image_resnet()
    report = transfer(model, resnet)
    assert (report.initialised, report.left_out) == ([], [])
    state = model.state_dict()
    torch.testing.assert_close(state["path.stem.conv.weight"].sum(2), image["conv1.weight"])
    times = [state[f"path.stages.{stage}.blocks.0.a.conv.weight"].shape[2] for stage in range(4)]
    assert times == [3, 3, 3, 1]
    assert torch.equal(state["head.weight"], image["fc.weight"])
    assert torch.equal(state["path.stages.0.blocks.0.b.norm.running_var"], image["layer1.0.bn2.running_var"])
    other = build(small("i3d", num_classes=7))
    assert transfer(other, resnet).initialised == ["head.weight", "head.bias"]


def test_slowfasts_slow_pathway_starts_from_an_image_resnet(resnet: Path) -> None:
    torch.manual_seed(0)
    model, image = build(small("slowfast")), image_resnet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = transfer(model, resnet)
    assert {name.split(".")[0] for name in report.initialised} == {"fast", "lateral", "head"}
    assert report.left_out == ["head.bias", "head.weight"]
    name, found = "slow.stages.0.blocks.0.a.conv.weight", model.state_dict()
    own = image["layer1.0.conv1.weight"].shape[1]
    assert torch.equal(found[name][:, :own, 0], image["layer1.0.conv1.weight"])
    assert found[name].shape[1] > own  # what the lateral connection brings in is as it was
    assert torch.equal(found[name][:, own:], before[name][:, own:])


@pytest.mark.parametrize("baseline", BASELINES)
@torch.no_grad()
def test_a_saved_baseline_is_the_same_when_loaded(baseline: str, tmp_path: Path) -> None:
    model, clip = lively(small(baseline)), torch.randn(2, 8, 3, 32, 32)
    folder = save_model(tmp_path / "model", model, labels=list("abcde"))  # type: ignore[arg-type]
    loaded = load_any_model(folder)
    assert loaded.labels == list("abcde")
    assert torch.equal(loaded.model(clip), model(clip))
    assert loaded.model.save_pretrained(tmp_path / "again").is_dir()
    assert torch.equal(load_any_model(tmp_path / "again").model(clip), model(clip))
    with pytest.raises(InputError, match=f"a convolutional baseline \\({baseline}\\)"):
        load_model(folder)


def test_what_cannot_start_a_baseline_says_so(resnet: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="width is 8 there and 16 here"):
        transfer(build(small("i3d", width=16)), resnet)
    with pytest.raises(InputError, match="blocks is"):
        transfer(build(small("i3d", blocks=(1, 1, 1, 1))), resnet)
    sizes = {"num_frames": 2, "image_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2}
    vit = TimeSformer(TimeSformerConfig.from_dict({"attention": "space", **sizes}))
    with pytest.raises(InputError, match="cannot start a transformer"):
        transfer(vit, resnet)
    with pytest.raises(InputError, match="cannot start the baseline i3d"):
        transfer(build(small("i3d")), save_model(tmp_path / "vit", vit))
    state = image_resnet()
    save_file(state | {"layer1.0.se.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"layer1\.0\.se\.weight"):
        load_any_model(tmp_path / "other.safetensors")
    state["layer2.0.conv2.weight"] = torch.zeros(16, 16, 5, 5)
    save_file(state, tmp_path / "wrong.safetensors")
    with pytest.raises(InputError, match=r"path\.stages\.1\.blocks\.0\.b\.conv\.weight has shape"):
        transfer(build(small("i3d")), tmp_path / "wrong.safetensors")
