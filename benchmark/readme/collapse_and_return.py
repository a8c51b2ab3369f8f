"""Question 9 of benchmark/results/README.md, whether collapse goes with return -> a table of docs/does-the-head-help.md.

The measures of collapse (docs/action-collapse.md), at a run's end, are 0 at collapse: a negative correlation with the return
says that the two go together. A cell is the runs of a task, an algorithm and an arm, which differ in their seeds.
"""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

from benchmark.readme.second import runs
from benchmark.readme.tables import markdown

MEASURES = {
    "self_duality": "distance of rows and mean activations",
    "means_equinorm": "equinorm of mean activations",
    "means_equiangularity": "equiangularity of mean activations",
    "means_maximal_angle": "maximal angle of mean activations",
    "within_variability": "within-action variability",
}
FOLDERS = ("again_ppo", "again_a2c", "many_actions_18", "many_actions_18_long", "many_actions_50")
CELL = ["folder", "task", "arm"]


def all_runs(folders: Iterable[str] = FOLDERS) -> pd.DataFrame:
    frame = pd.concat([runs(folder).assign(folder=folder) for folder in folders])
    return frame.assign(**frame[[*MEASURES]].apply(pd.to_numeric))


def correlation(values: pd.Series, returns: pd.Series) -> float:
    """Spearman's, of those that both have; NaN where one of them has no spread."""
    both = pd.DataFrame({"values": values, "returns": returns}).dropna()
    if len(both) < 3 or (both.nunique() < 2).any():
        return math.nan
    return stats.spearmanr(both["values"], both["returns"]).statistic


def within_cells(frame: pd.DataFrame, measure: str) -> list[float]:
    """The correlations over the seeds of each cell with their final returns."""
    return [correlation(cell[measure], cell["final"]) for _, cell in frame.groupby(CELL)]


def across_arms(frame: pd.DataFrame, measure: str) -> list[float]:
    """The same on each task over the means of its arms."""
    means = frame.groupby(CELL)[[measure, "final"]].mean()
    return [
        correlation(task[measure], task["final"]) for _, task in means.groupby(["folder", "task"])
    ]


def at_worse_ends(frame: pd.DataFrame, measure: str) -> list[float]:
    """For each cell that has both: the probability that a run whose greedy return misses 1 of the normalised score is farther
    from collapse than one that reaches it (Mann and Whitney's U, by the number of pairs)."""
    chances = []
    for _, cell in frame.dropna(subset=[measure, "normalised_greedy"]).groupby(CELL):
        reaches = cell["normalised_greedy"] >= 1
        worse = cell.loc[~reaches, measure]
        better = cell.loc[reaches, measure]
        if len(worse) and len(better):
            pairs = len(worse) * len(better)
            chances.append(stats.mannwhitneyu(worse, better).statistic / pairs)
    return chances


def mean_interval(values: list[float]) -> str:
    """The mean, its 95 % interval (Student's t over cells or tasks), and how many there are."""
    known = np.array(values)[~np.isnan(values)]
    if len(known) < 2:
        return f"– ({len(known)})"
    margin = stats.t.ppf(0.975, len(known) - 1) * stats.sem(known)
    return f"{known.mean():+.2f} [{known.mean() - margin:+.2f}, {known.mean() + margin:+.2f}] ({len(known)})"


def table() -> str:
    frame = all_runs()
    rows = []
    for measure, name in MEASURES.items():
        found = (of(frame, measure) for of in (within_cells, across_arms, at_worse_ends))
        rows.append([name, *map(mean_interval, found)])
    columns = ["correlation within cells", "correlation across arms", "chance of worse ends"]
    return markdown(["distance from collapse", *columns], rows)
