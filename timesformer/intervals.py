"""Confidence intervals of proportions."""


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion, in percent.  (0, 100) where nothing was counted.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    if count == 0:
        return 0.0, 100.0
    from scipy.stats import binomtest  # here, for its import takes about a second

    interval = binomtest(hits, count).proportion_ci(0.95, "wilson")
    return 100 * float(interval.low), 100 * float(interval.high)
