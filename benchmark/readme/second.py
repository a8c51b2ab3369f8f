"""The second evidence, questions 1 to 6 of benchmark/results/README.md -> tables and pictures of docs/does-the-head-help.md.

    python -m benchmark.readme.second

draws the pictures, benchmark/results/second/*.png; the tables are written as benchmark/readme/tables.py says. All are
differences between two arms, paired by seed, in units of the normalised score (benchmark/reporting/thresholds.py): means, 95 %
intervals, and verdicts corrected over a table or picture by Benjamini and Hochberg.
"""

from collections.abc import Iterable
from functools import cache

import pandas as pd

from benchmark.readme.forest import forest
from benchmark.readme.tables import RESULTS, markdown
from benchmark.reporting.comparisons import compared, read_runs
from benchmark.reporting.thresholds import plain_id

PICTURES = RESULTS / "second"
AREA, GREEDY = "normalised_area", "normalised_greedy"
MEASURES = {AREA: "sampled area", GREEDY: "greedy return"}
NAMES = {
    "linear": "learned head",
    "matched": "matched learned head",
    "etf": "frozen ETF",
    "etf-trainable": "trainable ETF",
    "random": "frozen random rows",
    "random-trainable": "trainable random rows",
}
PAIRS = (
    ("matched", "linear"),
    ("etf", "linear"),
    ("etf", "matched"),
    ("etf", "etf-trainable"),
    ("etf", "random"),
    ("etf-trainable", "matched"),
)
MANY = {  # columns of question 1: a folder each
    "K = 18": "many_actions_18",
    "K = 18, 200k": "many_actions_18_long",
    "K = 50": "many_actions_50",
}
NEAR_K = ("near_k_ideal", "near_k_lake", "near_k_many")
ALGORITHMS = {"ppo": "PPO", "a2c": "A2C", "trpo": "TRPO", "reinforce": "REINFORCE"}
DEFAULTS = {  # of question 5: the value that is a script's default, and the other one
    "ppo": ("1e-5", "1e-8"),
    "a2c": ("3.16e-3", "1e-5"),
    "trpo": ("0.1", "0.01"),
}
EPSILONS = ("0", "0.001", "0.01", "0.1", "0.3")
HEADS = {  # pairs of questions 3 to 6, and what a panel is called
    ("etf", "linear"): "frozen ETF\nagainst learned head",
    ("matched", "linear"): "matched learned head\nagainst learned head",
    ("etf", "matched"): "frozen ETF against\nmatched learned head",
}
GEOMETRY = {  # pairs of question 2, and what they show
    ("etf", "random"): "frozen ETF against\nfrozen random rows",
    ("etf-trainable", "random-trainable"): "trainable ETF against\ntrainable random rows",
    ("etf", "etf-trainable"): "frozen ETF against\ntrainable ETF",
    ("etf", "matched"): "frozen ETF against\nmatched learned head",
}
AXES = {
    AREA: "difference of normalised areas, 95 % intervals (right of 0: earns more while learning)",
    GREEDY: "difference of normalised greedy returns, 95 % intervals (right of 0: higher)",
    "both": "difference of normalised scores, 95 % intervals (right of 0: higher)",
}


@cache
def runs(folder: str) -> pd.DataFrame:
    """The finished runs. Arms are those of the command, the learned head that starts as large as the frame is `matched`;
    `task` is a plain name. An arm "HEAD,VALUE" is that head with a `value`."""
    frame, repeated = read_runs(RESULTS / folder)
    if repeated:
        raise ValueError(f"{folder}: repeated runs {repeated}")
    names = frame["plain_arm"].str.partition(",")
    arms = names[0].where(~names[0].str.startswith("linear:"), "matched")
    task = frame["env_id"].map(plain_id)
    return frame.assign(arm=arms, value=names[2], task=task)


