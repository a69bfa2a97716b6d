"""RandAugment and colour jitter: each operation against its definition, one draw a clip, keyed draws."""

import numpy as np
import pytest
import torch

from timesformer.data import Augment, FrameCache, Preprocessing, RandAugment, VideoDataset, read_kinetics_csv
from timesformer.data.augment import GREY, OPERATIONS
from timesformer.data.probes import ProbeInfo
from timesformer.data.transforms import normalise, pixels_of
from timesformer.errors import InputError


def noise(frames: int = 3, height: int = 20, width: int = 30, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, (frames, height, width, 3), dtype=np.uint8)


def still(frames: int = 3) -> np.ndarray:
    return np.repeat(noise(1), frames, axis=0)


def test_the_fourteen_operations_of_the_paper() -> None:
    assert len(OPERATIONS) == 14


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("strength", [-3.0, -1.0, 0.5, 3.0])
def test_every_operation_keeps_shape_and_input(name: str, strength: float) -> None:
    frames = noise(low=20, high=200)
    before = frames.copy()
    after = OPERATIONS[name](frames, strength)
    assert after.shape == frames.shape
    assert after.dtype == np.uint8
    assert (frames == before).all()
    assert (name == "identity") == (after == before).all()


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_frame_of_a_clip_is_changed_alike(name: str) -> None:
    after = OPERATIONS[name](still(), 1.0)
    assert (after == after[:1]).all()


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"identity", "auto_contrast", "equalise"}))
def test_strength_zero_changes_nothing(name: str) -> None:
    assert np.abs(OPERATIONS[name](noise(), 0.0).astype(int) - noise()).max() <= 1


@pytest.mark.parametrize(
    ("name", "strength", "expected"),
    [
        ("solarise", 0.5, lambda x: np.where(x < 128, x, 255 - x)),
        ("solarise", -1.0, lambda x: 255 - x),
        ("posterise", 1.0, lambda x: x & 0b11110000),
        ("posterise", 3.0, lambda x: x & 0b10000000),
        ("brightness", -0.5, lambda x: (x * 0.55).astype(np.uint8)),
        ("brightness", -3.0, lambda x: (x * 0.1).astype(np.uint8)),
        ("brightness", 1.0, lambda x: np.minimum(x * 1.9, 255).astype(np.uint8)),
    ],
)
def test_pixel_values(name, strength, expected) -> None:
    found = OPERATIONS[name](noise(), strength).astype(int)
    assert np.abs(found - expected(noise()).astype(int)).max() <= 1


def test_translation() -> None:
    frames = noise()
    right = OPERATIONS["translate_x"](frames, 2 / 3)  # 0.3 of 30 pixels
    assert (right[:, :, :21] == frames[:, :, 9:]).all()
    assert (right[:, :, 22:] == GREY).all()
    down = OPERATIONS["translate_y"](frames, -1.0)  # 0.45 of 20 pixels
    assert (down[:, 9:] == frames[:, :11]).all()
    assert (down[:, :9] == GREY).all()


def test_shear_and_rotation() -> None:
    frames = np.zeros((1, 21, 21, 3), np.uint8)
    frames[:, 10] = 255
    turned = OPERATIONS["rotate"](frames, 3.0)  # 90 degrees
    assert (turned[0, :, 10] == 255).all()
    assert (turned[0, 10, :9] == 0).all()
    sheared = OPERATIONS["shear_y"](frames, 1.0)  # the row rises by 0.3 of a pixel a column
    rows = sheared[0, :, :, 0].astype(int)
    assert rows[:, 20].argmax() == pytest.approx(10 - 0.3 * 20, abs=1)
    assert (OPERATIONS["shear_x"](frames.transpose(0, 2, 1, 3), 1.0).transpose(0, 2, 1, 3) == sheared).all()


def test_statistics_are_the_clips() -> None:
    """A dark and a bright frame together span the whole range: nothing is stretched."""
    frames = np.concatenate([noise(1, low=0, high=50), noise(1, low=200, high=256)])
    frames[0, 0, 0], frames[1, 0, 0] = 0, 255
    assert (OPERATIONS["auto_contrast"](frames, 0.0) == frames).all()
    dark = OPERATIONS["auto_contrast"](frames[:1], 0.0)
    assert dark.max() == 255
    grey = noise(2, high=100)
    grey[1] += 100
    flat = OPERATIONS["contrast"](grey, -1.0)  # a tenth of the contrast about the mean of both frames
    assert flat[0].mean() == pytest.approx(100 - 5, abs=2)
    assert flat[1].mean() == pytest.approx(100 + 5, abs=2)


def test_colour_and_sharpness() -> None:
    frames = noise()
    pale = OPERATIONS["colour"](frames, -1.0)
    assert pale.std(-1).mean() == pytest.approx(0.1 * frames.std(-1).mean(), rel=0.1)
    assert OPERATIONS["sharpness"](frames, 1.0).std() > frames.std() > OPERATIONS["sharpness"](frames, -1.0).std()
    assert OPERATIONS["equalise"](noise(high=100), 0.0).max() == 255


