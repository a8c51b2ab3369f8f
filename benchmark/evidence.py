"""benchmark/results/{table_1,controls}_small -> the README's answer to "does the head help?".

As in benchmark/tables.py, whose docstring says how to write the README anew, the functions return Markdown, or numbers for
sentences. What is compared and how is what benchmark/report.py does, with the same corrections.
"""

from functools import cache

import pandas as pd

from benchmark.collate import COUNTS
from benchmark.comparisons import (
    COMPARED,
    aggregate_comparisons,
    contrast_comparisons,
    judged,
    read_runs,
    stop_comparisons,
    task_comparisons,
)
from benchmark.report import mean_std, p_value, seeds_text, span
from benchmark.tables import RESULTS, markdown, read
from benchmark.thresholds import plain_id

TABLE, CONTROLS = "table_1_small", "controls_small"
BASELINES = {"linear, head_std 0.01": "learned head", "linear, head_std 2.0": "learned head, rows of norm 2"}
SCRIPTS = ("reinforce_acpg", "a2c_acpg", "ppo_acpg", "trpo_acpg")
TASKS = ("CartPole-v1", "Acrobot-v1", "FrozenLake-v1", "IdealCliffWalking-v0")


@cache
def runs(folder: str) -> pd.DataFrame:
    """The finished runs, with plain names of their environments in the column `task`."""
    frame = read_runs(RESULTS / folder)
    return frame.assign(task=frame["env_id"].map(plain_id))


@cache
def comparisons(folder: str) -> pd.DataFrame:
    """The judged comparisons of the heads with the learned one, by task, and, of normalised scores, over "4 tasks" or so; by
    script, task, measure, head and baseline."""
    several = judged([row for row in aggregate_comparisons(runs(folder)) if row["tasks"] > 1])
    rows = pd.concat([task_comparisons(runs(folder)), several])
    measures = rows["measure"].str.removeprefix("normalised ")
    rows = rows.assign(task=rows["env_id"].map(plain_id), measure=measures)
    return rows.set_index(["script", "task", "measure", "head", "baseline"]).sort_index()


def counts(folder: str) -> str:
    """How many runs were planned, finished, failed, ..."""
    table = read(f"{folder}/counts.csv")
    return ", ".join(f"{table[state].sum()} {state}" for state in COUNTS)


def judgement(row: pd.Series) -> str:
    """A comparison's difference with its interval, and its verdict, or what one would take."""
    verdict = row["verdict"]
    if verdict == "not distinguishable":
        needed = f"{seeds_text(row['needed'])} seeds".replace("more than", ">")
        verdict = f"open ({'but for the correction' if row['p'] <= 0.05 else needed})"
    return f"{span(row['difference'], row['low'], row['high'])}: {verdict}"


def returns(folder: str, arms: dict[str, str]) -> str:
    """Final returns and areas by script, task and arm, whose titles `arms` holds."""
    rows, groups = [], runs(folder).groupby(["script", "task", "arm"])
    for script, task in present(folder):
        cells = []
        for arm in arms:
            group = groups.get_group((script, task, arm))
            cells.append(f"{mean_std(group['final'])}; {mean_std(group['area'])}")
        rows.append([f"`{script.removesuffix('_acpg')}`, {task}", *cells])
    return markdown(["final return; area", *arms.values()], rows)


def present(folder: str) -> list[tuple[str, str]]:
    """Scripts and tasks of the folder, in the order of SCRIPTS and TASKS."""
    there = set(zip(runs(folder)["script"], runs(folder)["task"]))
    return [(script, task) for script in SCRIPTS for task in TASKS if (script, task) in there]


def differences() -> str:
    """The frozen ETF against the learned head with either norm of its rows, by task, and over tasks as normalised scores."""
    columns = [(measure, baseline) for measure in sorted(COMPARED.values()) for baseline in BASELINES]
    lines = [(f"`{script.removesuffix('_acpg')}`, {task}", script, task) for script, task in present(TABLE)]
    for script in (*SCRIPTS, "all scripts"):
        over = f"{sum(script in (other, 'all scripts') for other, _ in present(TABLE))} tasks"
        lines.append((f"**{script.removesuffix('_acpg')}, {over}, normalised**", script, over))
    rows = [
        [title, *(judgement(comparisons(TABLE).loc[script, task, measure, "etf", baseline]) for measure, baseline in columns)]
        for title, script, task in lines
    ]
    return markdown(["", *(f"{measure}, against {BASELINES[baseline]}" for measure, baseline in columns)], rows)


def contrasts() -> str:
    """Geometry, freezing and scale: the contrasts of heads by task and measure, and over tasks as normalised scores."""
    table = contrast_comparisons(runs(CONTROLS))
    table = table.assign(measure=table["measure"].str.removeprefix("normalised "), task=table["env_id"].map(plain_id))
    columns = sorted(set(zip(table["task"], table["measure"])), key=lambda column: [*TASKS, "2 tasks"].index(column[0]))
    rows = [
        [factor, f"{heads} against {others}", *(judgement(cells.loc[column]) for column in columns)]
        for (factor, heads, others), group in table.groupby(["factor", "head", "baseline"], sort=False)
        for cells in [group.set_index(["task", "measure"])]
    ]
    titles = [f"{task}{', normalised' if task == '2 tasks' else ''}: {measure}" for task, measure in columns]
    return markdown(["factor", "heads", *titles], rows)


def stops(tasks: dict[str, str]) -> str:
    """How soon the heads reach the threshold, for these scripts and their tasks."""
    rows = []
    for row in stop_comparisons(runs(TABLE)):
        if row["baseline"] in BASELINES and tasks.get(row["script"]) == plain_id(row["env_id"]):
            sooner = span(*(float(value[0]) for value in row["sooner"]))
            name = f"`{row['script'].removesuffix('_acpg')}`, {plain_id(row['env_id'])}, {BASELINES[row['baseline']]}"
            rows.append([name, row["baseline_stop"], row["stop"], sooner, p_value(row["p"])])
    return markdown(["", "learned", "frozen ETF", "P(ETF is sooner)", "p"], rows)
