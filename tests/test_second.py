"""The second evidence: differences and gains by hand, and its headline figures from the CSV files by other means."""

import csv
import itertools
import math
import re
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmark.readme import collapse_and_return, other_methods, second, tuned
from benchmark.readme.forest import forest
from benchmark.reporting.thresholds import plain_id
from tests.test_evidence import interval

RESULTS = Path("benchmark/results")
PAGE = Path("docs/does-the-head-help.md")


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
            ("A", "linear"): [0.0, 1.0, 4.0],
            ("A", "etf"): [1.0, 3.0, 7.0],
            ("B", "linear"): [5.0, 6.0, 7.0],
            ("B", "etf"): [5.0, 6.0, 8.0],
        }
    ).sample(frac=1, random_state=1)
    pairs = [("etf", "linear"), ("random", "linear")]  # of which one is not there
    (row,) = second.differences({"part": made}, pairs, second.AREA).to_dict("records")
    gains = np.array([0.5, 1.0, 2.0])
    assert row["panel"] == ("etf", "linear") and row["difference"] == pytest.approx(gains.mean())
    assert row["p"] == pytest.approx(stats.ttest_1samp(gains, 0).pvalue)
    incomplete = made[(made["task"] != "A") | (made["arm"] != "etf") | (made["seed"] != 1)]
    with pytest.raises(ValueError, match="not known of all seeds"):
        second.differences({"part": incomplete}, pairs, second.AREA)


def test_all_parts_are_corrected_together():
    """Of four parts the one that is sure is better; one with p just below 0.05 is not, among four."""
    noise = np.array([-1.0, 1.0, -1.0, 1.0, 0.0])
    shifts = {"sure": 9.0, "edge": 1.3, "none": 0.1, "other": -0.1}
    parts = {}
    for name, shift in shifts.items():
        arms = {("A", "linear"): [0.0] * 5, ("A", "etf"): [*(noise + shift)]}
        parts[name] = frame(arms)
    rows = second.differences(parts, [("etf", "linear")], second.AREA).set_index("name")
    assert 0.025 < rows.loc["edge", "p"] < 0.05 < rows.loc["edge", "corrected"]
    words = ["better", *["not distinguishable"] * 3]
    assert rows["verdict"].tolist() == words
    alone = second.differences({"edge": parts["edge"]}, [("etf", "linear")], second.AREA)
    assert alone["verdict"].tolist() == ["better"]


def test_gains_and_what_a_value_changes_about_them():
    """Means over two tasks, of which B adds 1 to all gains of the ETF."""
    scores = {
        "linear,1": [0.0, 1.0, 2.0],
        "matched,1": [1.0, 1.0, 1.0],
        "etf,1": [2.0, 4.0, 3.0],
        "linear,2": [1.0, 0.0, 0.5],
        "matched,2": [0.0, 0.0, 0.0],
        "etf,2": [1.5, 1.0, 1.0],
    }
    made = {("A", arm): areas for arm, areas in scores.items()}
    for arm, areas in scores.items():
        made["B", arm] = [area + 2 * arm.startswith("etf") for area in areas]
    found = second.gains({"ppo": (frame(made), ("1", "2"))}, second.AREA, second.GAINS)
    assert len(found) == 9
    table = found[found["panel"] == ("etf", "linear")].set_index("name")
    first, other = np.array([3.0, 4.0, 2.0]), np.array([1.5, 2.0, 1.5])
    gains = {"ppo, 1": first, "ppo, 2": other, "ppo, change to 2": other - first}
    assert [*table.index] == [*gains]
    for name, gain in gains.items():
        assert table.loc[name, "difference"] == pytest.approx(gain.mean())
        assert table.loc[name, "p"] == pytest.approx(stats.ttest_1samp(gain, 0).pvalue)


def test_what_a_value_changes_about_an_arm():
    made = frame(
        {
            ("A", "etf,1"): [0.0, 1.0, 2.0],
            ("B", "etf,1"): [4.0, 4.0, 4.0],
            ("A", "etf,2"): [1.0, 2.0, 4.0],
            ("B", "etf,2"): [4.0, 5.0, 4.0],
        }
    )
    parts = {"ppo": (made, ("1", "2"))}
    (row,) = second.changes(parts, second.AREA, ["etf"]).to_dict("records")
    changed = np.array([0.5, 1.0, 1.0])
    assert (row["name"], row["panel"]) == ("ppo, 2 less 1", "etf")
    assert row["difference"] == pytest.approx(changed.mean())
    assert row["p"] == pytest.approx(stats.ttest_1samp(changed, 0).pvalue)
    found = second.changes(second.each_task(parts), second.AREA, ["etf"]).set_index("name")
    middles = {"ppo, A, 2 less 1": 4 / 3, "ppo, B, 2 less 1": 1 / 3}
    assert found["difference"].to_dict() == pytest.approx(middles)


def test_gains_of_different_seeds_are_not_compared():
    made = {
        ("A", f"{arm},{value}"): [0.0, 1.0]
        for arm in ("linear", "matched", "etf")
        for value in "12"
    }
    fewer = frame(made).query("value == '1' or seed == 1")
    with pytest.raises(ValueError, match="ppo: values have different seeds"):
        second.gains({"ppo": (fewer, ("1", "2"))}, second.AREA, second.GAINS)


def test_a_task_that_was_not_tuned_for_is_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        tuned.main(tuned.Args(env_id="Nobody-v0"))
    line = "error: --env-id Nobody-v0: benchmark/results/tuning has no runs of it\n"
    assert (stopped.value.code, capsys.readouterr().err) == (2, line)


def test_runs_are_set_side_by_side_as_far_as_the_last_ones_go():
    default = frame({("A", "linear"): [1.0], ("A", "random"): [2.0], ("B", "linear"): [3.0]})
    frames = {"default": default, "tuned": frame({("A", "linear"): [4.0]})}
    both, values = second.side_by_side(frames)
    assert values == ("default", "tuned")
    assert [*zip(both["value"], both[second.AREA])] == [("default", 1.0), ("tuned", 4.0)]


def test_the_winner_is_the_setting_with_the_largest_mean_that_all_seeds_finished(monkeypatch):
    areas = {"1,2": [1.0, 9.0], "2,2": [4.0, 5.0], "1,4": [5.0, 5.0], "2,4": [99.0]}
    made = frame({("A", f"etf,{value}"): scores for value, scores in areas.items()})
    others = {("A", f"{head},1,1"): [0.0, 0.0] for head in ("linear", "etf-trainable")}
    made = pd.concat([made, frame(others | {("B", "etf,7,7"): [9.0, 9.0]})])
    monkeypatch.setattr(tuned, "runs", {"tuning": made.assign(area=made[second.AREA])}.get)
    winners = {"linear": "1,1", "etf": "1,2", "etf-trainable": "1,1"}  # the first of two equals
    assert tuned.winners("A") == winners and [*tuned.winners("A")] == [*winners]


def test_cells_say_difference_interval_and_verdict():
    row = {"difference": -0.1234, "low": -0.2, "high": -0.05, "verdict": "worse"}
    assert second.cell(row) == "-0.123 [-0.200, -0.050] **worse**"
    same = {"difference": 0.0, "low": math.nan, "high": math.nan}
    assert second.cell(same | {"verdict": "not distinguishable"}) == "+0.000 open"


def test_arms_of_a_folder():
    assert {*second.runs("many_actions_50")["arm"]} == {
        "linear",
        "matched",
        "etf",
        "etf-trainable",
        "random",
    }
    assert second.runs("near_k_lake")["task"].unique().tolist() == ["FrozenLake-v1"]


