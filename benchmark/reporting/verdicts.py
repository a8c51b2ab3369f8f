"""The statistics of benchmark/report.py: is one head better than the other, how sure is that, how many seeds would it take?

Verdicts come from t tests, as a percentile bootstrap is too narrow at ten seeds: paired ones where both sides have the same
seeds, as these start from the same backbone and environments, and else Welch's. IQM, probability of improvement and their
intervals are rliable's (Agarwal et al. 2021, arXiv 2108.13264), from a fixed seed.
"""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from rliable import library, metrics
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower

RESAMPLES = 2000  # of every bootstrap
MOST_SEEDS = 1000  # of interest when asking how many it would take
LEAST_SEEDS = 5  # below, a bootstrap interval says nothing


class Comparison(NamedTuple):
    difference: float  # of the means, head minus baseline
    low: float  # 95 % interval of it; NaN for a single seed or without spread
    high: float
    p: float  # two-sided; NaN for a single seed


def compare(head: np.ndarray, baseline: np.ndarray) -> Comparison:
    """Welch's t test of the seeds' values (seeds,) and (seeds,). Without any spread, the exact permutation test."""
    difference = head.mean() - baseline.mean()
    if min(len(head), len(baseline)) < 2:
        return Comparison(difference, math.nan, math.nan, math.nan)
    if np.ptp(head) == np.ptp(baseline) == 0:
        p = 2 / math.comb(len(head) + len(baseline), len(head)) if difference else 1.0
        return Comparison(difference, math.nan, math.nan, p)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Precision loss"
        )  # where all runs of one side agree, its variance is 0 indeed
        test = stats.ttest_ind(head, baseline, equal_var=False)
    return Comparison(difference, *test.confidence_interval(0.95), test.pvalue)


def compare_paired(differences: np.ndarray) -> Comparison:
    """Student's t test of the differences (pairs,), head minus baseline of the same seed. Without any spread, the exact
    permutation test, which changes their signs."""
    difference = differences.mean()
    if len(differences) < 2:
        return Comparison(difference, math.nan, math.nan, math.nan)
    if np.ptp(differences) == 0:
        return Comparison(
            difference, math.nan, math.nan, 2.0 ** (1 - len(differences)) if difference else 1.0
        )
    test = stats.ttest_1samp(differences, 0)
    return Comparison(difference, *test.confidence_interval(0.95), test.pvalue)


def sign_p(wins: int, losses: int) -> float:
    """p value of the sign test that wins and losses, without the draws, are equally likely."""
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def corrected(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's p values (comparisons,); NaN stays."""
    p, known = np.array(p, dtype=float), ~np.isnan(p)
    if known.any():
        p[known] = stats.false_discovery_control(p[known], method="bh")
    return p


def verdict(difference: float, p: float) -> str:
    """better, worse or not distinguishable, of a difference (higher is better) and its corrected p value, at 5 %."""
    if not p <= 0.05:
        return "not distinguishable"
    return "better" if difference > 0 else "worse"


def seeds_needed(head: np.ndarray, baseline: np.ndarray) -> float:
    """Seeds a side with which Welch's test would call a difference of the observed size, given the observed spread, in 80 % of
    experiments at the 5 % level; inf if more than MOST_SEEDS, NaN if a side has but one seed."""
    if min(len(head), len(baseline)) < 2:
        return math.nan
    deviation = math.sqrt((head.var(ddof=1) + baseline.var(ddof=1)) / 2)
    return enough(
        TTestIndPower(), head.mean() - baseline.mean(), deviation, 4
    )  # fewer cannot pass the permutation test


def pairs_needed(differences: np.ndarray) -> float:
    """The same for the paired test of the differences (pairs,): pairs of seeds."""
    return (
        enough(TTestPower(), differences.mean(), differences.std(ddof=1), 6)
        if len(differences) > 1
        else math.nan
    )


def enough(
    test: TTestPower | TTestIndPower, difference: float, deviation: float, without_spread: int
) -> float:
    """The least number of seeds at which the test has a power of 80 % at the 5 % level; inf if more than MOST_SEEDS."""
    if difference == 0:
        return math.inf
    if deviation == 0:
        return float(without_spread)
    seeds = np.arange(2, MOST_SEEDS + 1)
    effect = min(
        abs(difference) / deviation, 4.0
    )  # for which 3 are enough; of larger ones statsmodels gives NaN here and there
    powerful = np.flatnonzero(test.power(effect, seeds, 0.05) >= 0.8)
    return float(seeds[powerful[0]]) if len(powerful) else math.inf


def interval(
    scores: np.ndarray | list[np.ndarray], func: Callable[..., np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """func(*scores), an array, and its 95 % stratified bootstrap interval, NaN with fewer than LEAST_SEEDS seeds. Each of
    `scores` is (runs, tasks, ...)."""
    sides = scores if isinstance(scores, list) else [scores]
    if min(map(len, sides)) < LEAST_SEEDS:
        point = func(*sides)
        return point, np.full_like(point, math.nan), np.full_like(point, math.nan)
    np.random.seed(0)  # rliable resamples from NumPy's global generator
    points, intervals = library.get_interval_estimates({"": scores}, func, reps=RESAMPLES)
    return points[""], *intervals[""]


def iqm(scores: np.ndarray) -> np.ndarray:
    """(1,): interquartile mean over runs and tasks."""
    return np.array([metrics.aggregate_iqm(scores)])


def curve_iqm(scores: np.ndarray) -> np.ndarray:
    """(points,): interquartile mean over runs of a task's curves (runs, 1, points). As rliable's, but all points at once."""
    cut = len(scores) // 4
    return np.sort(scores[:, 0], axis=0)[cut : len(scores) - cut].mean(axis=0)


def improvement(head: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """(1,): probability that a run with the head beats one without, averaged over the tasks; half of it for a draw. As
    rliable's, but without a p value for every resample, which takes 20 times as long."""
    pairs = head[:, None], baseline[None, :]
    return np.array([np.mean((pairs[0] > pairs[1]) + 0.5 * (pairs[0] == pairs[1]))])


def equal_spread(head: np.ndarray, baseline: np.ndarray) -> float:
    """p value of Brown and Forsythe's test that both sides vary alike over seeds; NaN with fewer than LEAST_SEEDS seeds."""
    if min(len(head), len(baseline)) < LEAST_SEEDS:
        return math.nan
    return (
        float(stats.levene(head, baseline, center="median").pvalue)
        if np.ptp(head) or np.ptp(baseline)
        else 1.0
    )


def spread(*arms: np.ndarray) -> tuple[float, float, float]:
    """Standard deviation over seeds of one arm, or of the first minus of the second, and its 95 % BCa bootstrap interval, NaN
    with fewer than LEAST_SEEDS seeds or where nearly all agree. All NaN for a single seed."""

    def statistic(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        first, *second = (np.std(sample, axis=axis, ddof=1) for sample in samples)
        return first - second[0] if second else first

    if min(map(len, arms)) < 2:
        return math.nan, math.nan, math.nan
    if min(map(len, arms)) < LEAST_SEEDS or not any(np.ptp(arm) for arm in arms):
        return float(statistic(*arms)), math.nan, math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # says that the limits are NaN
        limits = stats.bootstrap(
            arms, statistic, n_resamples=RESAMPLES, rng=np.random.default_rng(0)
        ).confidence_interval
    return float(statistic(*arms)), float(limits.low), float(limits.high)
