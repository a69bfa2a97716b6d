"""Contact sheets, the cheap classifiers, and the gate that they make."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from timesformer.data import FrameCache, Sample
from timesformer.data.probes import ProbeInfo, make_probe
from timesformer.data.probes.cheap import GATED, count_patches, planes, predict, read_clips
from timesformer.data.probes.diagnostics import (
    GATE_MARGIN_POINTS,
    CheapResult,
    cheap_best_percent,
    cheap_classifiers,
    contact_sheet,
    gate,
)


def test_contact_sheet_shows_every_class(motion: ProbeInfo, appearance: ProbeInfo, tmp_path: Path) -> None:
    for info in (motion, appearance):
        figure = contact_sheet(info, clips_per_class=1, frames=4)
        assert len(figure.axes) == 8 * 4
        assert [axis.get_ylabel().split("\n")[0] for axis in figure.axes[::4]] == list(info.labels)
        assert (
            len({axis.images[0].get_array().tobytes() for axis in figure.axes}) >= 16
        )  # a clip and its reversal show the same
    figure.savefig(tmp_path / "sheet.png", dpi=40)
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_cheap_classifiers_stay_within_the_ceiling(tmp_path: Path) -> None:
    info = make_probe("motion", tmp_path, num_train=48, num_test=48, seed=0)
    results = cheap_classifiers(info, FrameCache(tmp_path / "cache"))
    assert list(results) == ["mean_frame", "first_frame", "file_size", *GATED]
    limits = {name: result.limit_percent for name, result in results.items()}
    assert {name for name, limit in limits.items() if limit is None} == {
        name for name in GATED if not name.startswith("patches")
    }
    assert set(limits.values()) == {None, 50.0}
    for name, result in results.items():
        assert result.low_percent <= result.top1_percent <= result.high_percent
        assert result.within_limit, (name, result)
    assert results == cheap_classifiers(info)


def test_cheap_classifiers_find_what_is_there_to_find(tmp_path: Path) -> None:
    # Brightness gives the class away in this forged probe: training videos are their own test set.
    info = make_probe("appearance", tmp_path, num_train=16, num_test=8, seed=0)
    info.test_csv.write_text(info.train_csv.read_text())
    results = cheap_classifiers(info)
    assert results["first_frame"].top1_percent == results["mean_frame"].top1_percent == 100.0
    assert all(result.limit_percent is None and result.within_limit for result in results.values())
    assert cheap_best_percent(results) == 100.0


def test_the_three_classifiers_of_old_say_what_they_said(motion: ProbeInfo) -> None:
    """Committed figures are theirs: these are from before the others came."""
    results = cheap_classifiers(motion)
    assert [results[name].top1_percent for name in ("mean_frame", "first_frame", "file_size")] == OLD


OLD = [6.25, 18.75, 12.5]


def forged(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Clips whose class is in each feature: a sum, a change, and which of two kinds of patches there are."""
    label = np.arange(count) % 2
    noise = rng.standard_normal((count, 6))
    raw = rng.standard_normal((count, 8, 16)) + 8 * label[:, None, None]
    return {
        "label": label,
        "moments": noise + 4 * label[:, None],
        "differences": noise - 4 * label[:, None],
        "raw_patches": raw,
    }


@pytest.mark.parametrize("name", GATED)
def test_each_classifier_of_the_gate_finds_what_its_feature_holds(name: str) -> None:
    rng = np.random.default_rng(0)
    train, test = forged(rng, 40), forged(rng, 40)
    count_patches(train, test)
    assert (predict(name, train, test) == test["label"]).mean() > 0.95
    # And not more: with the labels of other clips it finds nothing.
    train["label"] = rng.permutation(train["label"])
    assert (predict(name, train, test) == test["label"]).mean() < 0.9


class Coloured:
    """In place of a cache: clips of one brightness, in part red or blue by their number."""

    def get(self, path: str) -> SimpleNamespace:
        pixels = np.full((2, 3, 16, 24), 117, np.uint8)
        number = int(path.rpartition("/")[2].partition(".")[0])
        pixels[..., :8] = np.array([(200, 80, 80), (88, 120, 192)], np.uint8)[number % 2, :, None, None]
        return SimpleNamespace(pixels=pixels)


def test_the_gate_sees_colour(tmp_path: Path) -> None:
    samples = []
    for number in range(8):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(b"x")
        samples.append(Sample(str(path), number % 2))
    luma, blue, red = planes(Coloured().get("0.mp4").pixels)
    assert (luma.shape, blue.shape, red.shape) == ((2, 8, 12), (2, 4, 6), (2, 4, 6))
    assert np.allclose(luma, planes(Coloured().get("1.mp4").pixels)[0], atol=4)
    assert red.max() > 40 > -15 > planes(Coloured().get("1.mp4").pixels)[2].min()
    clips = read_clips(samples, Coloured())  # type: ignore[arg-type]
    assert clips["raw_patches"].shape == (8, 2 * 2 * 3, 16 + 4 + 4)
    assert clips["moments"].shape == (8, 5 * (96 + 24 + 24))
    assert clips["differences"].shape == (8, 144)
    count_patches(clips, dict(clips))
    for name in ("moments_forest", "patches_forest"):
        assert (predict(name, clips, clips) == clips["label"]).all()


def test_a_gate_needs_more_than_five_points() -> None:
    assert GATE_MARGIN_POINTS == 5
    assert gate(50.0, 55.1)
    assert not gate(50.0, 55.0)
    assert not gate(86.6, 87.0)
    assert not gate(90.0, 60.0)


def test_limit_counts_the_interval() -> None:
    assert CheapResult(51.0, 47.0, 55.0, 50.0).within_limit
    assert not CheapResult(60.0, 56.0, 64.0, 50.0).within_limit
    assert np.isfinite(CheapResult(60.0, 56.0, 64.0, None).top1_percent)


@pytest.mark.slow
def test_cheap_classifiers_at_full_size(tmp_path: Path) -> None:
    info = make_probe("motion", tmp_path, num_train=3000, num_test=600, seed=0)
    results = cheap_classifiers(info)
    assert all(result.within_limit for result in results.values()), results