def by_seed(frame: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The means over tasks (seeds, arms). Raises ValueError if an arm lacks a task's run or its score."""
    cells = frame.pivot(index=["seed", "task"], columns="arm", values=measure)
    if cells.isna().any(axis=None):
        raise ValueError(f"{measure} is not known of all seeds, tasks and arms")
    return cells.groupby("seed").mean()


def differences(
    parts: Iterable[tuple[str, pd.DataFrame]], pairs: Iterable[tuple[str, str]], measure: str
) -> pd.DataFrame:
    """A comparison for each pair of arms that a part has: `compared`, with `name`, the part's, and `panel`, the pair. All are
    corrected together."""
    rows = []
    sides = []
    pairs = [*pairs]
    for name, part in parts:
        scores = by_seed(part, measure)
        for arm, baseline in pairs:
            if {arm, baseline} <= set(scores):
                rows.append({"name": name, "panel": (arm, baseline), "measure": measure})
                sides.append((scores[arm].to_numpy(), scores[baseline].to_numpy()))
    return compared(rows, sides)


# Tables
def cell(row: dict) -> str:
    """Difference, 95 % interval and verdict."""
    word = "open" if row["verdict"] == "not distinguishable" else f"**{row['verdict']}**"
    return f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] {word}"


def pair_name(pair: tuple[str, str]) -> str:
    return f"{NAMES[pair[0]]} against {NAMES[pair[1]]}"


def over_tasks(folders: dict[str, str], pairs: Iterable[tuple[str, str]] = PAIRS) -> str:
    """A row for each pair of arms; for each folder, by its title, a column of the sampled area and one of the greedy return,
    means over all tasks. Verdicts are corrected over a column."""
    pairs = [*pairs]
    titles = []
    columns = []
    for title, folder in folders.items():
        for measure, kind in MEASURES.items():
            titles.append(f"{title}, {kind}")
            compared_pairs = differences([(title, runs(folder))], pairs, measure)
            columns.append([cell(row) for row in compared_pairs.to_dict("records")])
    rows = [[pair_name(pair), *cells] for pair, *cells in zip(pairs, *columns, strict=True)]
    return markdown(["", *titles], rows)


# Question 2
def near_k(measure: str) -> pd.DataFrame:
    """The pairs of GEOMETRY by task and by the width of the activations."""
    parts = []
    for folder in NEAR_K:
        for width, part in (
            runs(folder).assign(width=runs(folder)["feature_dim"].astype(int)).groupby("width")
        ):
            task = part["task"].iloc[0].removesuffix("-v0").removesuffix("-v1")
            parts.append((f"{task}, d = {width}", part))
    return differences(parts, GEOMETRY, measure)


def near_k_table(measure: str) -> str:
    found = near_k(measure).to_dict("records")
    table = {(row["name"], row["panel"]): row for row in found}
    names = dict.fromkeys(row["name"] for row in found)
    rows = [[name, *(cell(table[name, pair]) for pair in GEOMETRY)] for name in names]
    return markdown([MEASURES[measure], *map(pair_name, GEOMETRY)], rows)


# Questions 3 to 6
def folders(question: str) -> dict[str, str]:
    """The question's folders of results that are there, by the algorithm's name."""
    names = {name: f"{question}_{script}" for script, name in ALGORITHMS.items()}
    return {name: folder for name, folder in names.items() if (RESULTS / folder).exists()}


def again() -> pd.DataFrame:
    """Question 3: the pairs of HEADS over the four tasks, by algorithm, sampled and greedy."""
    tables = []
    for measure, kind in MEASURES.items():
        parts = [(f"{name}, {kind}", runs(folder)) for name, folder in folders("again").items()]
        tables.append(differences(parts, HEADS, measure))
    return pd.concat(tables).sort_values("name", kind="stable")


def longer() -> pd.DataFrame:
    """Question 4: the same on each task, after 500k steps."""
    tables = []
    for measure, kind in MEASURES.items():
        parts = []
        for name, folder in folders("longer").items():
            for task, part in runs(folder).groupby("task"):
                parts.append((f"{name}, {task}, {kind}", part))
        tables.append(differences(parts, HEADS, measure))
    return pd.concat(tables).sort_values("name", kind="stable")


