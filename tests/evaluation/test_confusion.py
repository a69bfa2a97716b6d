"""Which classes are taken for which, counted from the rows of an evaluation."""

import json

import numpy as np
import pandas as pd
import pytest

from timesformer.evaluation.confusion import MOST_CLASSES, Confusion, confusions
from timesformer.intervals import wilson_interval

ROWS = pd.DataFrame({"label": [0, 0, 0, 2, 2], "prediction": [0, 1, 0, 2, 0]})


def test_counts_by_hand() -> None:
    (found,) = confusions(ROWS, ["a", "b", "c"], (), 3)
    assert found.counts is not None
    assert found.counts.tolist() == [[2, 1, 0], [0, 0, 0], [1, 0, 1]]
    rows = found.rows()
    assert [(row["class"], row["videos"], row["right"]) for row in rows] == [("a", 3, 2), ("b", 0, 0), ("c", 2, 1)]
    assert rows[0]["top1_percent"] == pytest.approx(200 / 3)
    assert (rows[0]["top1_low_percent"], rows[0]["top1_high_percent"]) == wilson_interval(2, 3)
    assert rows[1]["top1_percent"] is rows[1]["top1_low_percent"] is None
    (twice,) = (each + each for each in [found])
    assert twice.videos.tolist() == [6, 0, 4]
    assert twice.counts is not None
    assert twice.counts.tolist() == (2 * found.counts).tolist()


def test_heads_are_counted_one_by_one() -> None:
    rows = pd.DataFrame({"label": [[0, 1], [1, 1]], "prediction": [[0, 2], [1, 1]]})
    verb, noun = confusions(rows, {"verb": ["cut", "mix"], "noun": ["egg", "tea", "pan"]}, (2, 3), 0)
    assert (verb.head, noun.head) == ("verb", "noun")
    assert verb.right.tolist() == [1, 1]
    assert noun.counts is not None
    assert noun.counts.tolist() == [[0, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert [each.head for each in confusions(rows, None, (2, 3), 0)] == ["head0", "head1"]


@pytest.mark.parametrize("classes", [3, MOST_CLASSES, MOST_CLASSES + 1])
def test_what_is_stored_comes_back_without_a_matrix_of_many_classes(classes: int) -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({name: rng.integers(classes, size=50) for name in ("label", "prediction")})
    (found,) = confusions(rows, None, (), classes)
    stored = json.loads(json.dumps(found.to_dict()))
    assert ("counts" in stored) == (classes <= MOST_CLASSES)
    again = Confusion.from_dict(stored)
    assert again.rows() == found.rows()
    assert again.to_dict() == found.to_dict()
    assert found.classes[0] == "class 0"
