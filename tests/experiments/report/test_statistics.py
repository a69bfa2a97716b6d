"""Numbers of statistics as they are read."""

from timesformer_experiments.report.statistics import p_text, signed


def test_numbers_in_sentences() -> None:
    assert [signed(value) for value in (-1.06, 1.71, -0.04)] == ["−1.1", "1.7", "0.0"]
    assert [p_text(value) for value in (0.0004, 0.0312, 0.05, 0.6)] == [
        "p < 0.001",
        "p = 0.031",
        "p = 0.05",
        "p = 0.60",
    ]
