"""Seeds made into estimates, pairs made into words: designs, groups, what is missing, and families."""

import numpy as np
import pytest
from scipy import stats

from timesformer.errors import InputError
from timesformer_experiments.analysis.pairs import compare, judged
from timesformer_experiments.analysis.seeds import Seeds, design_of, difference_of, mean_of, students_interval
from timesformer_experiments.analysis.statistics.estimators import crossed_difference, nested_difference


def seeds(*rows: str, own: bool = False, together: int = 1) -> Seeds:
    """A row a seed: + for right, - for wrong; own: each seed has test videos of its own."""
    right = {
        seed: {f"{seed if own else 0}:{place}": sign == "+" for place, sign in enumerate(row)}
        for seed, row in enumerate(rows)
    }
    clusters = {name: f"{name[0]}:{int(name[2:]) // together}" for videos in right.values() for name in videos}
    percent = {seed: 100 * sum(videos.values()) / len(videos) for seed, videos in right.items()}
    return Seeds(percent, right, clusters)


FIRST, SECOND = ("++++++++--", "+++++++---"), ("+++-------", "++--------")


def test_the_design_follows_from_the_test_videos() -> None:
    shared, own = (tuple(seeds(*rows, own=each) for rows in (FIRST, SECOND)) for each in (False, True))
    assert design_of(shared[0].right, shared[1].right) == "crossed"
    assert design_of(own[0].right, own[1].right) == "nested"
    assert difference_of(*shared).estimate == crossed_difference(shared[0].right, shared[1].right)
    assert difference_of(*own).estimate == nested_difference(own[0].right, own[1].right)
    mixed = {0: {"a": True}, 1: {"a": True}, 2: {"b": True}}
    with pytest.raises(InputError, match="some seeds share test videos and others do not"):
        design_of(mixed)
    with pytest.raises(InputError, match="no seeds"):
        mean_of(Seeds({}))


def test_videos_that_belong_together_are_one() -> None:
    alone, pairs = seeds("++--++--++--"), seeds("++--++--++--", together=2)
    assert mean_of(alone).mean == mean_of(pairs).mean == 50
    found = mean_of(pairs)
    assert found.over == "test videos alone"
    half = stats.t.ppf(0.975, 5) * 100 * np.std([1, 0, 1, 0, 1, 0], ddof=1) / 6**0.5
    assert found.high == pytest.approx(min(100, 50 + half))
    assert mean_of(alone).high < found.high  # type: ignore[operator]


def test_what_is_known_is_taken_and_said() -> None:
    over_seeds = mean_of(Seeds({0: 90.0, 1: 92.0, 2: 97.0}))
    expected = stats.t.interval(0.95, 2, loc=93, scale=stats.sem([90, 92, 97]))
    assert (over_seeds.low, over_seeds.high) == pytest.approx((expected[0], min(100, expected[1])))
    assert over_seeds.over == "seeds alone"
    one = mean_of(Seeds({0: 90.0}, own={0: (85.0, 93.0)}))
    assert (one.mean, one.low, one.high, one.over) == (90, 85, 93, "test videos alone")
    assert mean_of(Seeds({0: 90.0})).over == "nothing"
    (untested,) = judged([compare(Seeds({0: 75.0, 2: 1.0}), Seeds({0: 50.0, 3: 1.0}))])
    assert untested.sentence() == (
        "first 75.0 % and second 50.0 %: difference 25.0 points, not tested (one seed, and which test videos were "
        "right is not known)"
    )
    other = Seeds({0: 50.0}, {0: {"x": True, "y": False}})
    assert difference_of(seeds("++-+"), other).note == "one seed, and the test videos are not the same"
    with pytest.raises(InputError, match="no seed in common"):
        compare(Seeds({0: 1.0}), Seeds({1: 1.0}))


def test_one_seed_has_no_verdict_and_no_p_value() -> None:
    apart, near = compare(seeds("+" * 30 + "-" * 10), seeds("-" * 40)), compare(seeds("+-" * 9), seeds("-+" * 9))
    for each, word in zip(judged([apart, near]), ("differ", "are not told apart"), strict=True):
        assert each.verdict == f"these two models {word}"
        assert "for new test videos alone, there is one seed: these two models" in each.sentence()
        assert "p =" not in each.sentence()
        assert each.to_dict()["direction_p"] is None


def test_words_name_the_better_variant_or_say_what_is_missing() -> None:
    wide = compare(Seeds({0: 60.0, 1: 75.0, 2: 90.0}), Seeds({0: 59.0, 1: 60.0, 2: 61.0}), names=("a", "b"))
    clear = compare(Seeds({0: 60.0, 1: 61.0, 2: 60.5}), Seeds({0: 90.0, 1: 91.2, 2: 90.1}), names=("a", "b"))
    equal = compare(
        Seeds({seed: 80.0 + 0.1 * (seed % 2) for seed in range(6)}),
        Seeds({seed: 80.0 + 0.1 * (seed % 3) for seed in range(6)}),
        names=("a", "b"),
        setting={"on": "motion"},
    )
    found = judged([wide, clear, equal])
    assert [each.verdict for each in found] == ["undecided", "b is better", "equivalent"]
    assert [each.apart for each in found] == [False, True, False]
    assert "undecided; at this spread 80 % power would have found" in found[0].sentence()
    assert found[2].sentence().startswith("on motion: a 80.0 % and b 80.1 %: difference −0.1 points, 95 % interval")
    assert "for new seeds alone (direction p" in found[2].sentence()
    assert "equivalence p < 0.001 among 3 comparisons): equivalent" in found[2].sentence()
    # A family of three: each p-value is at least as large as on its own.
    (alone,) = judged([wide])
    assert found[0].judgement is not None
    assert alone.judgement is not None
    assert (found[0].judgement.direction_p or 0) >= (alone.judgement.direction_p or 0)
    assert judged([]) == []


def test_seeds_that_do_not_differ_have_no_students_interval() -> None:
    assert students_interval([0.1]) is None
    assert students_interval([0.1, 0.1, 0.1]) is None
    expected = stats.t.interval(0.95, 2, loc=0.2, scale=stats.sem([0.1, 0.2, 0.3]))
    assert students_interval([0.1, 0.2, 0.3]) == pytest.approx(expected)
