"""Student's t for a variance that is a sum of two estimates with different degrees of freedom.

The critical value is the mean of both estimates' own critical values, weighted by their shares of the variance
(W. G. Cochran, G. M. Cox, Experimental Designs, 2nd edition 1957, section 4.14).  Satterthwaite's single number of
degrees of freedom is too liberal here: with three to five seeds and a level of 0.005 it errs two to four times as often
as it says (see `simulate`).  With a share of 1 all of this is Student's t with `few` degrees of freedom.

Everything works element by element on arrays: `share` is that of the estimate with `few` degrees of freedom (seeds),
the rest has `many` (test videos).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

_STEPS = 60
_CLOSE = 1e-10
"""Tolerance of log p."""
_LEAST = 1e-300


def critical(level: float, share: ArrayLike, few: ArrayLike, many: ArrayLike) -> np.ndarray:
    """Return the two-sided critical value at a level (0.05 for a 95 % interval)."""
    share = np.asarray(share, float)
    return share * _upper(level / 2, few) + (1 - share) * _upper(level / 2, many)


def one_sided_p(statistic: ArrayLike, share: ArrayLike, few: ArrayLike, many: ArrayLike) -> np.ndarray:
    """Return the probability of a larger statistic: the level whose critical value it is."""
    given = np.broadcast_arrays(*(np.asarray(each, float) for each in (statistic, share, few, many)))
    size, part, less, more = np.abs(given[0]), *given[1:]
    ends = [special.stdtr(freedom, -size) for freedom in (less, more)]
    low, high = np.log(np.maximum(np.minimum(*ends), _LEAST)), np.log(np.maximum(np.maximum(*ends), _LEAST))
    mixed = (part > 0) & (part < 1) & (high > low)
    tail = np.where(part >= 1, ends[0], ends[1])
    if mixed.any():
        size, part, less, more = (each[mixed] for each in (size, part, less, more))
        tail[mixed] = np.exp(_solved(size, part, less, more, low[mixed], high[mixed]))
    return np.where(given[0] >= 0, tail, 1 - tail)


def two_sided_p(statistic: ArrayLike, share: ArrayLike, few: ArrayLike, many: ArrayLike) -> np.ndarray:
    """Return the probability of a statistic that is farther from 0."""
    return 2 * one_sided_p(np.abs(np.asarray(statistic, float)), share, few, many)


def _solved(
    size: np.ndarray, share: np.ndarray, few: np.ndarray, many: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Return the log of the one-sided level whose critical value is `size`, between two bounds.

    Newton's method on logarithms, in which the critical value is nearly straight; by halves where it leaves the bounds.
    """
    found = (low + high) / 2
    rows = np.arange(len(size))
    for _ in range(_STEPS):
        place, part = found[rows], share[rows]
        level = np.exp(place)
        limits = _upper(level, few[rows]), _upper(level, many[rows])
        value = part * limits[0] + (1 - part) * limits[1]
        above = value > size[rows]  # then the level is too small
        low[rows], high[rows] = np.where(above, place, low[rows]), np.where(above, high[rows], place)
        change = level * (part / _density(limits[0], few[rows]) + (1 - part) / _density(limits[1], many[rows]))
        following = place + np.log(value / size[rows]) * value / change
        inside = (following > low[rows]) & (following < high[rows])
        found[rows] = np.where(inside, following, (low[rows] + high[rows]) / 2)
        rows = rows[np.abs(found[rows] - place) > _CLOSE]
        if len(rows) == 0:
            break
    return found


def matching_freedom(level: float, share: float, few: float, many: float) -> float:
    """Return the degrees of freedom of the plain t that has the same critical value at a level."""
    wanted = float(critical(level, share, few, many))
    low, high = few, max(many, few)
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if float(_upper(level / 2, middle)) > wanted else (low, middle)
    return float(np.sqrt(low * high))


def _upper(level: ArrayLike, freedom: ArrayLike) -> np.ndarray:
    return -np.asarray(special.stdtrit(freedom, level))


def _density(value: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    scale = special.gammaln((freedom + 1) / 2) - special.gammaln(freedom / 2) - 0.5 * np.log(freedom * np.pi)
    return np.exp(scale - (freedom + 1) / 2 * np.log1p(value**2 / freedom))