def test_the_picture_shows_each_row_in_its_panel(tmp_path, monkeypatch):
    row = {"difference": 1.0, "low": 0.5, "high": 2.0, "verdict": "better"}
    rows = [row | {"panel": "a", "name": "x"}, row | {"panel": "b", "name": "y"}]
    rows += [row | {"panel": "c", "name": "z"}]  # which has no title
    drawn = []
    monkeypatch.setattr(
        "benchmark.readme.forest.png", lambda figure, dpi: drawn.append(figure) or b""
    )
    forest(pd.DataFrame(rows), {"a": "A", "b": "B"}, "difference", tmp_path / "out.png")
    places = {}
    for axis in drawn[0].axes:
        marks = [line for line in axis.lines if line.get_marker() == "o"]
        places[axis.get_title()] = [(*mark.get_xdata(), *mark.get_ydata()) for mark in marks]
    assert places == {"A": [(1.0, 0)], "B": [(1.0, 1)]}
    names = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert names == ["x", "y"]


# Question 9
def ends(arm: str, measures: list[float], finals: list[float], solved: int) -> list[dict]:
    """Runs of a cell, the last `solved` of which reach 1 of the normalised score."""
    rows = []
    for seed, (measure, final) in enumerate(zip(measures, finals, strict=True)):
        row = {"algorithm": "f", "task": "t", "arm": arm, "self_duality": measure, "final": final}
        greedy = 1.0 if seed >= len(finals) - solved else 0.5
        rows.append(row | {"normalised_greedy": greedy})
    return rows


def test_collapse_and_return_by_hand():
    """Over seeds the measure falls with the return; over arms it rises; and the worse are farther, all of them."""
    up = [*map(float, range(8))]
    rows = ends("linear", [8.0 - x for x in up], up, 4)
    rows += ends("etf", [18.0 - x for x in up], [10 + x for x in up], 2)  # too few are solved
    rows += ends("random", [28.0 - x for x in up], [20 + x for x in up], 0)
    rows += ends("few", [1.0], [99.0], 0)
    made = pd.DataFrame(rows)
    within = collapse_and_return.within_cells(made, "self_duality")
    assert within.to_dict() == {("f", "t"): pytest.approx(-1)}
    across = collapse_and_return.across_arms(made, "self_duality")
    assert across.tolist() == [pytest.approx(1)]
    assert collapse_and_return.at_worse_ends(made, "self_duality").tolist() == [1.0]
    assert np.isnan(collapse_and_return.correlation(made["final"], 0 * made["final"]))


def test_intervals_over_tasks():
    values = pd.Series([0.5, 1.0, 0.75])
    margin = stats.t.ppf(0.975, 2) * values.std() / math.sqrt(3)
    said = f"0.75 [{0.75 - margin:.2f}, {0.75 + margin:.2f}] (3)"
    assert collapse_and_return.mean_interval(values) == said
    assert collapse_and_return.mean_interval(values[:2]) == "– (2)"


# Question 10
def test_intervals_over_seeds():
    values = pd.Series([-1.0, 2.0, 5.0])
    margin = stats.t.ppf(0.975, 2) * 3 / math.sqrt(3)
    said = f"2.0 [{2 - margin:.1f}, {2 + margin:.1f}]"
    assert other_methods.mean_interval(values, 1) == said
    assert other_methods.mean_interval(pd.Series([0.5, 0.5]), 2) == "0.50"


# Headline figures, from the CSV files with csv, numpy and scipy
def random_return(task: str) -> float:
    """Of the random policy, exactly for the bandits: 10 steps, K actions."""
    if "Actions" in task:
        K = 50 if "50" in task else 18
        ring = np.minimum(np.arange(K), K - np.arange(K))
        pays = {"Many": 1 / K, "Paired": 2 / K, "Ordered": np.mean(1 - 2 * ring / K)}
        return 10 * pays[task.partition("Actions")[0]]
    known = {"CartPole-v1": 22.2, "Acrobot-v1": -499.1, "FrozenLake-v1": 0.012}
    known |= {"LunarLander-v3": -181.7, "IdealCliffWalking-v0": -10.66, "MountainCar-v0": -200}
    known |= {"FrozenLake8x8-v1": 0.00215, "CliffWalking200-v1": -2093, "Taxi-v4": -776}
    return known[task]


BEST = {"CartPole-v1": 475, "Acrobot-v1": -100, "FrozenLake-v1": 0.7, "IdealCliffWalking-v0": -1}
BEST |= {"LunarLander-v3": 200, "MountainCar-v0": -110, "Taxi-v4": 8}
BEST |= {"FrozenLake8x8-v1": 0.85, "CliffWalking200-v1": -13}


def rows_of(folder: str) -> list[dict[str, str]]:
    """Of question 8 those of both its folders."""
    rows = []
    for name in {"field": ("field", "field_more")}.get(folder, (folder,)):
        with open(RESULTS / name / "runs.csv") as file:
            rows += csv.DictReader(file)
    return rows


def scores(folder: str, column: str, arm: str, **wanted: str) -> dict[int, float]:
    """By seed: the mean over tasks of the arm's normalised column."""
    cells = defaultdict(dict)
    for row in rows_of(folder):
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


def table_cells(first: str) -> dict[tuple[str, str], str]:
    """By row's and column's title: the cells of the page's table whose second column has this title."""
    lines = PAGE.read_text().splitlines()
    start = next(k for k, line in enumerate(lines) if line.split(" | ")[1:2] == [first])
    columns = lines[start].strip("| ").split(" | ")
    cells = {}
    for line in itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :]):
        name, *row = line.strip("| ").split(" | ")
        cells |= {(name, column): text for column, text in zip(columns[-len(row) :], row)}
    return cells


MATCHED = {"many_actions_18": "linear:2.06", "many_actions_50": "linear:2.02"}
MATCHED |= {"many_actions_18_long": "linear:2.06"}


@pytest.mark.parametrize(
    ("column", "kind"), [("area", "sampled area"), ("greedy", "greedy return")]
)
@pytest.mark.parametrize(("title", "folder"), [*second.MANY.items(), *second.AGAIN.items()])
def test_headline_figures_are_those_of_the_runs(title, folder, column, kind):
    kinds = kind if title in second.AGAIN else "sampled area"  # in the table's first column
    first = f"{next(iter(second.MANY if title in second.MANY else second.AGAIN))}, {kinds}"
    cells = table_cells(first)
    for arm, baseline in second.PAIRS:
        names = [
            MATCHED.get(folder, name) if name == "matched" else name for name in (arm, baseline)
        ]
        row = f"{second.NAMES[arm]} against {second.NAMES[baseline]}"
        said = cells[row, f"{title}, {kind}"]
        assert said.startswith(interval(difference(folder, column, *names))), row


@pytest.mark.parametrize("column", ["area", "greedy"])
@pytest.mark.parametrize("width", [17, 64])
def test_headline_figures_of_few_dimensions(column, width):
    found = difference("near_k_many", column, "etf", "random", feature_dim=str(width))
    said = f"| ManyActions18, d = {width} | {interval(found)}"
    assert said in PAGE.read_text()


ACROBOT, LANDER = (f"benchmark.envs:envpool/{name}" for name in ("Acrobot-v1", "LunarLander-v3"))
CARTPOLE, LAKE = "CartPole-v1", "FrozenLake-v1"
CLIFF = "benchmark.envs:IdealCliffWalking-v0"
NUMBER = r"[-+]\d+\.\d+"
MOUNTAIN_CAR = "benchmark.envs:envpool/MountainCar-v0"
SMALL, MORE = "Sampled or greedy, on the four small tasks?", "More tasks"  # sections of the page
LAST, EXPLORATION = "Does it last?", "Does it need exploration?"
TUNED = "And where both are tuned?"


