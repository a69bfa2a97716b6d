"""Simulated trainings for `simulate`: the correct test videos of each seed of each variant.

A video is right where a normal variable exceeds 0; it is the sum of the variant's level, of the seed, of the video's
difficulty and of what is left.  A seed's true accuracy is then near-normal with the spread that is asked for, and the
mean over all seeds and videos is known exactly.  Accuracies in percent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

SHARED_DIFFICULTY = 0.4
"""Share of the variance within a seed that belongs to a video and is the same for all variants and seeds."""
OWN_DIFFICULTY = 0.15
"""Share that belongs to a video for one variant and is the same for all its seeds."""
BOTH_RIGHT = 0.6
"""Agreement of two variants on a video in the nested design, from independence (0) to the maximum (1)."""
CHUNK = 200

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class Level:
    """A variant: seeds' mean accuracy and their standard deviation [percent], as a normal variable."""

    centre: float
    spread: float

    @staticmethod
    def of(mean: float, spread: float) -> Level:
        """Return the level whose seeds have this mean and standard deviation [percent]."""
        root = optimize.brentq(lambda scale: _spread(mean, scale) - spread, 0.0, 5.0)
        return Level(_centre(mean, root), root)


def _centre(mean: float, scale: float) -> float:
    return float(special.ndtri(mean / 100) * np.sqrt(1 + scale**2))


def _spread(mean: float, scale: float) -> float:
    values = 100 * special.ndtr(_centre(mean, scale) + scale * _NODES)
    return float(np.sqrt(np.maximum(_WEIGHTS @ values**2 - (_WEIGHTS @ values) ** 2, 0.0)))


def nested_accuracies(
    rng: np.random.Generator, trials: int, mean: float, spread: float, seeds: int, videos: int
) -> np.ndarray:
    """Return accuracies (trials, seeds), each seed on test videos of its own."""
    level = Level.of(mean, spread)
    truth = special.ndtr(level.centre + level.spread * rng.standard_normal((trials, seeds)))
    return 100 * rng.binomial(videos, truth) / videos


def nested_differences(
    rng: np.random.Generator,
    trials: int,
    mean: float,
    differences: np.ndarray,
    spread: float,
    seeds: int,
    videos: int,
    *,
    one_baseline: bool,
) -> np.ndarray:
    """Return points (trials, claims, seeds) by which variants are better than their baseline, which has this mean.

    differences: the true ones, by claim.  one_baseline: whether the claims share it.
    """
    base = Level.of(mean, spread)
    shape = (trials, 1 if one_baseline else len(differences), seeds)
    truth = special.ndtr(base.centre + base.spread * rng.standard_normal(shape))
    right = np.broadcast_to(rng.binomial(videos, truth), (trials, len(differences), seeds))
    truth = np.broadcast_to(truth, right.shape)
    found = np.empty(right.shape)
    for claim, difference in enumerate(differences):
        level = Level.of(mean + difference, spread)
        own = special.ndtr(level.centre + level.spread * rng.standard_normal((trials, seeds)))
        other, count = truth[:, claim], right[:, claim]
        both = own * other + BOTH_RIGHT * (np.minimum(own, other) - own * other)
        kept = rng.binomial(count, np.clip(both / other, 0, 1))
        gained = rng.binomial(videos - count, np.clip((own - both) / (1 - other), 0, 1))
        found[:, claim] = 100 * (kept + gained - count) / videos
    return found


def humped(rng: np.random.Generator, accuracies: np.ndarray, share: float, lower: float) -> np.ndarray:
    """Lower a random share of the accuracies, drawn anew for each seed, by `lower` points."""
    return accuracies - lower * (rng.random(accuracies.shape) < share)


def crossed_right(
    rng: np.random.Generator, trials: int, mean: float, spread: float, seeds: int, videos: int
) -> Iterator[np.ndarray]:
    """Yield tables (some trials, seeds, videos) of 0 and 100, all seeds on the same videos."""
    level = Level.of(mean, spread)
    for count in _chunks(trials):
        shared = _difficulty(rng, (count, 1, videos))
        yield 100 * _right(rng, level, shared, (count, seeds, videos))


def crossed_differences(
    rng: np.random.Generator,
    trials: int,
    mean: float,
    differences: np.ndarray,
    spread: float,
    seeds: int,
    videos: int,
) -> Iterator[np.ndarray]:
    """Yield tables (some trials, claims, seeds, videos) of -100, 0 and 100: variants against one baseline, all on the
    same videos."""
    base, levels = Level.of(mean, spread), [Level.of(mean + each, spread) for each in differences]
    for count in _chunks(trials, len(differences)):
        shared = _difficulty(rng, (count, 1, videos))
        baseline = _right(rng, base, shared, (count, seeds, videos))
        yield 100 * np.stack([_right(rng, each, shared, baseline.shape) - baseline for each in levels], 1)


def _difficulty(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    return np.float32(np.sqrt(SHARED_DIFFICULTY)) * rng.standard_normal(shape, np.float32)


def _right(rng: np.random.Generator, level: Level, shared: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    trials, seeds, videos = shape
    value = rng.standard_normal(shape, np.float32)
    value *= np.float32(np.sqrt(1 - SHARED_DIFFICULTY - OWN_DIFFICULTY))
    value += shared
    value += np.float32(np.sqrt(OWN_DIFFICULTY)) * rng.standard_normal((trials, 1, videos), np.float32)
    value += np.float32(level.spread) * rng.standard_normal((trials, seeds, 1), np.float32)
    return (value > -np.float32(level.centre)).astype(np.float32)


def _chunks(trials: int, claims: int = 1) -> list[int]:
    size = max(1, CHUNK // claims)
    return [min(size, trials - start) for start in range(0, trials, size)]