def gains(frame: pd.DataFrame, values: tuple[str, ...], measure: str) -> pd.DataFrame:
    """For each pair of HEADS: the first arm's gain on the second with each of the values, means over the frame's tasks; and
    what a value changes about it, the gain with it less the gain with the first value. `name` is the value. All are corrected
    together."""
    scores = {value: by_seed(frame[frame["value"] == value], measure) for value in values}
    rows = []
    sides = []
    for arm, baseline in HEADS:
        gain = {value: scores[value][arm] - scores[value][baseline] for value in values}
        for value in values:
            changes = (("gain", 0 * gain[value]), ("change", gain[values[0]]))
            for what, other in changes[: 1 if value == values[0] else 2]:
                what = {"name": value, "panel": (arm, baseline), "what": what, "measure": measure}
                rows.append(what)
                sides.append((gain[value].to_numpy(), other.to_numpy()))
    return compared(rows, sides)


def gains_table(frame: pd.DataFrame, values: tuple[str, ...], title: str) -> str:
    """`gains` of the sampled area: a row for each value, for each pair of HEADS a column of gains and one of changes."""
    found = gains(frame, values, AREA).to_dict("records")
    table = {(row["name"], row["panel"], row["what"]): row for row in found}
    rows = []
    for value in values:
        cells = [value]
        for pair in HEADS:
            cells.append(cell(table[value, pair, "gain"]))
            first = value == values[0]
            cells.append("" if first else cell(table[value, pair, "change"]))
        rows.append(cells)
    titles = [title]
    for pair in HEADS:
        titles += [pair_name(pair), f"change against {title} {values[0]}"]
    return markdown(titles, rows)


# Many seeds in one process
def singles() -> pd.DataFrame:
    """Areas of seeds that trained in one process, and of the same in processes of their own, by script, task and head: a
    comparison each, paired by seed, with the areas' means and standard deviations. All are corrected together."""
    alone = runs("singles")
    rows = []
    sides = []
    for (script, task, arm), part in alone.groupby(["script", "task", "arm"]):
        together = runs(f"again_{script.removesuffix('_acpg')}")
        together = together[(together["task"] == task) & (together["arm"] == arm)]
        areas = pd.DataFrame(
            {
                "together": together.set_index("seed")["area"],
                "alone": part.set_index("seed")["area"],
            }
        )
        if areas.isna().any(axis=None):
            raise ValueError(f"{script}, {task}, {arm}: not the same seeds")
        what = {"script": script, "task": task, "arm": arm, "measure": "area", "seeds": len(areas)}
        for side in areas:
            what |= {side: areas[side].mean(), f"{side}_std": areas[side].std()}
        rows.append(what)
        sides.append((areas["together"].to_numpy(), areas["alone"].to_numpy()))
    return compared(rows, sides)


def singles_table() -> str:
    rows = []
    for row in singles().itertuples():
        rows.append(
            [
                f"`{row.script}`, {row.task}, {NAMES[row.arm]}",
                f"{row.alone:.1f} ± {row.alone_std:.1f}",
                f"{row.together:.1f} ± {row.together_std:.1f}",
                f"{100 * row.difference / abs(row.alone):+.1f} %",
                f"{row.difference:+.1f} [{row.low:+.1f}, {row.high:+.1f}]",
                f"{row.corrected:.2f}",
            ]
        )
    columns = ["area", "20 runs", "20 seeds of one process", "difference", "", "corrected p"]
    return markdown(columns, rows)


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    for measure, name in ((AREA, "area"), (GREEDY, "greedy")):
        forest(near_k(measure), GEOMETRY, AXES[measure], PICTURES / f"near_k-{name}.png")
    forest(again(), HEADS, AXES["both"], PICTURES / "again.png")
    forest(longer(), HEADS, AXES["both"], PICTURES / "longer.png")


if __name__ == "__main__":
    main()