@pytest.mark.parametrize(("kind", "column"), [(0, "area"), (1, "greedy")])
@pytest.mark.parametrize(
    ("section", "name", "place", "folder", "pair", "task"),
    [
        (LAST, "PPO, Acrobot-v1, 500k", 1, "longer_ppo", ("etf", "linear"), ACROBOT),
        (LAST, "A2C, CartPole-v1, 500k", 2, "longer_a2c", ("matched", "linear"), CARTPOLE),
        (LAST, "TRPO, Acrobot-v1, 500k", 1, "longer_trpo", ("etf", "linear"), ACROBOT),
        (LAST, "REINFORCE, CartPole-v1, 500k", 1, "longer_reinforce", ("etf", "linear"), CARTPOLE),
        (LAST, "A2C, Acrobot-v1, 500k", 3, "longer_a2c", ("etf", "matched"), ACROBOT),
        (EXPLORATION, "FrozenLake-v1, 0.1", 1, "epsilon", ("etf,0.1", "linear,0.1"), LAKE),
        (EXPLORATION, "FrozenLake-v1, 0", 2, "epsilon", ("matched,0", "linear,0"), LAKE),
        (TUNED, "all, tuned", 1, "tuned", ("etf", "linear"), None),
        (TUNED, "LunarLander-v3, tuned", 1, "tuned", ("etf", "linear"), LANDER),
        (TUNED, "LunarLander-v3, default", 1, "field", ("etf", "linear"), LANDER),
        (MORE, "PPO, LunarLander-v3", 3, "field", ("etf", "matched"), LANDER),
        (MORE, "PPO, all", 2, "field", ("etf", "linear"), None),
        (MORE, "PPO, all", 1, "field", ("matched", "linear"), None),
        (SMALL, "PPO, all", 1, "again_ppo", ("matched", "linear"), None),
        (SMALL, "REINFORCE, CartPole-v1", 5, "again_reinforce", ("etf", "random"), CARTPOLE),
        (SMALL, "REINFORCE, all", 2, "again_reinforce", ("etf", "linear"), None),
    ],
)
def test_rows_of_tables_of_gains(section, name, place, folder, pair, task, kind, column):
    """A section has the areas' table before that of the greedy returns."""
    wanted = {"env_id": task} if task else {}
    (lines,) = (
        part.splitlines()
        for part in PAGE.read_text().split("\n## ")
        if part.startswith(section + "\n")
    )
    rows = [line for line in lines if line.startswith(f"| {name} | ")]
    found = interval(difference(folder, column, *pair, **wanted))
    assert rows[kind].split(" | ")[place].startswith(found)


@pytest.mark.parametrize(("arm", "column"), [("etf", 1), ("matched", 2)])
@pytest.mark.parametrize(
    ("name", "folder", "value", "default"),
    [
        ("A2C", "optimizer_a2c", "1e-5", "3.16e-3"),
        ("TRPO", "optimizer_trpo", "0.01", "0.1"),
    ],
)
def test_headline_figures_of_the_optimizer(name, folder, value, default, arm, column):
    """What a smaller epsilon of RMSprop, or damping, changes about the gain on the learned head."""
    gains = (
        difference(folder, "area", f"{arm},{which}", f"linear,{which}")
        for which in (value, default)
    )
    changed = np.subtract(*gains)
    lines = PAGE.read_text().splitlines()
    rows = [line for line in lines if line.startswith(f"| {name}, change to {value} | ")]
    areas = rows[0]  # before the greedy returns
    assert areas.split(" | ")[column].startswith(interval(changed))


@pytest.mark.parametrize("column", ["area", "greedy"])
@pytest.mark.parametrize(("arm", "place"), [("etf", 1), ("matched", 2)])
def test_headline_figures_of_clipping_apart(arm, place, column):
    """What it changes about the gain on the learned head."""
    apart = difference("clipped_apart", column, arm, "linear")
    default = difference("optimizer_ppo", column, f"{arm},1e-5", "linear,1e-5")
    lines = PAGE.read_text().splitlines()
    rows = [line for line in lines if line.startswith("| PPO, change to clipped apart | ")]
    row = rows[column == "greedy"]
    assert row.split(" | ")[place].startswith(interval(apart - default))


def change(first: tuple[str, str], other: tuple[str, str], **wanted: str) -> str:
    """Mean and interval of the scores of (folder, arm) `first` less those of `other`."""
    ours, theirs = (scores(folder, "area", arm, **wanted) for folder, arm in (first, other))
    assert sorted(ours) == sorted(theirs) == [*range(1001, 1021)]
    return interval(np.array([ours[seed] - theirs[seed] for seed in sorted(ours)]))


@pytest.mark.parametrize("title", second.AGAIN)
def test_the_smallest_difference_that_the_seeds_show(title):
    """By simulation, at what the table says of areas and greedy returns: found in 80 % of experiments."""
    text = (RESULTS / "README.md").read_text()
    (row,) = re.findall(rf"\| {title} \| (\d.*) \|", text)
    cells = [float(cell) for cell in row.split(" | ")]
    rng = np.random.default_rng(1)
    for column, least in (("area", cells[1]), ("greedy", cells[3])):
        spread = difference(second.AGAIN[title], column, "etf", "linear").std(ddof=1)
        found = stats.ttest_1samp(rng.normal(least, spread, (20_000, 20)), 0, axis=1)
        assert np.mean(found.pvalue < 0.05) == pytest.approx(0.8, abs=0.015)


def test_rows_of_tables_of_changes():
    text = PAGE.read_text()
    arms = (("optimizer_a2c", f"matched,{value}") for value in ("1e-5", "3.16e-3"))
    found = change(*arms, env_id=ACROBOT)
    (row,) = re.findall(r"\| A2C, Acrobot-v1, 1e-5 less 3.16e-3 \| (.*)", text)
    assert row.split(" | ")[1].startswith(found)
    found = change(("tuned", "etf"), ("field", "etf"), env_id=LANDER)
    (row,) = re.findall(r"\| LunarLander-v3, tuned less default \| (.*)", text)
    assert row.split(" | ")[1].startswith(found)
    parts = second.tuned()
    both, values = parts["all"]
    gained = {}
    leads = []
    for name, tasks in (
        ("three", both["task"].unique()),
        ("two", ["Acrobot-v1", "LunarLander-v3"]),
    ):
        part = both[both["task"].isin(tasks)], values
        found = second.changes({name: part}, second.AREA, second.TUNED_HEADS)["difference"]
        gained[name] = f"{found.min():.2f} to {found.max():.2f}"
        led = second.gains({name: part}, second.AREA, second.TUNED)
        leads += led.loc[~led["name"].str.contains("change"), "difference"].tolist()
    said = "{three} of the normalised score over the three tasks, and {two} over the first two, more than"
    assert said.format(**gained) in " ".join(text.split())
    most = max(map(abs, leads))
    assert f"more than the {most:.2f} by which one head leads another" in " ".join(text.split())


