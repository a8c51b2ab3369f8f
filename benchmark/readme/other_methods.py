"""Question 10 of benchmark/results/README.md, where other methods stand -> tables of docs/does-the-head-help.md.

DQN and discrete SAC beside question 3's algorithms. Means over seeds with 95 % intervals, in units of the tasks' returns; there are
no verdicts, as nothing was tuned for these tasks.
"""

import pandas as pd
from scipy import stats

from benchmark.readme.second import AGAIN, AREA, GREEDY, HEADS, MEASURES, NAMES, runs
from benchmark.readme.tables import markdown

METHODS = {"dqn": "DQN", "sac": "discrete SAC"}
DIGITS = {  # of returns, by task
    "CartPole-v1": 0,
    "Acrobot-v1": 0,
    "FrozenLake-v1": 2,
    "IdealCliffWalking-v0": 2,
}
TITLES = {"area": MEASURES[AREA], "greedy": MEASURES[GREEDY]}


def mean_interval(values: pd.Series, digits: int) -> str:
    """The mean and its 95 % interval, Student's t over seeds; of equal values just that."""
    mean = f"{values.mean():.{digits}f}"
    if values.nunique() == 1:
        return mean
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    return f"{mean} [{low:.{digits}f}, {high:.{digits}f}]"


def programs() -> dict[str, pd.DataFrame]:
    """Runs by title: of both methods, and of question 3's algorithms with the heads of questions 4 to 6."""
    others = runs("off_policy")
    found = {title: others[others["arm"] == arm] for arm, title in METHODS.items()}
    for algorithm, folder in AGAIN.items():
        frame = runs(folder)
        for head in HEADS:
            found[f"{algorithm}, {NAMES[head]}"] = frame[frame["arm"] == head]
    return found


def table(measure: str) -> str:
    """`area` or `greedy`: a row for each program, a column for each task."""
    rows = []
    for title, frame in programs().items():
        values = frame.groupby("task")[measure]
        cells = [mean_interval(values.get_group(task), digits) for task, digits in DIGITS.items()]
        rows.append([title, str(frame["seed"].nunique()), *cells])
    return markdown([TITLES[measure], "seeds", *DIGITS], rows)