def test_randaugment_draws_from_all_operations() -> None:
    """150 draws of one operation: every result is that operation's, with either sign."""
    frames = noise(2, low=20, high=200)
    known = {OPERATIONS[name](frames, sign * 1.5).tobytes(): (name, sign) for name in OPERATIONS for sign in (-1, 1)}
    seen = [known[RandAugment(1, 15)(frames, np.random.default_rng(seed)).tobytes()] for seed in range(150)]
    assert {name for name, _ in seen} == set(OPERATIONS)
    assert {sign for name, sign in seen if name == "rotate"} == {-1, 1}
    two = {RandAugment(2, 15)(frames, np.random.default_rng(seed)).tobytes() for seed in range(20)}
    assert not two <= set(known)


def test_colour_jitter() -> None:
    frames = np.repeat(noise(1, low=60, high=200), 2, axis=0)
    augment = Augment(colour_jitter=0.5)
    results = [augment(frames, np.random.default_rng(seed)) for seed in range(60)]
    changed = [result for result in results if (result != frames).any()]
    assert 18 <= len(changed) <= 42
    assert all((result[0] == result[1]).all() for result in changed)
    assert all(abs(float(result.mean()) - frames.mean()) <= 32 + 3 for result in changed)
    red = np.zeros((1, 4, 4, 3), np.uint8)
    red[..., 0], red[..., 1:] = 200, 60
    hues = [Augment(colour_jitter=1)(red, np.random.default_rng(seed))[0, 0, 0].tolist() for seed in range(30)]
    assert len({tuple(np.argsort(hue)) for hue in hues}) > 1
    assert all(max(hue) == hue[0] or hue[0] > min(hue) for hue in hues)  # a fifth of the circle: never cyan


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: RandAugment(ops=0), "randaugment.ops: expected an integer of at least 1, got 0"),
        (lambda: RandAugment(ops=True), "randaugment.ops"),
        (lambda: RandAugment(magnitude=31), "randaugment.magnitude: expected a number from 0 to 30, got 31"),
        (lambda: RandAugment(magnitude="9"), "randaugment.magnitude"),
        (lambda: Augment(colour_jitter=1.5), "colour_jitter: expected a probability from 0 to 1, got 1.5"),
    ],
)
def test_impossible_values(build, said: str) -> None:
    with pytest.raises(InputError, match=said):
        build()


def test_nothing_asked_for() -> None:
    assert not Augment()
    assert Augment(RandAugment())
    assert Augment(colour_jitter=0.1)
    frames = noise()
    assert Augment()(frames, np.random.default_rng(0)) is frames
    assert Augment(RandAugment(2, 15), 0.8).to_dict() == {
        "randaugment": {"ops": 2, "magnitude": 15},
        "colour_jitter": 0.8,
    }


@pytest.mark.parametrize("colour_order", ["RGB", "BGR"])
def test_pixels_of_normalised_clips(colour_order: str) -> None:
    record = Preprocessing(colour_order=colour_order, value_range=(-1, 1), mean=(0.1, 0.2, 0.3))
    pixels = torch.from_numpy(noise().transpose(0, 3, 1, 2).copy())
    assert torch.equal(pixels_of(normalise(pixels, record), record), pixels)
    assert pixels_of(normalise(pixels, record) * 3, record).max() == 255


RECORD = Preprocessing(num_frames=4, short_side=40, crop=32)


def dataset(probe: ProbeInfo, **options) -> VideoDataset:
    settings = {"train": True, "flip": True, "augment": Augment(RandAugment(2, 15), 0.8)} | options
    return VideoDataset(read_kinetics_csv(probe.train_csv), RECORD, **settings)


@pytest.mark.parametrize("jitter", [None, (34, 48)])
def test_training_clips_are_keyed(appearance: ProbeInfo, jitter) -> None:
    first, second = (dataset(appearance, jitter=jitter, seed=7) for _ in range(2))
    torch.manual_seed(1)
    late = [second[3, index]["clip"] for index in (5, 4)]
    assert torch.equal(first[3, 4]["clip"], late[1])
    assert torch.equal(first.get_batch(3, [4, 5])["clip"], torch.stack(late[::-1]))
    assert not torch.equal(first[4, 4]["clip"], late[1])
    assert not torch.equal(dataset(appearance, jitter=jitter, seed=8)[3, 4]["clip"], late[1])


def test_the_crop_is_the_one_without_augmentation(appearance: ProbeInfo) -> None:
    """Strength 0 of one operation: the same pixels, whatever was drawn before for crop and mirror."""
    plain = dataset(appearance, augment=None, jitter=(34, 48))
    same = dataset(appearance, augment=Augment(RandAugment(1, 0)), jitter=(34, 48))
    kinds = [(plain[0, i]["clip"] - same[0, i]["clip"]).abs().max() < 1.5 / 255 / 0.225 for i in range(12)]
    assert sum(map(bool, kinds)) >= 6  # all but those that drew equalise or auto_contrast


def test_decoded_and_cached_frames_give_the_same_clips(appearance: ProbeInfo, tmp_path) -> None:
    cached = dataset(appearance, cache=FrameCache(tmp_path))
    for index in range(3):
        assert torch.equal(dataset(appearance)[1, index]["clip"], cached[1, index]["clip"])


def test_test_clips_are_left_alone(appearance: ProbeInfo) -> None:
    augmented, plain = dataset(appearance, train=False), dataset(appearance, train=False, augment=None)
    assert torch.equal(augmented[0]["clip"], plain[0]["clip"])


def test_masks_do_not_follow(appearance: ProbeInfo) -> None:
    with pytest.raises(InputError, match="augment and masks exclude each other"):
        dataset(appearance, masks=True)