def test_runs_that_are_stuck():
    """On Acrobot, from the CSV files: the frozen ETF's of PPO, and REINFORCE's of three heads."""
    lines = PAGE.read_text().splitlines()
    for title, folder in (("PPO", "again_ppo"), ("PPO, 40 further seeds", "singles_more")):
        rows = [row for row in rows_of(folder) if "Acrobot" in row["env_id"]]
        finals = [float(row["final"]) for row in rows if row["arm"] == "etf"]
        said = f"{sum(final < -400 for final in finals)} of {len(finals)}"
        cells = [line.split(" | ") for line in lines if line.startswith(f"| {title} | ")]
        assert said in [row[3] for row in cells]
    ends = {}
    for arm in ("etf", "linear", "matched"):
        for folder in ("longer_reinforce", "again_reinforce"):
            rows = [row for row in rows_of(folder) if row["env_id"] == ACROBOT]
            finals = [float(row["final"]) for row in rows if row["arm"] == arm]
            ends[arm, folder] = sum(final < -400 for final in finals)
    said = "of REINFORCE's {}, where {} do (CleanRL's head {} instead of {}, the matched one {} instead"
    assert said.format(*ends.values()) in " ".join(" ".join(lines).split())


def test_single_runs_beside_seeds_of_one_process():
    """A row of the table in docs/speed.md, from the CSV files."""
    areas = {}
    for folder, script in (("singles", "ppo_acpg"), ("again_ppo", "ppo_acpg")):
        for row in rows_of(folder):
            kind = row["script"], plain_id(row["env_id"]), row["arm"]
            if kind == (script, "CartPole-v1", "linear"):
                areas.setdefault(folder, {})[int(row["seed"])] = float(row["area"])
    seeds = sorted(areas["singles"])
    alone, together = (np.array([areas[folder][seed] for seed in seeds]) for folder in areas)
    differences = together - alone
    margin = stats.t.ppf(0.975, 19) * differences.std(ddof=1) / math.sqrt(20)
    middle = differences.mean()
    percent = [100 * x / alone.mean() for x in (middle, middle - margin, middle + margin)]
    cells = [
        "`ppo_acpg`, CartPole-v1, learned head",
        "20 pairs",
        f"{alone.mean():.1f} ± {alone.std(ddof=1):.1f}",
        f"{together.mean():.1f} ± {together.std(ddof=1):.1f}",
        "{:+.1f} % [{:+.1f}, {:+.1f}]".format(*percent),
    ]
    assert f"| {' | '.join(cells)} |" in Path("docs/speed.md").read_text()


def mean_of(folder: str, column: str, **wanted: str) -> float:
    chosen = [
        row for row in rows_of(folder) if all(row[key] == value for key, value in wanted.items())
    ]
    return np.mean([float(row[column]) for row in chosen])


def rank_correlation(first: list[float], second: list[float]) -> float:
    """NaN where one has no spread."""
    if len({*first}) < 2 or len({*second}) < 2:
        return math.nan
    return np.corrcoef(stats.rankdata(first), stats.rankdata(second))[0, 1]


def cells_of_question_9() -> dict[tuple[str, str, str], list[dict[str, str]]]:
    """By algorithm, task and arm: the runs that use all actions of their task."""
    actions = {"CartPole-v1": 2, "Acrobot-v1": 3, "FrozenLake-v1": 4, "IdealCliffWalking-v0": 4}
    cells = defaultdict(list)
    for folder in second.AGAIN.values():
        for row in rows_of(folder):
            task = plain_id(row["env_id"])
            if int(row["actions_seen"]) == actions[task]:
                cells[folder, task, row["arm"]].append(row)
    return cells


def units_of_question_9(measure: str) -> list[dict[tuple[str, str], float]]:
    """By algorithm and task: correlation over seeds, correlation over arms, chance that the worse is farther."""
    seeds, arms, chances = (defaultdict(list) for _ in range(3))
    for (folder, task, _), rows in cells_of_question_9().items():
        rows = [row for row in rows if row[measure]]
        if len(rows) < 8:
            continue
        far = [float(row[measure]) for row in rows]
        finals = [float(row["final"]) for row in rows]
        seeds[folder, task].append(rank_correlation(far, finals))
        arms[folder, task].append((fmean(far), fmean(finals)))  # exact, so equal arms are tied
        reaches = [float(row["greedy"]) >= BEST[task] for row in rows]
        pairs = [
            (far[one] > far[other]) + (far[one] == far[other]) / 2
            for one, other in itertools.product(range(len(rows)), repeat=2)
            if reaches[other] and not reaches[one]
        ]
        if min(sum(reaches), len(rows) - sum(reaches)) >= 3:
            chances[folder, task].append(np.mean(pairs))
    over_arms = {
        unit: rank_correlation(*zip(*means)) for unit, means in arms.items() if len(means) >= 3
    }
    found = []
    for values in (seeds, over_arms, chances):
        means = {
            unit: np.nanmean(value) for unit, value in values.items() if not np.all(np.isnan(value))
        }
        found.append(means)
    return found


def test_whether_collapse_goes_with_return_from_the_csv_files():
    said = {}
    for line in PAGE.read_text().splitlines():
        name, *cells = line.strip("| ").split(" | ")
        if name in collapse_and_return.MEASURES.values() and len(cells) == 3:
            said[name] = cells
    wanted = {}
    p_values = {}
    for measure, name in collapse_and_return.MEASURES.items():
        for column, (units, by_chance) in enumerate(zip(units_of_question_9(measure), (0, 0, 0.5))):
            values = [*units.values()]
            margin = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
            middle = np.mean(values)
            limits = f"[{middle - margin:.2f}, {middle + margin:.2f}]"
            wanted[name, column] = f"{middle:.2f} {limits} ({len(values)})"
            p_values[name, column] = stats.ttest_1samp(values, by_chance).pvalue
    adjusted = stats.false_discovery_control([*p_values.values()])
    for (name, column), p in zip(wanted, adjusted):
        cell = wanted[name, column]
        assert said[name][column] == (f"**{cell}**" if p < 0.05 else cell)


def test_the_tuning_seeds_chose_what_won():
    areas = defaultdict(list)
    for row in rows_of("tuning"):
        head, _, setting = row["arm"].partition(",")
        areas[plain_id(row["env_id"]), head, setting].append(float(row["area"]))
    assert {len(seeds) for seeds in areas.values()} == {5} and len(areas) == 3 * 3 * 12
    lines = PAGE.read_text().splitlines()
    for task, head in {cell[:2] for cell in areas}:
        means = {
            cell[2]: np.mean(seeds) for cell, seeds in areas.items() if cell[:2] == (task, head)
        }
        best = max(means, key=means.get)
        rate, norm = best.split(",")
        start = f"| {task} | {second.NAMES[head]} | {rate} | "
        (cells,) = (line.split(" | ")[3:] for line in lines if line.startswith(start))
        norms = ["0.01", "0.5", "1", "2", "4"]
        assert cells[norms.index(norm)].strip(" |") == f"**{means[best]:.1f}**"
        default = {"linear": "0.01"}.get(head, "2")
        start = f"| {task} | {second.NAMES[head]} | 2.5e-4 | "
        (cells,) = (line.split(" | ")[3:] for line in lines if line.startswith(start))
        assert cells[norms.index(default)] == f"{means[f'2.5e-4,{default}']:.1f}"
        won = [
            row for row in rows_of("tuned") if (plain_id(row["env_id"]), row["arm"]) == (task, head)
        ]
        assert len(won) == 20 and {float(row["learning_rate"]) for row in won} == {float(rate)}
        flag = "head_std" if head == "linear" else "etf_scale"
        assert {float(row[flag]) for row in won} == {float(norm)}


