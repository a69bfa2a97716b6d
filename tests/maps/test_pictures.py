"""Pictures and films: a known patch lights up at its own pixels, T, H and W different."""

from pathlib import Path

import av
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from tests.maps.pointing import GRID, PATCH, PLACE, pointing_model
from timesformer.data import Preprocessing, VideoError
from timesformer.data.probes.encode import encode
from timesformer.errors import InputError
from timesformer.maps import attention_maps
from timesformer.maps.films import side_by_side, write_film
from timesformer.maps.overlay import DIM, GLOW, HIGH, LOW, grey, holding, overlay, upsample
from timesformer.maps.pictures import draw_heads, draw_overlays, draw_time
from timesformer.maps.seen import Seen, see


def block(place: tuple[int, int, int]) -> tuple[int, slice, slice]:
    """The pixels of a patch."""
    t, h, w = place
    return t, slice(h * PATCH, (h + 1) * PATCH), slice(w * PATCH, (w + 1) * PATCH)


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (GRID[0], GRID[1] * PATCH, GRID[2] * PATCH, 3), np.uint8)


def test_each_patch_covers_its_own_pixels() -> None:
    weights = np.arange(30, dtype=np.float32).reshape(GRID)
    large = upsample(weights, (8, 20))
    for place in np.ndindex(GRID):
        assert (large[block(place)] == weights[place]).all()
    smooth = upsample(weights, (6, 15), smooth=True)
    np.testing.assert_allclose(smooth[:, 1::3, 1::3], weights, atol=1e-6)  # the middles of 3 x 3 pixels
    assert smooth[0, 0, 2] == pytest.approx(weights[0, 0, 0] + 1 / 3)
    with pytest.raises(InputError, match="expected multiples of 2 x 5 pixels"):
        upsample(weights, (8, 21))


@pytest.mark.parametrize("attention", ["joint", "divided"])
def test_the_patch_that_is_looked_at_lights_up(attention: str, frames: np.ndarray) -> None:
    model, clip, place = pointing_model(attention)
    weights = attention_maps(model, clip).get(1, "joint" if attention == "joint" else "space").weights[0, 0, 0]
    if attention == "divided":  # its class token looks into every frame by itself; of those the second has the patch
        weights = weights * (np.arange(GRID[0]) == place[0])[:, None, None]
    lit = overlay(frames, weights)
    ground = np.round(DIM * grey(frames))
    inside = np.zeros(frames.shape[:3], bool)
    inside[block(place)] = True
    assert (lit[inside].min(-1) > ground[inside][..., 0]).all()
    assert lit[inside][:, 0].min() > 210
    assert np.abs(lit[~inside].astype(int) - ground[~inside]).max() <= 4
    assert (holding(weights) == (np.indices(GRID).T == PLACE).all(-1).T).all()


def test_weight_adds_light_over_any_picture() -> None:
    """So that a map reads without colour; and its colours differ from grey for every vision."""
    for shade in (0, 127, 255):
        flat = np.full((1, 1, 100, 3), shade, np.uint8)
        light = grey(overlay(flat, np.linspace(0, 1, 100)[None, None]))[0, 0, :, 0]
        assert np.diff(light).min() > -1  # rounding to whole levels
        assert (np.diff(light[::10]) > 0).all()
        assert light[-1] > light[0] + 90
    assert grey(np.array(HIGH)) > grey(np.array(LOW)) > DIM * 255
    bar = [grey(255 * np.array(GLOW(x)[:3]))[0] for x in np.linspace(0, 1, 20)]
    assert (np.diff(bar) > 0).all()


def test_tubelets_and_scale(frames: np.ndarray) -> None:
    four = np.concatenate([frames, frames[:1]])
    weights = np.zeros((2, 2, 5))
    weights[1, 0, 3] = 0.5
    lit = overlay(four, weights, top=1.0)
    assert (lit[2:, :4, 12:16].astype(int).sum(-1) > lit[:2, :4, 12:16].astype(int).sum(-1)).mean() > 0.9
    brightest = overlay(four, weights)
    assert brightest[2, :4, 12:16].mean() > lit[2, :4, 12:16].mean() + 20
    assert (overlay(four, weights, colours=True)[0] == np.round(DIM * four[0].astype(np.float32))).all()
    assert (overlay(four, 0 * weights)[0, ..., 0] == np.round(DIM * grey(four[0])[..., 0])).all()
    with pytest.raises(InputError, match="expected a multiple of 2 frames, the map's tokens, got 3"):
        overlay(frames, weights)


def test_holding() -> None:
    np.testing.assert_array_equal(holding(np.array([[0.1, 0.6], [0.2, 0.1]])), [[False, True], [False, False]])
    np.testing.assert_array_equal(holding(np.array([0.25, 0.25, 0.25, 0.25])), [True, True, False, False])


def test_pictures_name_what_they_show(frames: np.ndarray) -> None:
    model, clip, place = pointing_model("joint")
    (found,) = attention_maps(model, clip, query=(2, 1, 0), layers=[1])
    figure = draw_heads(frames, found, seconds=[0.0, 0.5, 1.25])
    labels = [ax.get_ylabel() for ax in figure.axes if ax.get_label() != "scale"]
    assert labels == ["video", "head 0", "head 1", "mean"]
    assert [text.get_text() for text in figure.axes[0].texts] == [
        "frame 0, 0.00 s",
        "frame 1, 0.50 s",
        "frame 2, 1.25 s",
    ]
    assert figure.get_suptitle() == "layer 1, joint, from the patch at time 2, row 1, column 0"
    strip = figure.axes[1].get_images()
    assert len(strip) == 3
    lit = np.asarray(strip[place[0]].get_array())
    assert np.asarray(lit[block((0, *place[1:]))[1:]]).min(-1).mean() > 140
    left, right, bottom, top = strip[2].get_extent()
    (outer, inner) = figure.axes[1].patches  # the query, in its frame
    assert outer.get_xy() == inner.get_xy() == (left, 4)
    assert (right - left, bottom - top) == (20, 8)
    bars = [ax.get_yticklabels()[-1].get_text() for ax in figure.axes if ax.get_label() == "scale"]
    assert bars[-1].endswith("%")
    assert float(bars[-1][:-1]) > 95
    many = draw_overlays(frames.repeat(4, 0), {"$a_{$ [b]\x1b": np.zeros(GRID)}, title="$x^$")
    assert many.get_suptitle() == "$x^$ (8 of 12 frames)"
    assert many.axes[1].get_ylabel() == "$a_{$ [b]\\x1b"
    many.canvas.draw()


