"""Confidence intervals of proportions."""


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval (low, high) of a proportion, in percent; (0, 100) if `count` is 0.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    if count == 0:
        return 0.0, 100.0
    from scipy.stats import binomtest  # imported here because it takes about a second

    interval = binomtest(hits, count).proportion_ci(0.95, "wilson")
    return 100 * float(interval.low), 100 * float(interval.high)