def test_returns_in_the_section_on_tuning():
    text = " ".join(PAGE.read_text().split())
    default = {"env_id": LANDER, "arm": "linear"}
    greedy, final = (mean_of("field", column, **default) for column in ("greedy", "final"))
    assert f"at −{-greedy:.0f} on average where its sampled one ends at −{-final:.0f}" in text
    ours, theirs = (mean_of("tuned", "greedy", env_id=LANDER, arm=arm) for arm in ("linear", "etf"))
    assert f"Tuned the learned head reaches {ours:.0f}, the frozen ETF {theirs:.0f}" in text
    gains = [
        difference("tuned", "area", "etf", "linear", env_id=task)
        for task in (ACROBOT, LANDER, "Taxi-v4")
    ]
    low, high = bounds(np.mean(gains[:2], axis=0))
    limits = [math.ceil(-100 * low) / 100, math.ceil(100 * high) / 100]
    said = (
        "earns between {} less and {} more than the learned head while learning, over the first two"
    )
    assert said.format(*limits) in text
    low, high = bounds(np.mean(gains, axis=0))
    assert f"makes it −{-low:.3f} to +{high:.3f} over all three" in text
    assert "on the two tasks that are learned, from {} less to {} more".format(*limits) in text
    assert f"behind on LunarLander, {theirs:.0f} against {ours:.0f}." in text
    readme = " ".join(Path("README.md").read_text().split())
    assert f"with both tuned it ends higher, {ours:.0f} and not {theirs:.0f}" in readme
    ahead = difference("tuned", "greedy", "etf", "linear", env_id=ACROBOT).mean()
    behind = difference("tuned", "greedy", "linear", "etf", env_id=LANDER)
    said = f"Greedily it is {ahead:.2f} ahead on Acrobot and {behind.mean():.2f} behind on"
    assert f"{said} LunarLander, and both are open" in text
    starts = [mean_of("field", "greedy", env_id=LANDER, arm=arm) for arm in second.ARMS[1:]]
    assert f"start large end at −{-max(starts):.0f} to −{-min(starts):.0f}" in text
    change = difference("tuned", "area", "etf", "linear", env_id=ACROBOT)
    change = change - difference("again_ppo", "area", "etf", "linear", env_id=ACROBOT)
    assert f"tuning changed its gain on Acrobot by {change.mean():.2f}" in text


def test_verdicts_that_hang_on_taxi():
    """Corrected with its rows and without them."""
    text = " ".join(PAGE.read_text().split())
    parts = second.tuned()
    both, values = parts["all"]
    first = {task: part for task, part in parts.items() if task != "Taxi-v4"}
    first["all"] = both[both["task"] != "Taxi-v4"], values
    p_values = []
    for measure, name in ((second.GREEDY, "tuned"), (second.AREA, "default")):
        for chosen in (parts, first):
            found = second.gains(chosen, measure, second.TUNED)
            rows = found[found["name"] == f"LunarLander-v3, {name}"]
            p_values += rows.loc[rows["panel"] == ("etf", "linear"), "corrected"].tolist()
    behind = difference("tuned", "greedy", "etf", "linear", env_id=LANDER)
    p_values.insert(1, stats.ttest_1samp(behind, 0).pvalue)
    said = "open (p {:.3f}; {:.3f} uncorrected), and without them it is *worse* ({:.3f})."
    assert said.format(*p_values[:3]) in text and p_values[2] < 0.05 < p_values[0]
    said = "on LunarLander is *better* ({:.3f}), as in [More tasks](#more-tasks), and without them open ({:.3f})"
    assert said.format(*p_values[3:]) in text and p_values[3] < 0.05 < p_values[4]


def test_tuned_taxi():
    """Not learned, and decided all the same."""
    text = " ".join(PAGE.read_text().split())
    taxi = {"env_id": "Taxi-v4"}
    runs = [row for folder in ("tuning", "tuned") for row in rows_of(folder)]
    runs = [row for row in runs if taxi.items() <= row.items()]
    assert {float(row["greedy"]) for row in runs} == {-200}
    (delivers,) = (row for row in runs if float(row["best"]) > -199)
    assert len(runs) == 240 and delivers["arm"] == "etf-trainable"
    assert f"a trainable ETF that ends at −{-math.ceil(float(delivers['final']))}." in text
    default = difference("field", "area", "etf", "linear", **taxi)
    tuned_behind = difference("tuned", "area", "linear", "etf", **taxi)
    assert bounds(default)[0] > 0 and bounds(tuned_behind)[0] > 0
    said = f"ETF is {default.mean():.3f} ahead of CleanRL's head; tuned it is {tuned_behind.mean():.3f} behind"
    areas = [mean_of("tuned", "area", arm=arm, **taxi) for arm in ("etf", "linear")]
    assert said + " (areas of −{:.1f} and −{:.1f}).".format(*map(abs, areas)) in text
    assert f"it is behind by {tuned_behind.mean():.3f}, for certain." in text
    ends = {arm: mean_of("field", "final", arm=arm, **taxi) for arm in second.ARMS}
    assert {round(ends["linear"] - ends[arm]) for arm in ("etf", "random")} == {2}
    assert "at its end the frozen ones pay more, by 2 an episode" in text


def test_norms_on_taxi():
    """Of the frozen ETF at each learning rate, and of the learned head at the one that won."""
    chosen = defaultdict(list)
    for row in rows_of("tuning"):
        if row["env_id"] == "Taxi-v4":
            chosen[row["arm"]].append(float(row["area"]))
    for rate in ("2.5e-4", "8e-4", "2.5e-3"):
        means = {norm: np.mean(chosen[f"etf,{rate},{norm}"]) for norm in ("0.5", "1", "2", "4")}
        assert min(means, key=means.get) == "0.5"
    norms = [np.mean(chosen[f"linear,2.5e-3,{norm}"]) for norm in ("0.01", "0.5", "1", "2")]
    assert f"less than the {max(norms) - min(norms):.1f} by which the norms" in " ".join(
        PAGE.read_text().split()
    )


def test_hours_of_what_was_not_run():
    """By the speeds of MinAtar's committed runs: two at a time, 1M steps each."""
    speeds = defaultdict(list)
    for row in rows_of("minatar"):
        if float(row["epsilon"]) == 0:
            speeds[plain_id(row["env_id"])].append(float(row["steps_per_second"]))
    run = {game: 1e6 / np.mean(found) / 2 / 3600 for game, found in speeds.items()}
    breakout = run["MinAtar/Breakout-v1"]
    hours = [round(150 * breakout), round(240 * breakout), round(50 * sum(run.values()))]
    said = "of ours {} hours in question 6, {} in 7 and {} in 8".format(*hours)
    assert len(run) == 5 and said in " ".join(PAGE.read_text().split())


