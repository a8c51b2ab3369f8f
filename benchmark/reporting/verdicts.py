"""The statistics of benchmark/report.py: is one arm better than another, how sure is that, and what could these seeds show?

Runs of the same seed are pairs and compared by the paired t test: on CartPole their areas correlate over seeds by -0.05 to
0.42, so that pairing makes the spread 0.81 to 1.01 times that of independent runs, which is little. But it is valid whatever
the correlation, where Welch's test is not with a negative one; so Welch's is for arms that share fewer than two seeds.

Verdicts come from t tests, as a percentile bootstrap is too narrow at ten seeds. Aggregates and their stratified bootstrap
are those of rliable (Agarwal et al. 2021, arXiv 2108.13264): every task's runs are resampled by themselves. Its own functions
take one resample after the other, minutes for the arms of a large report, so those here take all at once; the tests hold them
against rliable's.

In shapes below, "comparisons", "seeds", "runs", "tasks" and "points" are numbers of these; "..." is empty or resamples.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import elementwise

WORDS = ("better", "worse", "not distinguishable")
LEVEL = 0.05  # of false alarms among the differences found
POWER = 0.8  # with which the smallest difference would be found
RESAMPLES = 2000  # of every bootstrap
LEAST_SEEDS = 5  # below, a bootstrap interval says nothing
BATCH = 4_000_000  # numbers of resamples that memory holds at once


# TESTS
def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean and variance (n - 1) of each row (rows, seeds) without its NaN; NaN where there is none."""
    count = np.sum(~np.isnan(values), axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(values, axis=1) / count
        squares = np.nansum((values - mean[:, None]) ** 2, axis=1)
        variance = np.where(count > 1, squares / (count - 1), math.nan)
    return count, mean, variance


def compare(arm: np.ndarray, baseline: np.ndarray) -> pd.DataFrame:
    """Compare the values (comparisons, seeds) of two sides, NaN where a side has no run of the seed. Columns:

    seeds       what was compared, in words
    difference  of the means, arm minus baseline
    low, high   its 95 % interval; NaN for a single seed or without spread
    p           two-sided, of the t test, or of the exact permutation test where nothing has any spread; NaN for a single seed
    error       standard error of the difference
    freedom     degrees of freedom of the t test
    """
    paired = arm - baseline
    pairs, mean, variance = moments(paired)
    a_count, a_mean, a_variance = moments(arm)
    b_count, b_mean, b_variance = moments(baseline)
    is_paired = pairs >= 2
    with np.errstate(invalid="ignore", divide="ignore"):
        a_share = a_variance / a_count
        b_share = b_variance / b_count
        welch = a_share**2 / (a_count - 1) + b_share**2 / (b_count - 1)
        freedom = np.where(is_paired, pairs - 1, (a_share + b_share) ** 2 / welch)
        error = np.sqrt(np.where(is_paired, variance / pairs, a_share + b_share))
        difference = np.where(is_paired, mean, a_mean - b_mean)

    both = np.concatenate([arm, baseline], axis=1)
    rounding = 1e-12 * np.nanmax(np.abs(both), axis=1, initial=0)
    no_spread = error <= rounding
    permutations = [
        2.0 ** (n - 1) if paired_row else math.comb(a + b, a) / 2
        for n, paired_row, a, b in zip(pairs, is_paired, a_count, b_count)
    ]
    exact = np.where(np.abs(difference) <= rounding, 1.0, 1 / np.array(permutations))
    error = np.where(no_spread, math.nan, error)
    margin = stats.t.ppf(0.975, freedom) * error
    p = np.where(no_spread, exact, 2 * stats.t.sf(np.abs(difference) / error, freedom))

    words = [
        f"{n} pairs" if paired_row else f"{a} and {b}"
        for n, paired_row, a, b in zip(pairs, is_paired, a_count, b_count)
    ]
    columns = {"seeds": words, "difference": difference}
    columns |= {"low": difference - margin, "high": difference + margin}
    return pd.DataFrame(columns | {"p": p, "error": error, "freedom": freedom})


def corrected(p: np.ndarray | pd.Series) -> np.ndarray:
    """Benjamini and Hochberg's p values (comparisons,); NaN stays and does not count."""
    result = np.array(p, dtype=float)
    known = ~np.isnan(result)
    if known.any():
        result[known] = stats.false_discovery_control(result[known], method="bh")
    return result


def smallest(error: np.ndarray, freedom: np.ndarray, level: np.ndarray) -> np.ndarray:
    """(comparisons,): the difference that a t test at this level, with this standard error and these degrees of freedom, would
    find with a probability of POWER; NaN where one of them is."""
    result = np.full(len(error), math.nan)
    known = ~np.isnan(error) & ~np.isnan(freedom)
    freedom = freedom[known]
    critical = stats.t.isf(level[known] / 2, freedom)

    def surplus(centre: np.ndarray, critical: np.ndarray, freedom: np.ndarray) -> np.ndarray:
        return stats.nct.sf(critical, freedom, centre) - POWER

    # t exceeds `critical` there with at least 0.9 * 0.9: the estimate of the spread is below its 90 %
    # quantile and the mean above its 10 % quantile
    enough = critical * np.sqrt(stats.chi2.ppf(0.9, freedom) / freedom) + stats.norm.ppf(0.9)
    if len(freedom):
        bracket = (np.zeros(len(freedom)), enough)
        centre = elementwise.find_root(surplus, bracket, args=(critical, freedom)).x
        result[known] = centre * error[known]
    return result


def judged(comparisons: pd.DataFrame) -> pd.DataFrame:
    """The comparisons, all those of one measure corrected together, with the columns

    corrected  p value after Benjamini and Hochberg's procedure among the comparisons of the measure
    verdict    better, worse or not distinguishable, by `corrected` at LEVEL
    smallest   difference that these seeds would have found with a probability of POWER. The procedure finds a difference if
               its p is at most LEVEL * found / comparisons, this one counted among those found.
    """
    families = comparisons.groupby("measure")["p"]
    p = families.transform(corrected)
    found = p <= LEVEL
    above = comparisons["difference"] > 0
    verdict = np.select([found & above, found], WORDS[:2], WORDS[2])
    others = found.groupby(comparisons["measure"]).transform("sum") - found
    level = LEVEL * (others + 1) / families.transform("count").clip(lower=1)
    columns = (comparisons[name].to_numpy(dtype=float) for name in ("error", "freedom"))
    least = smallest(*columns, level.to_numpy(dtype=float))
    return comparisons.assign(corrected=p, verdict=verdict, smallest=least)


def sign_p(wins: int, losses: int) -> float:
    """p value of the sign test that wins and losses, without the draws, are equally likely."""
    if wins + losses == 0:
        return 1.0
    return float(stats.binomtest(wins, wins + losses).pvalue)


def equal_spread(arm: np.ndarray, baseline: np.ndarray) -> float:
    """p value of Brown and Forsythe's test that both sides, (seeds,) without NaN, vary alike over seeds; NaN with fewer than
    LEAST_SEEDS seeds."""
    if min(len(arm), len(baseline)) < LEAST_SEEDS:
        return math.nan
    if not np.ptp(arm) and not np.ptp(baseline):
        return 1.0
    return float(stats.levene(arm, baseline, center="median").pvalue)


# AGGREGATES
def iqm(scores: np.ndarray) -> np.ndarray:
    """(...): interquartile mean of scores (..., runs, tasks)."""
    return stats.trim_mean(scores.reshape(*scores.shape[:-2], -1), 0.25, axis=-1)


def aggregates(scores: np.ndarray) -> np.ndarray:
    """(..., 4): median, interquartile mean, mean and optimality gap of scores (..., runs, tasks)."""
    flat = scores.reshape(*scores.shape[:-2], -1)
    median = np.median(scores.mean(axis=-2), axis=-1)
    gap = 1 - np.minimum(flat, 1).mean(axis=-1)
    return np.stack([median, iqm(scores), flat.mean(axis=-1), gap], axis=-1)


def curve_iqm(scores: np.ndarray) -> np.ndarray:
    """(..., points): interquartile mean over runs and tasks of curves (..., runs, tasks, points)."""
    *resamples, runs, tasks, points = scores.shape
    return stats.trim_mean(scores.reshape(*resamples, runs * tasks, points), 0.25, axis=-2)


def profile(scores: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """(..., levels): share of the scores (..., runs, tasks) that are above each level."""
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    below = [np.sum(flat <= level, axis=-1) for level in levels]
    return 1 - np.stack(below, axis=-1) / flat.shape[-1]


def resamples(scores: np.ndarray) -> Iterator[np.ndarray]:
    """RESAMPLES stratified resamples of scores (runs, tasks, ...), in batches (batch, runs, tasks, ...). The same for scores
    of the same shape."""
    random = np.random.default_rng(0)
    runs, tasks = scores.shape[:2]
    batch = max(1, BATCH // scores.size)
    for start in range(0, RESAMPLES, batch):
        size = min(batch, RESAMPLES - start)
        drawn = random.integers(runs, size=(size, runs, tasks))
        yield scores[drawn, np.arange(tasks)]


def interval(
    scores: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """statistic(scores), an array, and its 95 % stratified bootstrap interval, NaN with fewer than LEAST_SEEDS runs, of scores
    (runs, tasks, ...)."""
    point = statistic(scores)
    if len(scores) < LEAST_SEEDS:
        return point, np.full_like(point, math.nan), np.full_like(point, math.nan)
    drawn = np.concatenate([statistic(batch) for batch in resamples(scores)])
    return point, *np.quantile(drawn, [0.025, 0.975], axis=0)


def improvement(arm: np.ndarray, baseline: np.ndarray) -> tuple[float, float, float]:
    """Probability that a run of the arm (runs, tasks) beats one of the baseline (other runs, tasks), averaged over the tasks,
    half of it for a draw; and its 95 % stratified bootstrap interval, NaN with fewer than LEAST_SEEDS runs."""
    random = np.random.default_rng(0)
    sizes = len(arm), len(baseline)
    point = 0.0
    drawn = np.zeros(RESAMPLES)
    for ours, theirs in zip(arm.T, baseline.T):
        wins = (ours[:, None] > theirs) + 0.5 * (ours[:, None] == theirs)
        # how often each resample has drawn each run
        draws, their_draws = (random.multinomial(n, [1 / n] * n, RESAMPLES) for n in sizes)
        point += wins.mean() / arm.shape[1]
        drawn += ((draws @ wins) * their_draws).sum(axis=1) / wins.size / arm.shape[1]
    if min(sizes) < LEAST_SEEDS:
        return point, math.nan, math.nan
    return point, *np.quantile(drawn, [0.025, 0.975])
