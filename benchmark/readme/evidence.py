"""benchmark/results/{table_1,controls}_small -> the tables of docs/first-evidence.md.

As in benchmark/readme/tables.py, whose docstring says how to write it anew, the functions return Markdown, or numbers for
sentences. What is compared, how, and with which corrections is what benchmark/report.py does.
"""

import math
from functools import cache

import numpy as np
import pandas as pd

from benchmark.algorithms import ALGORITHMS
from benchmark.collate import COUNTS
from benchmark.readme.tables import RESULTS, markdown, read
from benchmark.reporting.comparisons import (
    ALL,
    COMPARED,
    CONTRASTS,
    FROZEN,
    TRAINABLE,
    aggregate_comparisons,
    contrast_comparisons,
    read_runs,
    stop_comparisons,
    task_comparisons,
)
from benchmark.reporting.thresholds import plain_id
from benchmark.reporting.verdicts import compare, corrected, sign_p, smallest
from benchmark.reporting.words import mean_std, p_value

TABLE, STD_2, CONTROLS = "table_1_small", "table_1_std_2", "controls_small"
HOURS, HOURS_GPU = "table_1_hours", "table_1_hours_gpu"
SCRIPTS = (*ALGORITHMS,)
TASKS = ("CartPole-v1", "Acrobot-v1", "FrozenLake-v1", "IdealCliffWalking-v0")
HEADS = {
    "linear": "learned head",
    "linear-2": "learned head from norm 2",
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
PAIRS = (
    ("etf", "linear"),
    ("etf-trainable", "linear"),
    ("etf", "etf-trainable"),
)  # whole, start alone, freezing alone
STARTS = (  # for contrast_comparisons
    ("norm of the start", ("linear-2",), ("linear",)),
    ("all but the norm", ("etf",), ("linear-2",)),
    ("bias and frame", ("etf-trainable",), ("linear-2",)),
)
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


def indexed(rows: pd.DataFrame) -> pd.DataFrame:
    """Comparisons by group, task ("4 tasks" or so for several, of normalised scores), measure, arm and baseline."""
    rows = rows.assign(
        task=rows["env_id"].map(plain_id), measure=rows["measure"].str.removeprefix("normalised ")
    )
    return rows.set_index(["group", "task", "measure", "arm", "baseline"]).sort_index()


@cache
def comparisons(folder: str) -> pd.DataFrame:
    """All comparisons of the report with their verdicts, `indexed`."""
    compare_all = task_comparisons, aggregate_comparisons, contrast_comparisons
    return indexed(pd.concat([compare_each(runs(folder)) for compare_each in compare_all]))


@cache
def starts() -> pd.DataFrame:
    """The STARTS with their verdicts, corrected together, `indexed`: what the learned head does that starts with rows of norm
    2, orthogonal and with a bias, as benchmark/paper/table_1.sh runs it beside the table."""
    learned = runs(STD_2).assign(arm="linear-2", plain_arm="linear-2")
    return indexed(contrast_comparisons(pd.concat([runs(TABLE), learned]), STARTS))


@cache
def small() -> pd.DataFrame:
    """The comparisons of the small table and the STARTS."""
    return pd.concat([comparisons(TABLE), starts()]).sort_index()


def counts(folder: str) -> str:
    """How many runs were planned, finished, failed, ..."""
    table = read(f"{folder}/counts.csv")
    return ", ".join(f"{table[state].sum()} {state}" for state in COUNTS)


def tasks(folder: str) -> list[tuple[str, str]]:
    """Scripts and tasks of the folder, in the order of SCRIPTS and TASKS."""
    there = set(zip(runs(folder)["script"], runs(folder)["task"]))
    return [(script, task) for script in SCRIPTS for task in TASKS if (script, task) in there]


def title(script: str, task: str) -> str:
    """The two as a row's title."""
    return f"`{script.removesuffix('_acpg')}`, {task}"


def over(script: str) -> str:
    """All tasks of the script in the small table, as `indexed` names them."""
    return f"{sum(script in (other, ALL) for other, _ in tasks(TABLE))} tasks"


def interval(row: pd.Series) -> str:
    """A comparison's difference and its 95 % interval, if it has one."""
    limits = f" ({row['low']:.3g} to {row['high']:.3g})" if row["low"] < row["high"] else ""
    return f"{row['difference']:.3g}{limits}"


def judgement(row: pd.Series) -> str:
    """The same with the verdict, and where this is open, with the smallest difference that these seeds could have shown."""
    if row["verdict"] != "not distinguishable":
        return f"{interval(row)}: **{row['verdict']}**"
    details = [] if math.isnan(row["smallest"]) else [f"±{row['smallest']:.3g}"]
    if row["p"] <= 0.05:
        details.append(f"p {p_value(row['p'])} before correction")
    return f"{interval(row)}: open" + (f" ({', '.join(details)})" if details else "")


def gap(head: str, baseline: str, measure: str, script: str = ALL) -> str:
    """The difference of normalised scores over all tasks of the script, with its 95 % interval in brackets."""
    row = small().loc[script, over(script), measure, head, baseline]
    return f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def verdict_counts(head: str, baseline: str, measure: str) -> str:
    """Of how many single tasks the verdict is better, and of how many worse."""
    words = [
        small().loc[script, task, measure, head, baseline]["verdict"]
        for script, task in tasks(TABLE)
    ]
    return f"better in {words.count('better') or 'none'}, worse in {words.count('worse') or 'none'}"


def headline() -> str:
    """The comparisons over all tasks, and where PPO and TRPO stand out, with their verdicts."""
    heads = [("etf", "linear"), ("linear-2", "linear"), ("etf-trainable", "linear")]
    heads += [("etf", "linear-2"), ("etf", "etf-trainable")]
    lines = [(*pair, ALL) for pair in heads]
    lines[1:1] = [("etf", "linear", "ppo_acpg"), ("etf", "linear", "trpo_acpg")]
    rows = []
    for head, baseline, script in lines:
        name = f"{HEADS[head]} against {HEADS[baseline]}"
        if script != ALL:
            name += f", {script.removesuffix('_acpg').upper()}'s {over(script)}"
        cells = []
        for measure in (COMPARED["area"], COMPARED["final"]):
            verdict = small().loc[script, over(script), measure, head, baseline]["verdict"]
            word = "open" if verdict == "not distinguishable" else f"**{verdict}**"
            cells.append(f"{gap(head, baseline, measure, script)} {word}")
        rows.append([name, *cells])
    return markdown(["", COMPARED["area"], COMPARED["final"]], rows)


def planned_power(seeds: int = 20) -> dict[str, list[float]]:
    """By script: what so many pairs of seeds would find of normalised areas and of final returns, frozen ETF less learned head,
    going by the spread in the small table."""
    scores = runs(TABLE).pivot_table(
        index=["script", "seed"], columns="arm", values=["normalised_area", "normalised_final"]
    )
    found = {}
    for script, part in scores.groupby("script"):
        found[script] = [
            least_difference(part[measure]["etf"] - part[measure]["linear"], seeds)
            for measure in ("normalised_area", "normalised_final")
        ]
    return found


def least_difference(differences: pd.Series, seeds: int) -> float:
    """What a paired t test of so many seeds would find at 5 % in 80 % of experiments, where pairs differ as these do."""
    error = differences.std() / math.sqrt(seeds)
    return smallest(np.array([error]), np.array([seeds - 1.0]), np.array([0.05]))[0]


def longer(script: str) -> str:
    """Frozen ETF less learned head on CartPole with 500k steps: area, its 95 % interval in brackets."""
    row = longer_run(script)
    return f"{row.difference:+.1f} [{row.low:+.1f}, {row.high:+.1f}]"


def longer_run(script: str) -> pd.Series:
    """The same with all columns of `compare`."""
    checks = (
        read(f"{script}_checks/runs.csv")
        .query("env_id == 'CartPole-v1'")
        .pivot(index="seed", columns="etf_head", values="area")
    )
    return compare(*(checks[head].to_numpy()[None] for head in (True, False))).iloc[0]


def longer_table() -> str:
    """`longer` of all algorithms, with p values corrected together."""
    names = [script.removesuffix("_acpg") for script in SCRIPTS]
    tests = corrected(pd.Series([longer_run(name).p for name in names]))
    rows = [
        [f"`{name}`", longer(name), p_value(longer_run(name).p), p_value(test)]
        for name, test in zip(names, tests)
    ]
    return markdown(["CartPole-v1, 500k steps", "area", "p", "corrected p"], rows)


def dispersion(measure: str) -> str:
    """In how many tasks the frozen ETF varies more over seeds than the learned head, and in how many distinguishably."""
    table = comparisons(TABLE).dropna(subset="equal_spread")
    tests = table.groupby("measure")["equal_spread"].transform(corrected)
    table = table.assign(test=tests).query("arm == 'etf' and measure == @measure")
    more = table["spread"] > table["baseline_spread"]
    sure = table["test"] <= 0.05
    together = f"together p {p_value(sign_p(more.sum(), (~more).sum()))} by the sign test"
    return f"in {more.sum()} of {len(table)} cases (by itself distinguishable in {(more & sure).sum() or 'none'}, {together})"


def wider() -> str:
    """In how many cases the area of each arm that starts at norm 2 varies more over seeds than that of the learned head."""
    learned = runs(STD_2).assign(head="linear-2")
    cells = pd.concat([runs(TABLE), learned]).groupby(["script", "task", "head"])["area"].std()
    spreads = cells.unstack()
    names = ("etf", "etf-trainable", "linear-2")
    counts = {name: (spreads[name] > spreads["linear"]).sum() for name in names}
    rows = [[HEADS[name], f"{count} of {len(spreads)}"] for name, count in counts.items()]
    return markdown(["", "more spread than the learned head in"], rows)


def returns(folder: str) -> str:
    """Final returns and areas by script, task and head."""
    heads = [head for head in HEADS if head in set(runs(folder)["head"])]
    groups, rows = runs(folder).groupby(["script", "task", "head"]), []
    for script, task in tasks(folder):
        members = [groups.get_group((script, task, head)) for head in heads]
        cells = [f"{mean_std(group['final'])}; {mean_std(group['area'])}" for group in members]
        rows.append([title(script, task), *cells])
    return markdown(["final return; area", *(HEADS[head] for head in heads)], rows)


def differences(measure: str, pairs: tuple[tuple[str, str], ...]) -> str:
    """Pairs of heads by script and task, and over tasks as normalised scores."""
    lines = [(title(*case), *case) for case in tasks(TABLE)]
    for script in (*SCRIPTS, ALL):
        lines.append(
            (
                f"**{script.removesuffix('_acpg')}, {over(script)}, normalised**",
                script,
                over(script),
            )
        )
    rows = [
        [
            name,
            *(
                judgement(small().loc[script, task, measure, head, baseline])
                for head, baseline in pairs
            ),
        ]
        for name, script, task in lines
    ]
    return markdown(
        [measure, *(f"{HEADS[head]} against {HEADS[baseline]}" for head, baseline in pairs)], rows
    )


def contrasts() -> str:
    """In the controls, by task: the areas of each head against the learned one's, and of the heads against each other; and of
    both tasks together also the final returns."""
    area, final = COMPARED["area"], COMPARED["final"]
    columns = [
        *((task, area) for _, task in tasks(CONTROLS)),
        ("2 tasks", area),
        ("2 tasks", final),
    ]
    table, rows = comparisons(CONTROLS).loc["ppo_acpg"], []
    pairs = [((head,), ("linear",)) for head in (*FROZEN, *TRAINABLE)]
    for heads, others in [*pairs, *(sides for _, *sides in CONTRASTS)]:
        name = " against ".join(GROUPS.get(side) or HEADS[side[0]] for side in (heads, others))
        cells = [
            judgement(table.loc[(*column, ", ".join(heads), ", ".join(others))])
            for column in columns
        ]
        rows.append([name, *cells])
    titles = [
        f"{task}, {measure}".replace("2 tasks,", "both, normalised") for task, measure in columns
    ]
    return markdown(["", *titles], rows)


def stops() -> str:
    """How soon the frozen ETF reaches the threshold and how soon the learned head does."""
    rows = []
    table = (
        stop_comparisons(runs(TABLE))
        .query("arm == 'etf'")
        .assign(task=lambda rows: rows["env_id"].map(plain_id))
    )
    table = table.set_index(["group", "task"])
    for script, task in tasks(TABLE):
        row = table.loc[script, task]
        seeds = f"{row['sooner']}, {row['later']}, {row['seeds'] - row['sooner'] - row['later']}"
        rows.append(
            [
                title(script, task),
                row["baseline_stop"],
                row["stop"],
                seeds,
                p_value(row["p"]),
                p_value(row["corrected"]),
            ]
        )
    columns = [
        "stop (steps)",
        HEADS["linear"],
        HEADS["etf"],
        "seeds for which the ETF is sooner, later, equal",
    ]
    return markdown([*columns, "p", "corrected p"], rows)


def hours_of_controls() -> float:
    """What benchmark/paper/controls.sh would take of one core, going by the speed of PPO on MinAtar's games and LunarLander:
    seven heads, 20 seeds and 5M steps each."""
    games = (
        read("minatar/runs.csv")
        .query("epsilon == 0")
        .groupby("env_id")["steps_per_second"]
        .median()
    )
    lander = (
        1_000_000 / read("ppo_checks/runs.csv").query("env_id == 'LunarLander-v3'")["seconds"]
    ).median()
    return sum(7 * 20 * 5_000_000 / speed / 3600 for speed in (*games, lander))


def hours(folder: str = HOURS) -> pd.DataFrame:
    """What benchmark/paper/table_1.sh would take of one core or, of the runs that HOURS_GPU has, of one GPU, going by short runs:
    steps per second, hours of a run, number of runs and hours of them all, by script, task and backbone."""
    frame = runs(folder)
    if "backbone" not in frame:  # as a flag that is the same in all runs has no column
        frame = frame.assign(backbone="cnn")
    frame = frame.set_index(["script", "task", "backbone"])
    number, steps = (
        [FULL[script, task][place] for script, task, _ in frame.index] for place in (0, 1)
    )
    frame = frame[["steps_per_second"]].assign(runs=number, steps=steps)
    frame = frame.assign(hours_a_run=frame["steps"] / frame["steps_per_second"] / 3600)
    return frame.assign(hours=frame["runs"] * frame["hours_a_run"])


def hours_table() -> str:
    """`hours` in a table, of a core and of a GPU."""
    of_core = hours()
    of_gpu = hours(HOURS_GPU).reindex(of_core.index)
    formats = {"steps_per_second": "{:.0f}", "hours_a_run": "{:,.1f}", "hours": "{:,.0f}"}
    rows = []
    for (script, task, backbone), row in of_core.iterrows():
        number = f"{row['runs']:.0f} of {row['steps'] / 1e6:.0f}M steps"
        cells = [title(script, FULL[script, task][2]), backbone, number]
        for frame in (of_core, of_gpu):
            found = frame.loc[script, task, backbone]
            cells += [
                "–" if pd.isna(found[column]) else form.format(found[column])
                for column, form in formats.items()
            ]
        rows.append(cells)
    columns = ["steps/s", "hours a run", "hours"]
    of_each = [f"{column}, {where}" for where in ("core", "GPU") for column in columns]
    return markdown(["script, tasks", "backbone", "runs", *of_each], rows)