def test_numbers_in_the_section_on_more_tasks():
    text = " ".join(PAGE.read_text().split())
    etf, matched = (difference("field", "area", arm, "linear").mean() for arm in ("etf", "matched"))
    assert f"{etf:.2f}" == f"{matched:.2f}"
    best = max(float(row["greedy"]) for row in rows_of("field") if row["env_id"] == LANDER)
    assert (
        text.count(f"−{-best:.0f}") == 3 and f"of 100 runs the best ends at −{-best:.0f}," in text
    )
    for arm in ("etf", "matched"):
        ahead = difference("field", "greedy", arm, "linear", env_id=LANDER).mean()
        assert f"are both {ahead:.1f} ahead on LunarLander" in text
    taxi = {"env_id": "Taxi-v4"}
    sooner = [
        round(difference("field", "area", arm, "linear", **taxi).mean(), 2)
        for arm in second.ARMS[1:]
    ]
    assert f"large starts earn {min(sooner)} to {max(sooner)} more than CleanRL's head" in text
    (row, _) = re.findall(r"\| PPO, Taxi-v4 \| (.*)", PAGE.read_text())  # areas, greedy returns
    behind = interval(difference("field", "area", "etf", "matched", **taxi))
    assert row.split(" | ")[2] == f"{behind} **worse**"
    for arm in second.ARMS:
        assert mean_of("field", "greedy", arm=arm, **taxi) == -200
        assert mean_of("field", "area", arm=arm, env_id=MOUNTAIN_CAR) == -200
    gains = "PPO gains from either large start, here for certain also from the frozen ETF"
    assert f"{gains}: by {etf:.2f} of the normalised score over five tasks." in text
    assert f"on [five more tasks](#more-tasks) PPO gains {etf:.2f} for certain, by three" in text
    apart = max(map(abs, bounds(difference("field", "area", "etf", "matched"))))
    most = math.ceil(100 * apart) / 100
    assert f"a difference above {most:.2f} is excluded, either way" in text
    assert f"and with PPO by nothing on the four and {most:.2f} on the five" in text
    assert bounds(difference("again_ppo", "area", "etf", "matched"))[1] < 0


def test_how_greedy_episodes_on_lunar_lander_end():
    again = {(row["arm"], row["seed"]): row for row in rows_of("lander")}
    first = [row for row in rows_of("field") if row["env_id"] == LANDER]
    for row in first:
        other = again[row["arm"], row["seed"]]
        assert [row[key] for key in ("area", "greedy")] == [
            other[key] for key in ("area", "greedy")
        ]
    with open(RESULTS / "lander" / "greedy.csv") as file:
        episodes = [*csv.DictReader(file)]
    assert len(first) == len(again) == 100 and len(episodes) == 1000
    cost = {}
    for arm in second.ARMS:
        own = [row for row in episodes if row["arm"] == arm]
        endless = [float(row["return"]) for row in own if row["length"] == "1000"]
        cost[arm] = fmean(endless)
        everything = fmean(float(row["return"]) for row in own)
        cells = [f"{everything:.0f}", f"{len(endless)} of 200", f"{cost[arm]:.0f}", "0"]
        assert f"| {second.NAMES[arm]} | {' | '.join(cells)} |" in PAGE.read_text()
    assert max(float(row["return"]) for row in episodes) < 100
    times = sorted(cost["linear"] / cost[arm] for arm in second.ARMS[1:])
    assert (round(times[0]), round(times[-1])) == (3, 6)


def bounds(sample: np.ndarray) -> tuple[float, float]:
    """Of the interval as it is printed."""
    return tuple(float(bound) for bound in re.findall(r"[-+]\d+\.\d+", interval(sample))[1:])


def test_bounds_in_sentences_are_those_of_the_runs():
    text = " ".join(PAGE.read_text().split())
    greedy = [bounds(difference(name, "greedy", "etf", "linear")) for name in second.AGAIN.values()]
    least, most = min(low for low, _ in greedy), max(high for _, high in greedy)
    worse, better = (math.ceil(100 * bound) / 100 for bound in (-least, most))
    sentence = (
        f"Greedily it may be {better} better or {worse} worse than CleanRL's head on the four"
    )
    assert sentence in text
    behind = {
        -round(difference("near_k_many", "greedy", "etf", "linear", feature_dim=width).mean(), 1)
        for width in ("17", "18", "36", "64")
    }
    assert behind == {0.2, 0.3} and "greedily 0.2 to 0.3 behind it at every width" in text
    ahead = difference("near_k_lake", "greedy", "etf", "linear", feature_dim="3").mean()
    assert round(ahead, 1) == 0.4 and "on FrozenLake it is 0.4 ahead" in text
    changes = {}
    for arm in ("etf", "matched"):
        small, default = (
            difference("optimizer_ppo", "area", f"{arm},{value}", f"linear,{value}")
            for value in ("1e-8", "1e-5")
        )
        changes[arm] = bounds(small - default)
    gain = {
        arm: difference("optimizer_ppo", "area", f"{arm},1e-5", "linear,1e-5").mean()
        for arm in changes
    }
    assert (
        f"may take all of the frozen ETF's gain of {gain['etf']:.2f}, or nearly double it" in text
    )
    assert changes["etf"][0] < -gain["etf"] and 0.9 < changes["etf"][1] / gain["etf"] < 1
    assert "and half of the matched head's." in text
    assert 0.4 < -changes["matched"][0] / gain["matched"] < 0.6


def test_sentences_on_epsilon_and_damping():
    text = " ".join(PAGE.read_text().split())
    falls, p_values = {}, {}
    for arm in ("matched", "etf"):
        default, small = (
            difference("optimizer_a2c", "area", f"{arm},{value}", f"linear,{value}")
            for value in ("3.16e-3", "1e-5")
        )
        falls[arm] = default - small
        found = second.gains_of("optimizer", second.AREA).query("name == 'A2C, change to 1e-5'")
        (p_values[arm],) = found.loc[found["panel"] == (arm, "linear"), "corrected"]
    low, high = bounds(falls["etf"])
    said = f"falls by {falls['matched'].mean():.2f}, for certain, and the frozen ETF's by"
    assert f"{said} {falls['etf'].mean():.2f} [{low:.2f}, {high:.2f}], which is open" in text
    uncorrected = stats.ttest_1samp(falls["etf"], 0).pvalue
    said = f"(p {p_values['etf']:.3f}; {uncorrected:.3f} uncorrected; and certain, p "
    assert said in text and p_values["matched"] < 0.05 < p_values["etf"]
    parts = {name: part for name, part in second.optimizer().items() if name != "TRPO"}
    found = second.gains(parts, second.AREA, second.GAINS).query("name == 'A2C, change to 1e-5'")
    (former,) = found.loc[found["panel"] == ("etf", "linear"), "corrected"]
    assert f"certain, p {former:.3f}, before TRPO's rows" in text and former < 0.05

    gains = {
        value: difference("optimizer_trpo", "area", f"etf,{value}", f"linear,{value}")
        for value in ("0.1", "0.01")
    }
    most = max(bounds(gain)[1] for gain in gains.values())
    change_of_gain = max(map(abs, bounds(gains["0.01"] - gains["0.1"])))
    limits = [math.ceil(100 * bound) / 100 for bound in (most, change_of_gain)]
    assert "ETF's is at most {}, and changes by at most {}, either".format(*limits) in text
    changed = {}
    for arm in ("linear", "matched"):
        both = [("optimizer_trpo", f"{arm},{value}") for value in ("0.01", "0.1")]
        for task in (CARTPOLE, ACROBOT, LAKE, CLIFF):
            changed[arm, task] = float(change(*both, env_id=task).split()[0])
    assert {round(changed["linear", task], 2) for task in (CARTPOLE, CLIFF)} == {0.01}
    both = [-changed[arm, ACROBOT] for arm in ("linear", "matched")]
    said = "on Acrobot, by {:.2f} and {:.2f}, and the matched one on FrozenLake, by {:.2f}."
    assert said.format(*both, -changed["matched", LAKE]) in text


