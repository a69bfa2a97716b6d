"""t-SNE of features: similar rows lie together, and classes can be distinguished without colour."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from timesformer.errors import InputError
from timesformer.maps.clusters import COLOURS, MARKERS, MOST_CLASSES, draw_features, embed


def three_groups() -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    middles = 10 * rng.standard_normal((3, 6))
    return middles.repeat(8, 0) + 0.1 * rng.standard_normal((24, 6)), [
        f"$class {i}$" for i in range(3) for _ in range(8)
    ]


def test_what_is_alike_lies_together() -> None:
    vectors, classes = three_groups()
    places = embed(vectors, perplexity=5)
    near = np.linalg.norm(places[:, None] - places[None], axis=-1) + 1e9 * np.eye(24)
    assert [classes[i] for i in near.argmin(1)] == classes
    np.testing.assert_array_equal(places, embed(vectors, perplexity=5))
    figure = draw_features(vectors, classes, perplexity=5)
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == sorted(set(classes))
    drawn = np.concatenate([mark.get_offsets() for mark in ax.collections])
    np.testing.assert_allclose(drawn, places, rtol=1e-5)
    figure.canvas.draw()
    assert plt.get_fignums() == []
    assert ax.get_title() == "t-SNE of 24 feature vectors"
    assert draw_features(vectors[:5], title="[b]\x1b").axes[0].get_title() == "[b]\\x1b"


def test_every_class_has_its_own_look() -> None:
    looks = {(COLOURS[n % len(COLOURS)], MARKERS[n % len(MARKERS)]) for n in range(MOST_CLASSES)}
    assert len(looks) == MOST_CLASSES


def test_what_cannot_be_drawn() -> None:
    vectors, classes = three_groups()
    for wrong, said in (
        ((vectors[:3], None), "at least 4 rows"),
        ((vectors * np.nan, None), "expected finite values"),
        ((vectors, classes[:4]), "classes: expected one for each of 24 rows, got 4"),
        ((np.zeros((100, 2)), [str(n) for n in range(100)]), "classes: expected at most 77"),
    ):
        with pytest.raises(InputError, match=said):
            draw_features(*wrong)
