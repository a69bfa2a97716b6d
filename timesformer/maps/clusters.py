"""The picture of features (Figure 8 of the paper): where videos lie by what a model makes of them."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from timesformer.errors import InputError
from timesformer.text import printable

# Okabe-Ito: told apart with any colour vision; the marker tells them apart without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
MOST_CLASSES = len(COLOURS) * len(MARKERS)


def embed(vectors: np.ndarray, *, perplexity: float = 30.0, seed: int = 0) -> np.ndarray:
    """t-SNE (van der Maaten & Hinton, 2008) of vectors (rows, d) in the plane: (rows, 2), the same every time.

    perplexity: about how many neighbours count; with few rows at most a third of them

    Raises:
        InputError: fewer than four rows, or values that are not finite.
    """
    from sklearn.manifold import TSNE  # slow to import

    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or len(vectors) < 4:
        raise InputError(f"features: expected at least 4 rows of vectors, got an array of shape {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise InputError("features: there are values that are not finite")
    most = (len(vectors) - 1) / 3
    places: np.ndarray = TSNE(
        perplexity=min(perplexity, most), init="pca" if vectors.shape[1] > 1 else "random", random_state=seed
    ).fit_transform(vectors)
    return places


def draw_features(
    vectors: np.ndarray, classes: Sequence[str] | None = None, *, title: str = "", perplexity: float = 30.0
) -> Figure:
    """A mark for each row of vectors (rows, d), near to those that are like it; each class has its colour and marker.

    classes: the class of each row; None: all alike

    Raises:
        InputError: as `embed` does, another number of classes than rows, or more than 77 different ones.
    """
    if classes is not None and len(classes) != len(vectors):
        raise InputError(f"features: {len(vectors)} rows, but {len(classes)} classes")
    names = list(dict.fromkeys(classes)) if classes is not None else [""]
    if len(names) > MOST_CLASSES:
        raise InputError(f"features: at most {MOST_CLASSES} classes can be told apart in a picture, got {len(names)}")
    places = embed(vectors, perplexity=perplexity)
    figure, ax = plt.subplots(figsize=(7.5 if classes is None else 9.5, 7), layout="constrained")
    marks = []
    for number, name in enumerate(sorted(names)):
        mine = np.array([classes is None or one == name for one in classes or names * len(vectors)])
        marks.append(
            ax.scatter(
                places[mine, 0],
                places[mine, 1],
                s=34,
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                alpha=0.8,
                linewidths=0,
            )
        )
    ax.set(xticks=[], yticks=[], aspect="equal")
    if classes is not None:
        numbers = [str(number) for number in range(len(marks))]
        legend = ax.legend(
            marks, numbers, loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, ncols=1 + len(marks) // 30
        )
        for text, name in zip(legend.get_texts(), sorted(names), strict=True):  # a name is text: no formula
            text.set_parse_math(False)
            text.set_text(printable(name))
    ax.set_title("x", fontsize=10).set_parse_math(False)
    ax.title.set_text(printable(title or f"t-SNE of {len(vectors)} feature vectors"))
    plt.close(figure)
    return figure