def test_sentences_on_clipping_apart():
    text = " ".join(PAGE.read_text().split())
    changed = {}
    for arm in ("linear", "matched", "etf"):
        both = ("clipped_apart", arm), ("optimizer_ppo", f"{arm},1e-5")
        for task in (CARTPOLE, ACROBOT, LAKE, CLIFF):
            middle, low, high = map(float, re.findall(NUMBER, change(*both, env_id=task)))
            changed[arm, task] = middle, low, high
    faster = {name for name, (_, low, _) in changed.items() if low > 0}
    assert {("linear", task) for task in (CARTPOLE, ACROBOT, CLIFF)} <= faster
    assert not {name for name in faster if name[0] == "matched"}
    said = f"by {changed['linear', ACROBOT][0]:.2f} on Acrobot and {changed['linear', CARTPOLE][0]:.2f}"
    assert f"CleanRL's head learns faster on three tasks, {said} on CartPole" in text
    slower = {name for name, (_, _, high) in changed.items() if high < 0}
    assert slower == {("etf", LAKE), ("etf", CLIFF), ("matched", CLIFF)}
    assert min(changed[arm, CLIFF][0] for arm in ("etf", "matched")) > -0.0055

    gains = {}
    for arm in ("matched", "etf"):
        default = difference("optimizer_ppo", "area", f"{arm},1e-5", "linear,1e-5")
        gains[arm] = default, difference("clipped_apart", "area", arm, "linear")
    default, apart = gains["matched"]
    low, high = (-bound for bound in reversed(bounds(apart - default)))
    fall = (default - apart).mean()
    said = f"by {fall:.2f} [{low:.2f}, {high:.2f}] of {default.mean():.2f}; the {apart.mean():.2f}"
    assert f"Its gain falls for certain, {said} that is left is open" in text
    assert (
        0.4 < fall / default.mean() < 0.6 and "the matched head's gain falls by about half" in text
    )
    default, apart = (gain.mean() for gain in gains["etf"])
    low, high = bounds(gains["etf"][1])
    said = f"{default:.2f} there is {apart:.2f} left, from −{-low:.2f} to +{high:.2f}"
    assert f"Of the frozen ETF's {said}" in text
    left = {
        task: difference("clipped_apart", "area", "matched", "linear", env_id=task)
        for task in (CARTPOLE, ACROBOT, LAKE)
    }
    before = difference("optimizer_ppo", "area", "matched,1e-5", "linear,1e-5", env_id=LAKE)
    assert left[CARTPOLE].mean() < 0 and left[ACROBOT].mean() < 0
    assert left[LAKE].mean() > before.mean()
    for arm in ("matched", "etf"):
        ahead = difference("clipped_apart", "area", "linear", arm, env_id=CARTPOLE)
        assert bounds(ahead)[0] > 0


def test_clipping_apart_beside_runs_of_one_process_each():
    """On CartPole and Acrobot, by task and as means over both."""
    text = " ".join(PAGE.read_text().split())
    of_default = {"alone": ("singles", ""), "together": ("optimizer_ppo", ",1e-5")}
    changes = defaultdict(list)
    for task in (CARTPOLE, ACROBOT):
        apart = difference("clipped_apart", "area", "etf", "linear", env_id=task)
        for name, (folder, value) in of_default.items():
            wanted = {"env_id": task, "script": "ppo_acpg"}
            default = difference(folder, "area", f"etf{value}", f"linear{value}", **wanted)
            changes[name].append(apart - default)
        linear = [
            np.mean([*scores(folder, "area", "linear", env_id=task, script=script).values()])
            for folder, script in (("clipped_apart", "ppo_clipped_apart"), ("singles", "ppo_acpg"))
        ]
        faster = f"{linear[0] - linear[1]:.2f} on {plain_id(task).removesuffix('-v1')}"
        assert faster in text
    alone, together = (np.mean(changes[name], axis=0) for name in of_default)
    low, high = bounds(alone)
    said = f"gain falls by {-alone.mean():.3f} (95 % interval {-high:.3f} to {-low:.3f}; this was"
    assert said in text
    low, high = bounds(together)
    assert low < 0 < high
    assert f"it falls by {-together.mean():.3f} on these tasks, which is open" in text


def test_numbers_in_sentences_are_those_of_the_runs():
    """Counts of verdicts, and the bounds in the answer on top."""
    text = " ".join(PAGE.read_text().split())
    found = second.near_k(second.GEOMETRY + second.ADDED, second.AREA)
    worse = {}
    for pair in (("etf", "etf-trainable"), ("etf", "matched")):
        rows = found[found["panel"] == pair]
        if pair == ("etf", "matched"):  # which has K dimensions or more
            rows = rows[~rows["name"].str.contains(r"d = (?:3|17)$")]
        worse[pair] = (rows["verdict"] == "worse").sum(), len(rows)
    assert "in {} of {} cases".format(*worse["etf", "etf-trainable"]) in text
    assert "in {} of the {} cases with K".format(*worse["etf", "matched"]) in text
    reinforce, a2c, ppo = (
        round(difference(folder, "area", "etf", "linear").mean(), 2)
        for folder in ("again_reinforce", "again_a2c", "again_ppo")
    )
    assert f"by {reinforce} of the way from a random policy to the threshold with REINFORCE" in text
    assert f"{a2c} with A2C, and {ppo}, not for certain, with PPO" in text
    assert f"REINFORCE's gain is as large as it was, {reinforce}, but" in text
    gains = [
        round(difference("again_reinforce", "area", arm, "linear").mean(), 2)
        for arm in second.ARMS[1:]
    ]
    said = f"every large start gains {min(gains)} to {max(gains)}, and over the four tasks none"
    assert said in text
    most = {}
    for title, folder in second.AGAIN.items():
        for baseline in ("linear", "matched"):
            highest = bounds(difference(folder, "area", "etf", baseline))[1]
            most[title, baseline] = f"{math.ceil(100 * highest) / 100:.2f}"
    assert f"with TRPO more than {most['TRPO', 'linear']} is excluded" in text
    assert most["A2C", "matched"] == most["TRPO", "matched"]
    leads = (
        f"at most {most['A2C', 'matched']} with A2C and TRPO, {most['REINFORCE', 'matched']} with"
    )
    assert f"it leads by {leads} REINFORCE, and with PPO by nothing on the four" in text
    found = second.by_task(second.again(), second.PAIRS, second.AREA)
    by_task = found[(found["panel"] == ("etf", "random")) & ~found["name"].str.endswith(", all")]
    apart = by_task[by_task["verdict"] != "not distinguishable"]
    (ahead,) = apart.query("name == 'REINFORCE, CartPole-v1'")["difference"]
    assert (len(apart), len(by_task)) == (1, 16)
    assert f"in one case of 16: on CartPole with REINFORCE it is ahead by {ahead:.2f}" in text
    loss = difference("again_trpo", "area", "etf", "linear").mean()
    assert f"the loss of 0.03 in the first evidence is one of {-loss:.2f} here, and open" in text
    cost = difference("many_actions_18", "area", "etf", "etf-trainable").mean()
    assert f"With 18 actions freezing costs {-cost:.2f} against the same frame learned" in text


