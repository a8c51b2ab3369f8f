"""Question 9 of benchmark/results/README.md, whether collapse goes with return -> a table of docs/does-the-head-help.md.

The measures of collapse (docs/action-collapse.md), at a run's end, are 0 at collapse: a negative correlation with the return
says that the two go together. A cell is the runs of a task, an algorithm and an arm, which differ in their seeds; those of
fewer than eight are left out. So are runs whose policy does not use all actions at the end, as their measures are of fewer
vectors; of the bandits of question 1 hardly one would be left.
"""

import math

import pandas as pd
from scipy import stats

from benchmark.readme.second import AGAIN, runs
from benchmark.readme.tables import markdown
from benchmark.reporting.verdicts import LEVEL, corrected

MEASURES = {
    "self_duality": "distance of rows and mean activations",
    "means_equinorm": "equinorm of mean activations",
    "means_equiangularity": "equiangularity of mean activations",
    "means_maximal_angle": "maximal angle of mean activations",
    "within_variability": "within-action variability",
}
TASK = ["algorithm", "task"]
CELL = [*TASK, "arm"]
LEAST = 8  # runs of a cell that counts
LEAST_OF_KIND = 3  # of them that reach the threshold, and of those that miss it
LEAST_ARMS = 3  # that a correlation is over


def all_runs() -> pd.DataFrame:
    """The runs of question 3 that use all actions of their task at their end, with numbers as measures."""
    frame = pd.concat([runs(folder).assign(algorithm=name) for name, folder in AGAIN.items()])
    frame = frame.assign(**frame[[*MEASURES, "actions_seen"]].apply(pd.to_numeric))
    most = frame.groupby(TASK)["actions_seen"].transform("max")
    return frame[frame["actions_seen"] == most]


def correlation(values: pd.Series, returns: pd.Series) -> float:
    """Spearman's; NaN where one of them has no spread."""
    if values.nunique() < 2 or returns.nunique() < 2:
        return math.nan
    return stats.spearmanr(values, returns).statistic


def within_cells(frame: pd.DataFrame, measure: str) -> pd.Series:
    """By task and algorithm: the correlation over the seeds of a cell with their final returns, the mean of its cells."""
    found = {}
    for cell, members in frame.dropna(subset=measure).groupby(CELL):
        if len(members) >= LEAST:
            found[cell] = correlation(members[measure], members["final"])
    return mean_over_cells(found)


def across_arms(frame: pd.DataFrame, measure: str) -> pd.Series:
    """By task and algorithm: the correlation over its arms of their means, of all arms that have enough runs."""
    known = frame.dropna(subset=measure).groupby(CELL)[[measure, "final"]]
    means = known.mean()[known.size() >= LEAST]
    found = {}
    for task, arms in means.groupby(TASK):
        if len(arms) >= LEAST_ARMS:
            found[task] = correlation(arms[measure], arms["final"])
    return pd.Series(found, dtype=float).dropna()


def at_worse_ends(frame: pd.DataFrame, measure: str) -> pd.Series:
    """By task and algorithm, of cells with enough runs of both kinds: the probability that a run whose greedy return misses 1
    of the normalised score is farther from collapse than one that reaches it (Mann and Whitney's U, by the number of
    pairs), the mean of its cells."""
    found = {}
    for cell, members in frame.dropna(subset=[measure, "normalised_greedy"]).groupby(CELL):
        reaches = members["normalised_greedy"] >= 1
        worse = members.loc[~reaches, measure]
        better = members.loc[reaches, measure]
        if len(members) >= LEAST and min(len(worse), len(better)) >= LEAST_OF_KIND:
            found[cell] = stats.mannwhitneyu(worse, better).statistic / (len(worse) * len(better))
    return mean_over_cells(found)


def mean_over_cells(found: dict[tuple[str, str, str], float]) -> pd.Series:
    """By task and algorithm, of values by cell."""
    values = pd.Series(found, dtype=float).dropna()
    if values.empty:
        return values
    return values.rename_axis(CELL).groupby(level=TASK).mean()


def mean_interval(values: pd.Series) -> str:
    """The mean, its 95 % interval (Student's t over tasks and algorithms), and their number."""
    if len(values) < 3:
        return f"– ({len(values)})"
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}] ({len(values)})"


COLUMNS = {  # what is computed, and what it is if collapse and return have nothing to do with each other
    "correlation over seeds": (within_cells, 0),
    "correlation over arms": (across_arms, 0),
    "chance that the worse is farther": (at_worse_ends, 0.5),
}


def table() -> str:
    """Means with intervals. In bold are those that differ from chance by the t test, corrected by Benjamini and Hochberg over all
    cells."""
    frame = all_runs()
    cells = {}
    tests = {}
    for measure in MEASURES:
        for title, (of, by_chance) in COLUMNS.items():
            values = of(frame, measure)
            cells[measure, title] = mean_interval(values)
            tests[measure, title] = stats.ttest_1samp(values, by_chance).pvalue
    certain = dict(zip(tests, corrected([*tests.values()]) < LEVEL))
    rows = []
    for measure, name in MEASURES.items():
        row = [name]
        for title in COLUMNS:
            cell = cells[measure, title]
            row.append(f"**{cell}**" if certain[measure, title] else cell)
        rows.append(row)
    return markdown(["distance from collapse", *COLUMNS], rows)
