"""Picture of feature vectors in the plane (Figure 8 of the paper)."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from timesformer.errors import InputError
from timesformer.text import printable

# Okabe-Ito colours are distinct for any colour vision; markers distinguish the classes without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
MOST_CLASSES = len(COLOURS) * len(MARKERS)


def embed(vectors: np.ndarray, *, perplexity: float = 30.0, seed: int = 0) -> np.ndarray:
    """Embed vectors (rows, d) in the plane by t-SNE (van der Maaten & Hinton, 2008): (rows, 2), deterministic.

    perplexity: effective number of neighbours; at most a third of the number of rows

    Raises:
        InputError: fewer than four rows, or values that are not finite.
    """
    from sklearn.manifold import TSNE  # slow to import

    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or len(vectors) < 4:
        raise InputError(f"features: expected at least 4 rows of vectors, got an array of shape {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise InputError("features: expected finite values")
    most = (len(vectors) - 1) / 3
    places: np.ndarray = TSNE(
        perplexity=min(perplexity, most), init="pca" if vectors.shape[1] > 1 else "random", random_state=seed
    ).fit_transform(vectors)
    return places


def draw_features(
    vectors: np.ndarray, classes: Sequence[str] | None = None, *, title: str = "", perplexity: float = 30.0
) -> Figure:
    """Draw a mark for each row of vectors (rows, d), close to similar rows; each class has its colour and marker.

    classes: class of each row, or None for one kind of mark

    Raises:
        InputError: as for `embed`, a number of classes that is not the number of rows, or more than 77 different ones.
    """
    if classes is not None and len(classes) != len(vectors):
        raise InputError(f"classes: expected one for each of {len(vectors)} rows, got {len(classes)}")
    names = list(dict.fromkeys(classes)) if classes is not None else [""]
    if len(names) > MOST_CLASSES:
        raise InputError(f"classes: expected at most {MOST_CLASSES} different ones in a picture, got {len(names)}")
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
        for text, name in zip(legend.get_texts(), sorted(names), strict=True):  # a name must not be parsed as a formula
            text.set_parse_math(False)
            text.set_text(printable(name))
    ax.set_title("x", fontsize=10).set_parse_math(False)
    ax.title.set_text(printable(title or f"t-SNE of {len(vectors)} feature vectors"))
    plt.close(figure)
    return figure
