"""Confidence intervals of proportions."""

import math

Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion, in percent.  (0, 100) where nothing was counted.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    if count == 0:
        return 0.0, 100.0
    z = Z95
    share, shrink = hits / count, 1 + z * z / count
    centre = (share + z * z / (2 * count)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low = 0.0 if hits == 0 else 100 * (centre - half)
    return low, 100.0 if hits == count else 100 * (centre + half)