def test_sentences_on_longer_runs():
    text = " ".join(PAGE.read_text().split())
    gains = {
        name: difference(folder, "area", "etf", "linear", env_id=CARTPOLE)
        for name, folder in second.LONGER.items()
    }
    limits = {name: bounds(gain) for name, gain in gains.items()}
    before = [
        difference(second.AGAIN[name], "area", "etf", "linear", env_id=CARTPOLE).mean()
        for name in ("PPO", "REINFORCE")
    ]
    said = (
        "gains in 200k steps, {:.2f} and {:.2f}, and in 500k its gain lies within ± 0.02 and ± 0.03"
    )
    assert said.format(*before) in text
    assert max(map(abs, limits["PPO"])) <= 0.02 and max(map(abs, limits["REINFORCE"])) <= 0.03
    assert limits["A2C"][1] <= 0.04 and "in 500k it is at most 0.04" in text
    assert f"more than {-min(low for low, _ in limits.values())} is excluded" in text
    low, high = bounds(difference("longer_reinforce", "area", "etf", "linear", env_id=ACROBOT))
    assert f"with REINFORCE anything from {-low:.2f} less to {high:.2f} more" in text
    behind = difference("longer_trpo", "area", "linear", "etf", env_id=ACROBOT)
    low, high = bounds(behind)
    said = f"by {behind.mean():.2f} [{low:.2f}, {high:.2f}] in 500k steps"
    assert f"the frozen ETF is behind with TRPO for certain, {said}" in text and low > 0
    assert f"of Acrobot, {behind.mean():.2f} less than CleanRL's head, for certain" in text
    stops = defaultdict(list)
    for row in rows_of("longer_trpo"):
        if row["env_id"] == ACROBOT:
            stops[row["arm"]].append(float(row["stop"]))
    middle = [f"{np.median(stops[arm]) / 1000:.0f}k" for arm in ("etf", "linear")]
    said = "have reached −100 after {} steps, of CleanRL's head after {};".format(*middle)
    assert said in text and {len(steps) for steps in stops.values()} == {20}
    greedy = bounds(difference("longer_trpo", "greedy", "etf", "linear", env_id=ACROBOT))
    assert greedy[0] < 0 < greedy[1]
    for folder in ("longer_ppo", "longer_a2c", "longer_trpo"):
        for arm in ("linear", "matched", "etf"):
            assert mean_of(folder, "greedy", env_id=CARTPOLE, arm=arm) > 499
    matched = [
        difference(folder, "area", "matched", "linear", env_id=CARTPOLE)
        for folder in ("again_reinforce", "longer_reinforce")
    ]
    low, high = bounds(matched[1])
    assert f"with REINFORCE its gain of {matched[0].mean():.2f} is gone" in text and low < 0 < high
    ends = [
        mean_of("longer_reinforce", "greedy", env_id=CARTPOLE, arm=arm)
        for arm in ("linear", "matched", "etf")
    ]
    assert 495 <= min(ends) <= 496 and "with REINFORCE at 495 of 500 and above" in text


def test_trpo_s_default_runs_repeat_half_of_question_3_s():
    text = " ".join(PAGE.read_text().split())
    kinds = [(arm, task) for arm in second.HEADS for task in (CARTPOLE, ACROBOT, LAKE, CLIFF)]
    same = []
    for arm, task in kinds:
        again = scores("again_trpo", "area", arm, env_id=task)
        default = scores("optimizer_trpo", "area", f"{arm},0.1", env_id=task)
        same += [again[seed] == default[seed] for seed in again]
    assert len(same) == 240 and 0.45 < np.mean(same) < 0.55
    assert "about half of their areas are the same" in text


@pytest.mark.parametrize(("kind", "column"), [(0, "greedy"), (1, "area")])
@pytest.mark.parametrize(
    ("name", "folder", "arm", "seeds"),
    [
        ("DQN", "off_policy", "dqn", 10),
        ("discrete SAC", "off_policy", "sac", 10),
        ("PPO, frozen ETF", "again_ppo", "etf", 20),
        ("REINFORCE, matched learned head", "again_reinforce", "matched", 20),
    ],
)
def test_rows_of_the_tables_of_other_methods(name, folder, arm, seeds, kind, column):
    """The greedy returns' table stands before that of the areas."""
    (section,) = (
        part for part in PAGE.read_text().split("\n## ") if part.startswith("Beside other methods")
    )
    rows = [line for line in section.splitlines() if line.startswith(f"| {name} | ")]
    wanted = [str(seeds)]
    for task, digits in ((CARTPOLE, 0), (ACROBOT, 0), (LAKE, 2), (CLIFF, 2)):
        runs = [row for row in rows_of(folder) if (row["env_id"], row["arm"]) == (task, arm)]
        values = np.array([float(row[column]) for row in runs])
        assert sorted(int(row["seed"]) for row in runs) == [*range(1001, 1001 + seeds)]
        middle, margin = values.mean(), stats.t.ppf(0.975, seeds - 1) * stats.sem(values)
        cell = f"{middle:.{digits}f}"
        if len({*values}) > 1:
            cell += f" [{middle - margin:.{digits}f}, {middle + margin:.{digits}f}]"
        wanted.append(cell)
    assert rows[kind] == f"| {name} | {' | '.join(wanted)} |"


def test_other_methods_on_cartpole():
    text = " ".join(PAGE.read_text().split())
    curves = pd.read_csv(RESULTS / "off_policy" / "curves.csv.gz").query("env_id == @CARTPOLE")
    means = curves.groupby(["arm", "step"])["value"].mean()
    steps = [means[arm].index[means[arm] > 200][0] for arm in ("dqn", "sac")]
    assert max(steps) == 32_000 and "seeds pass 200 within 32k steps" in text
    ends = [mean_of("off_policy", "greedy", env_id=CARTPOLE, arm=arm) for arm in ("dqn", "sac")]
    assert "end greedily at {:.0f} and {:.0f}; PPO".format(*ends) in text
    heads = {
        name: [mean_of(folder, "greedy", env_id=CARTPOLE, arm=arm) for arm in second.HEADS]
        for name, folder in second.AGAIN.items()
    }
    assert min(min(heads[name]) for name in ("PPO", "TRPO", "REINFORCE")) > 470
    assert f"A2C between {min(heads['A2C']):.0f} and {max(heads['A2C']):.0f}." in text


def reach(folder: str, column: str, arm: str) -> int:
    """How many runs on Acrobot reach the goal, going by this return."""
    wanted = {"env_id": ACROBOT, "arm": arm}
    return sum(
        float(row[column]) > -500 for row in rows_of(folder) if wanted.items() <= row.items()
    )


def test_other_methods_on_acrobot():
    text = " ".join(PAGE.read_text().split())
    exploring = [reach("off_policy", "best", arm) for arm in ("dqn", "sac")]
    said = "and eight of SAC's ten reach the goal while they explore"
    assert exploring == [10, 8] and said in text
    greedily = [reach("off_policy", "greedy", arm) for arm in ("dqn", "sac")]
    assert greedily == [1, 2] and "at the end, one of DQN's and two of SAC's do" in text
    never = {20 - reach("again_reinforce", "greedy", arm) for arm in second.HEADS}
    assert never == {8, 9} and "Of REINFORCE's 20 runs eight or nine of each head do not" in text


def test_other_methods_on_frozen_lake_and_the_cliff():
    text = " ".join(PAGE.read_text().split())
    ends = [mean_of("off_policy", "greedy", env_id=LAKE, arm=arm) for arm in ("dqn", "sac")]
    assert "DQN and SAC end greedily at {:.2f} and {:.2f}, between".format(*ends) in text
    learned, matched = (
        mean_of("again_ppo", "greedy", env_id=LAKE, arm=arm) for arm in ("linear", "matched")
    )
    assert learned < min(ends) and max(ends) < matched
    on_cliff = [row for row in rows_of("off_policy") if row["env_id"] == CLIFF]
    assert len(on_cliff) == 20 and {float(row["greedy"]) for row in on_cliff} == {-1}


def test_where_dqn_is_worse_without_its_epsilon():
    assert "CartPole and Acrobot DQN's are lower than those with" in " ".join(
        PAGE.read_text().split()
    )
    for task in (CARTPOLE, ACROBOT):
        greedy, final = (
            mean_of("off_policy", column, env_id=task, arm="dqn") for column in ("greedy", "final")
        )
        assert greedy < final
