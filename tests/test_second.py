"""The second evidence: differences and gains by hand, and its headline figures from the CSV files by other means."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmark.readme import collapse_and_return, second
from benchmark.readme.forest import forest
from benchmark.reporting.thresholds import plain_id
from tests.test_evidence import interval

RESULTS = Path("benchmark/results")
TEXT = " ".join(Path("docs/does-the-head-help.md").read_text().split())


def frame(scores: dict[tuple[str, str], list[float]]) -> pd.DataFrame:
    """Runs of tasks and arms with these areas, of the seeds 1, 2, ..."""
    rows = []
    for (task, arm), areas in scores.items():
        head, _, value = arm.partition(",")
        for seed, area in enumerate(areas, start=1):
            row = {"task": task, "arm": head, "value": value, "seed": seed}
            rows.append(row | {second.AREA: area})
    return pd.DataFrame(rows)


def test_differences_are_means_over_tasks_paired_by_seed():
    made = frame(
        {
            ("A", "linear"): [0.0, 0.0, 0.0],
            ("A", "etf"): [1.0, 2.0, 3.0],
            ("B", "linear"): [5.0, 6.0, 7.0],
            ("B", "etf"): [5.0, 6.0, 8.0],
        }
    )
    pairs = [("etf", "linear"), ("random", "linear")]  # of which one is not there
    (row,) = second.differences([("part", made)], pairs, second.AREA).to_dict("records")
    gains = np.array([0.5, 1.0, 2.0])
    assert row["panel"] == ("etf", "linear") and row["difference"] == pytest.approx(gains.mean())
    assert row["p"] == pytest.approx(stats.ttest_1samp(gains, 0).pvalue)
    with pytest.raises(ValueError, match="not known of all seeds"):
        second.differences([("part", made.iloc[1:])], pairs, second.AREA)


def test_gains_and_what_a_value_changes_about_them():
    made = frame(
        {
            ("A", "linear,1"): [0.0, 1.0, 2.0],
            ("A", "matched,1"): [1.0, 1.0, 1.0],
            ("A", "etf,1"): [2.0, 4.0, 3.0],
            ("A", "linear,2"): [1.0, 0.0, 0.5],
            ("A", "matched,2"): [0.0, 0.0, 0.0],
            ("A", "etf,2"): [1.5, 1.0, 1.0],
        }
    )
    found = second.gains(made, ("1", "2"), second.AREA).to_dict("records")
    table = {(row["name"], row["panel"], row["what"]): row for row in found}
    pair = ("etf", "linear")
    first, other = np.array([2.0, 3.0, 1.0]), np.array([0.5, 1.0, 0.5])
    assert table["1", pair, "gain"]["difference"] == pytest.approx(first.mean())
    assert table["2", pair, "gain"]["difference"] == pytest.approx(other.mean())
    change = table["2", pair, "change"]
    assert change["difference"] == pytest.approx((other - first).mean())
    assert change["p"] == pytest.approx(stats.ttest_rel(other, first).pvalue)
    assert ("1", pair, "change") not in table
    assert "+2.000" in second.gains_table(made, ("1", "2"), "value").splitlines()[2]


def test_the_picture_shows_each_row_in_its_panel(tmp_path):
    rows = [
        {
            "panel": "a",
            "name": "x",
            "difference": 1.0,
            "low": 0.5,
            "high": 2.0,
            "verdict": "better",
        },
        {
            "panel": "b",
            "name": "y",
            "difference": -1.0,
            "low": -2.0,
            "high": 0.0,
            "verdict": "worse",
        },
    ]
    forest(pd.DataFrame(rows), {"a": "A", "b": "B"}, "difference", tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_collapse_and_return_by_hand():
    """Two cells of one task. In the first the measure falls as the return rises, in the second it has no spread."""
    rows = []
    for arm, offset in (("linear", 0), ("etf", 10)):
        for seed in range(4):
            run = {"folder": "f", "task": "t", "arm": arm, "final": offset + seed}
            measure = 4.0 - seed if arm == "linear" else 1.0
            run |= {"self_duality": measure, "normalised_greedy": 1.0 if seed > 1 else 0.5}
            rows.append(run)
    made = pd.DataFrame(rows)
    within = collapse_and_return.within_cells(made, "self_duality")
    assert sorted(within, key=np.isnan)[0] == pytest.approx(-1) and np.isnan(within).sum() == 1
    (across,) = collapse_and_return.across_arms(made, "self_duality")
    assert np.isnan(across)  # two arms tell nothing
    assert collapse_and_return.at_worse_ends(made, "self_duality") == pytest.approx([0.5, 1.0])
    assert collapse_and_return.mean_interval([0.5, 1.0, float("nan")]).endswith("(2)")
    low, high = stats.t.interval(0.95, 1, loc=0.75, scale=0.25)
    said = collapse_and_return.mean_interval([0.5, 1.0])
    assert said == f"+0.75 [{low:+.2f}, {high:+.2f}] (2)"


# Headline figures, from the CSV files with csv, numpy and scipy
def random_return(task: str) -> float:
    """Of the random policy, exactly for the bandits: 10 steps, K actions."""
    if "Actions" in task:
        K = 50 if "50" in task else 18
        ring = np.minimum(np.arange(K), K - np.arange(K))
        pays = {"Many": 1 / K, "Paired": 2 / K, "Ordered": np.mean(1 - 2 * ring / K)}
        return 10 * pays[task.partition("Actions")[0]]
    known = {"CartPole-v1": 22.2, "Acrobot-v1": -499.1, "FrozenLake-v1": 0.012}
    return known.get(task, -10.66)


BEST = {"CartPole-v1": 475, "Acrobot-v1": -100, "FrozenLake-v1": 0.7, "IdealCliffWalking-v0": -1}


def scores(folder: str, column: str, arm: str, **wanted: str) -> dict[int, float]:
    """By seed: the mean over tasks of the arm's normalised column."""
    cells = defaultdict(dict)
    with open(RESULTS / folder / "runs.csv") as file:
        for row in csv.DictReader(file):
            if row["arm"] == arm and all(row[key] == value for key, value in wanted.items()):
                task = plain_id(row["env_id"])
                zero, one = random_return(task), BEST.get(task, 10)
                cells[int(row["seed"])][task] = (float(row[column]) - zero) / (one - zero)
    assert len({frozenset(tasks) for tasks in cells.values()}) == 1
    return {seed: np.mean([*tasks.values()]) for seed, tasks in cells.items()}


def difference(folder: str, column: str, arm: str, baseline: str, **wanted: str) -> np.ndarray:
    ours, theirs = (scores(folder, column, name, **wanted) for name in (arm, baseline))
    assert sorted(ours) == sorted(theirs) == [*range(1001, 1021)]
    return np.array([ours[seed] - theirs[seed] for seed in sorted(ours)])


@pytest.mark.parametrize("column", ["area", "greedy"])
@pytest.mark.parametrize(
    ("folder", "arm", "baseline"),
    [
        ("many_actions_18", "etf", "linear"),
        ("many_actions_18", "etf", "etf-trainable"),
        ("many_actions_18", "linear:2.06", "linear"),
        ("many_actions_50", "etf", "linear"),
        ("many_actions_50", "etf", "linear:2.02"),
        ("many_actions_18_long", "etf", "linear"),
        ("many_actions_18_long", "etf", "etf-trainable"),
        ("again_ppo", "etf", "linear"),
        ("again_ppo", "etf", "matched"),
        ("again_a2c", "etf", "linear"),
        ("again_a2c", "etf", "matched"),
    ],
)
def test_headline_figures_are_those_of_the_runs(folder, column, arm, baseline):
    assert interval(difference(folder, column, arm, baseline)) in TEXT
