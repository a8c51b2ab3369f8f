"""benchmark/results/{table_1,controls}_small -> the README's answer to "does the head help?".

As in benchmark/tables.py, whose docstring says how to write the README anew, the functions return Markdown, or numbers for
sentences. What is compared, how, and with which corrections is what benchmark/report.py does.
"""

from functools import cache

import pandas as pd

from benchmark.collate import COUNTS
from benchmark.comparisons import (
    COMPARED,
    CONTRASTS,
    FROZEN,
    TRAINABLE,
    aggregate_comparisons,
    contrast_comparisons,
    judged,
    read_runs,
    stop_comparisons,
    task_comparisons,
)
from benchmark.report import mean_std, p_value, seeds_text
from benchmark.tables import RESULTS, markdown, read
from benchmark.thresholds import plain_id
from benchmark.verdicts import corrected

TABLE, CONTROLS, HOURS = "table_1_small", "controls_small", "table_1_hours"
SCRIPTS = ("reinforce_acpg", "a2c_acpg", "ppo_acpg", "trpo_acpg")
TASKS = ("CartPole-v1", "Acrobot-v1", "FrozenLake-v1", "IdealCliffWalking-v0")
HEADS = {
    "linear": "learned head",
    "etf": "frozen ETF",
    "etf-trainable": "trainable ETF",
    "random": "frozen random",
    "random-trainable": "trainable random",
    "orthogonal": "frozen orthogonal",
    "orthogonal-trainable": "trainable orthogonal",
}
GROUPS = {
    FROZEN: "all frozen",
    TRAINABLE: "all trainable",
    ("etf", "etf-trainable"): "ETF, frozen and trainable",
    ("random", "random-trainable"): "random, frozen and trainable",
    ("orthogonal", "orthogonal-trainable"): "orthogonal, frozen and trainable",
}
PAIRS = (("etf", "linear"), ("etf-trainable", "linear"), ("etf", "etf-trainable"))  # whole, start alone, freezing alone
FULL = {  # by script and task of table_1_hours.sh: runs per backbone and steps of each in table_1.sh, and their tasks
    ("reinforce_acpg", "DiscreteCarRacing-v0"): (40, 2_000_000, "DiscreteCarRacing"),
    ("a2c_acpg", "DiscreteCarRacing-v0"): (40, 2_000_000, "DiscreteCarRacing"),
    ("ppo_acpg", "Qbert-v5"): (120, 10_000_000, "Enduro, Qbert, Pong"),
    ("trpo_acpg", "Qbert-v5"): (80, 10_000_000, "Enduro, Qbert"),
}


@cache
def runs(folder: str) -> pd.DataFrame:
    """The finished runs, with plain names of their environments in the column `task`."""
    frame, _ = read_runs(RESULTS / folder)
    return frame.assign(task=frame["env_id"].map(plain_id))


@cache
def comparisons(folder: str) -> pd.DataFrame:
    """All comparisons of the report with their verdicts, by script, task ("4 tasks" or so for several, of normalised scores),
    measure, head and baseline."""
    several = judged([row for row in aggregate_comparisons(runs(folder)) if row["tasks"] > 1])
    rows = pd.concat([task_comparisons(runs(folder)), several, contrast_comparisons(runs(folder))])
    rows = rows.assign(task=rows["env_id"].map(plain_id), measure=rows["measure"].str.removeprefix("normalised "))
    return rows.set_index(["script", "task", "measure", "head", "baseline"]).sort_index()


def counts(folder: str) -> str:
    """How many runs were planned, finished, failed, ..."""
    table = read(f"{folder}/counts.csv")
    return ", ".join(f"{table[state].sum()} {state}" for state in COUNTS)


def tasks(folder: str) -> list[tuple[str, str]]:
    """Scripts and tasks of the folder, in the order of SCRIPTS and TASKS."""
    there = set(zip(runs(folder)["script"], runs(folder)["task"]))
    return [(script, task) for script in SCRIPTS for task in TASKS if (script, task) in there]


def interval(row: pd.Series) -> str:
    """A comparison's difference and its 95 % interval, if it has one."""
    limits = f" ({row['low']:.3g} to {row['high']:.3g})" if row["low"] < row["high"] else ""
    return f"{row['difference']:.3g}{limits}"


def judgement(row: pd.Series) -> str:
    """The same with the verdict, or how many seeds one would take."""
    verdict = f"**{row['verdict']}**"
    if row["verdict"] == "not distinguishable":
        seeds = seeds_text(row["needed"]).replace("more than", ">")
        verdict = f"open (p {p_value(row['p'])} before correction)" if row["p"] <= 0.05 else f"open ({seeds} seeds)"
    return f"{interval(row)}: {verdict}"