def test_time_against_time() -> None:
    model, clip, _ = pointing_model("divided")
    every = [(t, 0, 3) for t in range(3)]
    found = attention_maps(model, clip, query=every).get(0, "time")
    figure = draw_time(found)
    images = [ax.get_images()[0] for ax in figure.axes if ax.get_images() and ax.get_label() != "<colorbar>"]
    assert len(images) == 3  # two heads and their mean
    for image in images:
        matrix = np.asarray(image.get_array())
        np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-5)
        assert (matrix[:, PLACE[0]] > 0.99).all()  # from any time to that of the bright patch
    with pytest.raises(InputError, match="expected one position at the times 0 to 2"):
        draw_time(attention_maps(model, clip, query=every[:2]).get(0, "time"))
    assert plt.get_fignums() == []


def video_of(path: Path, frames: int = 12) -> Path:
    """40 x 24 pixels, a bright square that goes right, 2 pixels a frame; 15 frames a second."""
    luma = np.full((frames, 24, 40), 60, np.uint8)
    for number in range(frames):
        luma[number, 8:16, 2 * number : 2 * number + 8] = 220
    flat = np.full((frames, 12, 20), 128, np.uint8)
    encode(path, luma, flat, flat, quantiser=10)
    return path


def test_what_is_seen_is_what_the_model_gets(tmp_path: Path) -> None:
    path = video_of(tmp_path / "v.mp4")
    record = Preprocessing(num_frames=3, short_side=24, crop=(16, 32))
    seen = see(path, record)
    assert seen.clip.shape == (1, 3, 3, 16, 32)
    pixels = (seen.clip[0].permute(0, 2, 3, 1) * 0.225 + 0.45) * 255
    assert np.abs(seen.frames - pixels.numpy()).max() < 0.51
    np.testing.assert_allclose(seen.seconds * 15, [2, 5, 9], atol=1)
    np.testing.assert_allclose(seen.film_seconds, np.arange(len(seen.film)) / 15 + seen.film_seconds[0])
    assert seen.film_fps == pytest.approx(15)
    for number, nearest in enumerate(seen.film_frames):
        assert (
            abs(seen.film_seconds[number] - seen.seconds[nearest])
            == np.abs(seen.film_seconds[number] - seen.seconds).min()
        )
    for frame, second in zip(seen.frames, seen.seconds, strict=True):
        (same,) = np.flatnonzero(np.isclose(seen.film_seconds, second))
        np.testing.assert_array_equal(seen.film[same], frame)
    part = see(path, record, start=0.4, end=0.7)
    assert 0.4 <= part.seconds.min() < part.seconds.max() < 0.7
    smaller = see(path, Preprocessing(num_frames=2, short_side=16, crop=16))
    assert smaller.film.shape[1:] == smaller.frames.shape[1:] == (16, 16, 3)
    for wrong in ({"start": 0.9}, {"start": 0.5, "end": 0.5}, {"end": 0.0}, {"start": float("nan")}):
        with pytest.raises(InputError, match=r"expected a part of its 0\.80 seconds"):
            see(path, record, **wrong)
    with pytest.raises(VideoError, match="no such file"):
        see(tmp_path / "gone.mp4", record)


def test_films_show_the_map_of_the_nearest_frame(tmp_path: Path) -> None:
    frames = np.full((2, 8, 20, 3), 100, np.uint8)
    film, times = np.full((5, 8, 20, 3), 100, np.uint8), np.arange(5) / 8
    seen = Seen("v", torch.zeros(1, 2, 3, 8, 20), frames, np.array([0.0, 0.5]), film, times)
    weights = np.zeros((2, 2, 5))
    weights[1, 0, 3] = 1
    both = side_by_side(seen, weights)
    times_larger = both.shape[1] // 8
    assert both.shape == (5, 224, 41 * times_larger, 3)
    small = both[:, ::times_larger, ::times_larger]
    assert (small[:, :, :20] == 100).all()
    lit = small[:, :4, 21 + 12 : 21 + 16, 0] > 200
    assert lit.all((1, 2)).tolist() == [False, False, False, True, True]
    assert (small[:, 4:, 21:] < 60).all()
    mp4, gif = (write_film(tmp_path / f"film.{kind}", both, seen.film_fps) for kind in ("mp4", "gif"))
    with av.open(str(mp4)) as file:
        assert file.streams.video[0].average_rate == 8
        decoded = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(decoded) == 5
    middle = (times_larger * 2, times_larger * (21 + 14))
    assert decoded[4][middle].min() > decoded[0][middle].max() + 80
    with Image.open(gif) as image:  # equal frames become one that lasts longer
        assert 600 <= sum(part.info["duration"] for part in ImageSequence.Iterator(image)) <= 650
        assert min(image.convert("RGB").getpixel(middle[::-1])) > 120  # of the last one
    with pytest.raises(InputError, match=r"ends in \.mp4 or \.gif"):
        write_film(tmp_path / "film.avi", both, 8.0)