def gap(head: str, baseline: str, measure: str, script: str = "all scripts", folder: str = TABLE) -> str:
    """The difference of normalised scores over all tasks of the script, with its 95 % interval in brackets."""
    over = f"{sum(script in (other, 'all scripts') for other, _ in tasks(folder))} tasks"
    row = comparisons(folder).loc[script, over, measure, head, baseline]
    return f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def dispersion(measure: str) -> str:
    """In how many tasks the frozen ETF varies more over seeds than the learned head, and in how many distinguishably."""
    table = task_comparisons(runs(TABLE))
    table = table.assign(test=corrected(table["equal_spread"])).query("head == 'etf' and measure == @measure")
    more, sure = (table["change"].str[0] > 0), table["test"] <= 0.05
    return f"in {more.sum()} of {len(table)} tasks, distinguishably in {(more & sure).sum() or 'none'}"


def returns(folder: str) -> str:
    """Final returns and areas by script, task and head."""
    heads = [head for head in HEADS if head in set(runs(folder)["head"])]
    groups, rows = runs(folder).groupby(["script", "task", "head"]), []
    for script, task in tasks(folder):
        members = [groups.get_group((script, task, head)) for head in heads]
        cells = [f"{mean_std(group['final'])}; {mean_std(group['area'])}" for group in members]
        rows.append([f"`{script.removesuffix('_acpg')}`, {task}", *cells])
    return markdown(["final return; area", *(HEADS[head] for head in heads)], rows)


def differences(measure: str) -> str:
    """The PAIRS of heads by script and task, and over tasks as normalised scores."""
    lines = [(f"`{script.removesuffix('_acpg')}`, {task}", script, task) for script, task in tasks(TABLE)]
    for script in (*SCRIPTS, "all scripts"):
        over = f"{sum(script in (other, 'all scripts') for other, _ in tasks(TABLE))} tasks"
        lines.append((f"**{script.removesuffix('_acpg')}, {over}, normalised**", script, over))
    rows = [
        [title, *(judgement(comparisons(TABLE).loc[script, task, measure, head, baseline]) for head, baseline in PAIRS)]
        for title, script, task in lines
    ]
    return markdown([measure, *(f"{HEADS[head]} against {HEADS[baseline]}" for head, baseline in PAIRS)], rows)


def contrasts() -> str:
    """In the controls, by task and measure: each head against the learned one, and the heads against each other."""
    columns = [(task, measure) for _, task in tasks(CONTROLS) for measure in sorted(COMPARED.values())]
    table, rows = comparisons(CONTROLS).loc["ppo_acpg"], []
    pairs = [((head,), ("linear",)) for head in HEADS if head != "linear"]
    for heads, others in [*pairs, *(sides for _, *sides in CONTRASTS)]:
        title = " against ".join(GROUPS.get(side) or HEADS[side[0]] for side in (heads, others))
        cells = [judgement(table.loc[(*column, ", ".join(heads), ", ".join(others))]) for column in columns]
        rows.append([title, *cells])
    return markdown(["", *(f"{task}, {measure}" for task, measure in columns)], rows)


def stops() -> str:
    """How soon the frozen ETF reaches the threshold and how soon the learned head does."""
    rows = []
    table = stop_comparisons(runs(TABLE)).query("head == 'etf'").assign(task=lambda rows: rows["env_id"].map(plain_id))
    table = table.set_index(["script", "task"])
    for script, task in tasks(TABLE):
        row = table.loc[script, task]
        seeds = f"{row['sooner']}, {row['later']}, {row['seeds'] - row['sooner'] - row['later']}"
        name = f"`{script.removesuffix('_acpg')}`, {task}"
        rows.append([name, row["baseline_stop"], row["stop"], seeds, p_value(row["p"]), p_value(row["corrected"])])
    columns = ["stop (steps)", HEADS["linear"], HEADS["etf"], "seeds for which the ETF is sooner, later, equal"]
    return markdown([*columns, "p", "corrected p"], rows)


def hours() -> pd.DataFrame:
    """What benchmark/paper/table_1.sh would take of one core, going by short runs: steps per second, hours of a run, number of
    runs and hours of them all, by script, task and backbone."""
    frame = runs(HOURS).set_index(["script", "task", "backbone"])
    number, steps = ([FULL[script, task][place] for script, task, _ in frame.index] for place in (0, 1))
    frame = frame[["steps_per_second"]].assign(runs=number, steps=steps)
    frame = frame.assign(hours_a_run=frame["steps"] / frame["steps_per_second"] / 3600)
    return frame.assign(hours=frame["runs"] * frame["hours_a_run"])


def hours_table() -> str:
    """`hours` in a table."""
    rows = []
    for row in hours().reset_index().itertuples():
        name = f"`{row.script.removesuffix('_acpg')}`, {FULL[row.script, row.task][2]}"
        rows.append([name, row.backbone, f"{row.runs} of {row.steps / 1e6:.0f}M steps"])
        rows[-1] += [f"{row.steps_per_second:.0f}", f"{row.hours_a_run:,.0f}", f"{row.hours:,.0f}"]
    return markdown(["script, tasks", "backbone", "runs", "steps/s", "hours a run", "hours of one core"], rows)
