"""The second evidence, questions 1 to 8 of benchmark/results/README.md -> tables and pictures of docs/does-the-head-help.md.

    python -m benchmark.readme.second

draws the pictures, benchmark/results/second/*.png; the tables are written as benchmark/readme/tables.py says. All are
differences between two arms, paired by seed, in units of the normalised score (benchmark/reporting/thresholds.py): means, 95 %
intervals, and verdicts. These are corrected together, by Benjamini and Hochberg, over all that one table shows of a measure, and so
they stand in its picture, which may show some of it.
"""

from collections.abc import Iterable
from functools import cache

import pandas as pd

from benchmark.readme import evidence
from benchmark.readme.forest import forest
from benchmark.readme.tables import RESULTS, markdown, read
from benchmark.reporting.comparisons import compared, read_runs
from benchmark.reporting.thresholds import plain_id

Pair = tuple[str, str]  # an arm, and the one that it is compared with
Part = tuple[pd.DataFrame, tuple[str, ...]]  # runs, and their values of a flag, the default first

PICTURES = RESULTS / "second"
AREA, GREEDY = "normalised_area", "normalised_greedy"
MEASURES = {AREA: "sampled area", GREEDY: "greedy return"}
AXES = {
    AREA: "difference of normalised areas, 95 % intervals (right of 0: earns more while learning)",
    GREEDY: "difference of normalised greedy returns, 95 % intervals (right of 0: higher)",
}
NAMES = {
    "linear": "learned head",
    "matched": "matched learned head",
    "etf": "frozen ETF",
    "etf-trainable": "trainable ETF",
    "random": "frozen random rows",
    "random-trainable": "trainable random rows",
    "orthogonal": "frozen orthogonal rows",
}
PAIRS = (
    ("matched", "linear"),
    ("etf", "linear"),
    ("etf", "matched"),
    ("etf", "etf-trainable"),
    ("etf", "random"),
    ("etf-trainable", "matched"),
)
HEADS = ("linear", "matched", "etf")  # questions 4 to 6
GAINS = (("etf", "linear"), ("matched", "linear"), ("etf", "matched"))
MANY = {  # question 1: titles and folders
    "K = 18": "many_actions_18",
    "K = 18, 200k": "many_actions_18_long",
    "K = 50": "many_actions_50",
}
NEAR_K = ("near_k_ideal", "near_k_lake", "near_k_many")  # question 2
GEOMETRY = (
    ("etf", "random"),
    ("etf-trainable", "random-trainable"),
    ("etf", "etf-trainable"),
    ("etf", "matched"),
)
ADDED = (  # when the runs had been seen
    ("orthogonal", "random"),
    ("etf", "orthogonal"),
    ("etf", "linear"),
)
IN_PICTURE = (  # of question 2
    ("etf", "random"),
    ("orthogonal", "random"),
    ("etf", "etf-trainable"),
    ("etf", "matched"),
)
ARMS = ("linear", "matched", "etf", "etf-trainable", "random")
AGAIN = {  # question 3
    "PPO": "again_ppo",
    "A2C": "again_a2c",
    "TRPO": "again_trpo",
    "REINFORCE": "again_reinforce",
}
LONGER = {  # question 4
    "PPO": "longer_ppo",
    "A2C": "longer_a2c",
    "TRPO": "longer_trpo",
    "REINFORCE": "longer_reinforce",
}
SINGLES = {  # folders of runs of one seed, and where the same trained in one process
    "singles": ("again_ppo", "again_a2c"),
    "singles_more": ("together_more",),
}
OPTIMIZER = {  # question 5: folders, and their values of a flag, the default first
    "PPO": ("optimizer_ppo", ("1e-5", "1e-8")),
    "A2C": ("optimizer_a2c", ("3.16e-3", "1e-5")),
    "TRPO": ("optimizer_trpo", ("0.1", "0.01")),
}
EPSILONS = ("0", "0.001", "0.01", "0.1", "0.3")  # question 6
TUNED_HEADS = ("linear", "etf", "etf-trainable")  # question 7
TUNED = (("etf", "linear"), ("etf", "etf-trainable"), ("etf-trainable", "linear"))
FIELD = ("field", "field_more")  # question 8, PPO


@cache
def runs(folder: str) -> pd.DataFrame:
    """The finished runs. `arm` is that of the command, and `matched` the learned head that starts as large as the frame; of an
    arm "HEAD,VALUE" it is the head, and `value` the rest. `task` is a plain name. Raises ValueError if runs repeat."""
    frame, repeated = read_runs(RESULTS / folder)
    if repeated:
        raise ValueError(f"{folder}: repeated runs {repeated}")
    names = frame["plain_arm"].str.partition(",")
    arms = names[0].where(~names[0].str.startswith("linear:"), "matched")
    return frame.assign(arm=arms, value=names[2], task=frame["env_id"].map(plain_id))


def seed_means(frame: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The means over tasks (seeds, arms). Raises ValueError if an arm lacks a run or its score."""
    cells = frame.pivot(index=["seed", "task"], columns="arm", values=measure)
    if cells.isna().any(axis=None):
        raise ValueError(f"{measure} is not known of all seeds, tasks and arms")
    return cells.groupby("seed").mean()


def differences(
    parts: dict[str, pd.DataFrame], pairs: Iterable[Pair], measure: str
) -> pd.DataFrame:
    """A comparison for each pair of arms that a part has: `compared`, with `name`, the part's, and `panel`, the pair."""
    rows = []
    sides = []
    pairs = [*pairs]
    for name, part in parts.items():
        scores = seed_means(part, measure)
        for arm, baseline in pairs:
            if {arm, baseline} <= set(scores):
                rows.append({"name": name, "panel": (arm, baseline), "measure": measure})
                sides.append((scores[arm].to_numpy(), scores[baseline].to_numpy()))
    return compared(rows, sides)


# Words
def cell(row: dict) -> str:
    """Difference, 95 % interval if there is one, and verdict."""
    limits = f" [{row['low']:+.3f}, {row['high']:+.3f}]" if row["low"] < row["high"] else ""
    word = "open" if row["verdict"] == "not distinguishable" else f"**{row['verdict']}**"
    return f"{row['difference']:+.3f}{limits} {word}"


def pair_names(pairs: Iterable[Pair]) -> dict[Pair, str]:
    """Of columns, by pair."""
    return {pair: f"{NAMES[pair[0]]} against {NAMES[pair[1]]}" for pair in pairs}


def titles(pairs: Iterable[Pair]) -> dict[Pair, str]:
    """Of panels, by pair: three lines each."""
    return {pair: f"{NAMES[pair[0]]}\nagainst\n{NAMES[pair[1]]}" for pair in pairs}


# Questions 1 and 3
def over_tasks(folders: dict[str, str], measures: Iterable[str]) -> str:
    """A row for each pair of arms; for each folder, by its title, a column for each measure, means over all tasks."""
    parts = {title: runs(folder) for title, folder in folders.items()}
    table = {}
    for measure in measures:
        for row in differences(parts, PAIRS, measure).to_dict("records"):
            table[row["name"], measure, row["panel"]] = cell(row)
    columns = [(title, measure) for title in folders for measure in measures]
    rows = []
    for pair, name in pair_names(PAIRS).items():
        rows.append([name, *(table[*column, pair] for column in columns)])
    return markdown(["", *(f"{title}, {MEASURES[measure]}" for title, measure in columns)], rows)


def by_task(frames: dict[str, pd.DataFrame], pairs: Iterable[Pair], measure: str) -> pd.DataFrame:
    """The pairs by frame, under its title, on each task and over all."""
    parts = {}
    for title, frame in frames.items():
        for task, part in frame.groupby("task"):
            parts[f"{title}, {task}"] = part
        parts[f"{title}, all"] = frame
    return differences(parts, pairs, measure)


def by_task_table(frames: dict[str, pd.DataFrame], measure: str) -> str:
    return by_name(by_task(frames, PAIRS, measure), pair_names(PAIRS), measure)


def again() -> dict[str, pd.DataFrame]:
    """By algorithm."""
    return {name: runs(folder) for name, folder in AGAIN.items()}


def stuck() -> str:
    """Of question 3's runs on Acrobot, and of the further ones, how many end below -400, as a policy does that hardly ever
    reaches the goal; empty where an arm was not run."""
    rows = []
    for name, folder in (AGAIN | {"PPO, 40 further seeds": "singles_more"}).items():
        on_acrobot = runs(folder).query("task == 'Acrobot-v1'")
        counts = []
        for arm in ARMS:
            finals = on_acrobot.loc[on_acrobot["arm"] == arm, "final"]
            counts.append(f"{(finals < -400).sum()} of {len(finals)}" if len(finals) else "")
        rows.append([name, *counts])
    return markdown(["", *(NAMES[arm] for arm in ARMS)], rows)


def power() -> str:
    """The smallest difference between frozen ETF and learned head, a mean over question 3's tasks, that its pairs find in 80 % of
    experiments: as planned, and by their own spread; empty where they are not run."""
    rows = []
    for script, (area, final) in evidence.planned_power().items():
        name = script.removesuffix("_acpg").upper()
        seen = {measure: "" for measure in MEASURES}
        if name in AGAIN:
            for measure in MEASURES:
                scores = seed_means(runs(AGAIN[name]), measure)
                least = evidence.least_difference(scores["etf"] - scores["linear"], len(scores))
                seen[measure] = f"{least:.3f}"
        rows.append([name, f"{area:.3f}", seen[AREA], f"{final:.3f}", seen[GREEDY]])
    columns = ["area, planned", "area, seen", "final return, planned", "greedy return, seen"]
    return markdown(["", *columns], rows)


# Question 2
def near_k(pairs: Iterable[Pair], measure: str) -> pd.DataFrame:
    """The pairs by task and by the width d of the activations."""
    parts = {}
    for folder in NEAR_K:
        frame = runs(folder)
        for width, part in frame.groupby(frame["feature_dim"].astype(int)):
            task = part["task"].iloc[0].rpartition("-")[0]
            parts[f"{task}, d = {width}"] = part
    return differences(parts, pairs, measure)


def by_name(found: pd.DataFrame, columns: dict, measure: str) -> str:
    """A table of comparisons: a row for each `name`, and for each `panel`, by its title, a column; empty where there is none."""
    table = {}
    names = {}
    for row in found.to_dict("records"):
        names[row["name"]] = None
        table[row["name"], row["panel"]] = cell(row)
    rows = [[name, *(table.get((name, panel), "") for panel in columns)] for name in names]
    return markdown([MEASURES[measure], *columns.values()], rows)


def near_k_table(pairs: Iterable[Pair], measure: str) -> str:
    """`near_k` as a table; a cell is empty where an arm needs more dimensions."""
    return by_name(near_k(pairs, measure), pair_names(pairs), measure)


# Questions 4 to 7
def gains(parts: dict[str, Part], measure: str, pairs: Iterable[Pair]) -> pd.DataFrame:
    """For each part and pair of arms a comparison of the first arm with the second with each value, and one of what each other
    value changes about that gain: the gain with it less the gain with the default. Means over the part's tasks. Raises
    ValueError if the values have different seeds."""
    rows = []
    sides = []
    for name, part in parts.items():
        scores = scores_of_values(name, part, measure)
        default, *others = scores
        for pair in pairs:
            arm, baseline = pair
            for value in scores:
                row = {"name": f"{name}, {value}", "panel": pair, "measure": measure}
                rows.append(row)
                sides.append((scores[value][arm].to_numpy(), scores[value][baseline].to_numpy()))
            gain = {value: scores[value][arm] - scores[value][baseline] for value in scores}
            for value in others:
                row = {"name": f"{name}, change to {value}", "panel": pair, "measure": measure}
                rows.append(row)
                sides.append((gain[value].to_numpy(), gain[default].to_numpy()))
    return compared(rows, sides)


def changes(parts: dict[str, Part], measure: str, arms: Iterable[str]) -> pd.DataFrame:
    """For each part and arm a comparison of each other value with the default: what it changes about the arm's own score. As
    `gains`, but that `panel` is the arm."""
    rows = []
    sides = []
    for name, part in parts.items():
        scores = scores_of_values(name, part, measure)
        default, *others = scores
        for arm in arms:
            for value in others:
                what = f"{name}, {value} less {default}"
                rows.append({"name": what, "panel": arm, "measure": measure})
                sides.append((scores[value][arm].to_numpy(), scores[default][arm].to_numpy()))
    return compared(rows, sides)


def scores_of_values(name: str, part: Part, measure: str) -> dict[str, pd.DataFrame]:
    """By value: `seed_means`."""
    frame, values = part
    scores = {value: seed_means(frame[frame["value"] == value], measure) for value in values}
    if len({tuple(table.index) for table in scores.values()}) > 1:
        raise ValueError(f"{name}: values have different seeds")
    return scores


def side_by_side(frames: dict[str, pd.DataFrame]) -> Part:
    """The frames, each with its name as `value`, as far as the tasks and arms of the last one go."""
    *_, last = frames.values()
    both = pd.concat(frame.assign(value=name) for name, frame in frames.items())
    return both[both["task"].isin(last["task"]) & both["arm"].isin(last["arm"])], (*frames,)


def each_task(parts: dict[str, Part]) -> dict[str, Part]:
    """The parts by task."""
    found = {}
    for name, (frame, values) in parts.items():
        for task, part in frame.groupby("task"):
            found[f"{name}, {task}"] = part, values
    return found


def longer() -> dict[str, Part]:
    """500k steps beside question 3's 200k, by algorithm and task."""
    parts = {}
    for name, folder in LONGER.items():
        parts[name] = side_by_side({"200k": runs(AGAIN[name]), "500k": runs(folder)})
    return each_task(parts)


def optimizer() -> dict[str, Part]:
    """By algorithm. PPO has a third value, its default with the gradients of actor and critic clipped apart."""
    parts = {name: (runs(folder), values) for name, (folder, values) in OPTIMIZER.items()}
    frame, values = parts["PPO"]
    apart = runs("clipped_apart").assign(value="clipped apart")
    return parts | {"PPO": (pd.concat([frame, apart]), (*values, "clipped apart"))}


def epsilon() -> dict[str, Part]:
    """By task."""
    return {task: (part, EPSILONS) for task, part in runs("epsilon").groupby("task")}


def tuned() -> dict[str, Part]:
    """Tuned runs beside those of questions 3 and 8, with default flags, by task and over all."""
    defaults = pd.concat([runs(AGAIN["PPO"]), field()])
    both, values = side_by_side({"default": defaults, "tuned": runs("tuned")})
    tasks = {task: (part, values) for task, part in both.groupby("task")}
    return tasks | {"all": (both, values)}


QUESTIONS = {  # parts, and the pairs of arms that are compared
    "longer": (longer, GAINS),
    "optimizer": (optimizer, GAINS),
    "epsilon": (epsilon, GAINS),
    "tuned": (tuned, TUNED),
}


def gains_of(name: str, measure: str) -> pd.DataFrame:
    """Of one of the QUESTIONS."""
    parts, pairs = QUESTIONS[name]
    return gains(parts(), measure, pairs)


def gains_table(name: str, measure: str) -> str:
    _, pairs = QUESTIONS[name]
    return by_name(gains_of(name, measure), pair_names(pairs), measure)


def changes_table(parts: dict[str, Part], measure: str, arms: Iterable[str]) -> str:
    return by_name(changes(parts, measure, arms), {arm: NAMES[arm] for arm in arms}, measure)


def optimizer_scores() -> str:
    """The normalised areas themselves: means over tasks and seeds, by algorithm, value and head."""
    rows = []
    for name, part in optimizer().items():
        for value, scores in scores_of_values(name, part, AREA).items():
            means = scores.mean()
            rows.append([f"{name}, {value}", *(f"{means[head]:.3f}" for head in HEADS)])
    return markdown(["sampled area", *(NAMES[head] for head in HEADS)], rows)


# Question 8
def field() -> pd.DataFrame:
    return pd.concat(runs(folder) for folder in FIELD)


def lander() -> str:
    """How the greedy episodes on LunarLander end, a row for each head: mean return, how many last 1,000 steps, at which they are cut
    off, their mean return, and how many return more than 100, as a landing does."""
    episodes = read("lander/greedy.csv")
    rows = []
    for arm in ARMS:
        returns, lengths = episodes.loc[episodes["arm"] == arm, ["return", "length"]].T.to_numpy()
        endless = lengths == 1000
        rows.append(
            [
                NAMES[arm],
                f"{returns.mean():.0f}",
                f"{endless.sum()} of {len(returns)}",
                f"{returns[endless].mean():.0f}",
                f"{(returns > 100).sum()}",
            ]
        )
    columns = ["greedy return", "cut off after 1,000 steps", "return of these", "above 100"]
    return markdown(["LunarLander", *columns], rows)


# Many seeds in one process
def singles() -> pd.DataFrame:
    """Areas of seeds that trained in one process less those of the same in processes of their own, by script, task and head,
    and in the cells with 40 further seeds: a comparison each, paired by seed, with both means and standard deviations. Raises
    ValueError if the seeds differ."""
    keys = ["script", "task", "arm", "seed"]
    rows = []
    sides = []
    for alone, together in SINGLES.items():
        others = pd.concat([runs(folder) for folder in together])
        both = runs(alone).merge(others, on=keys, suffixes=("_alone", "_together"), validate="1:1")
        if len(both) < len(runs(alone)):
            raise ValueError(f"{alone}: has seeds that {', '.join(together)} lack")
        for kind, part in both.groupby(keys[:3]):
            areas = part[["area_alone", "area_together"]]
            what = dict(zip(keys, kind)) | {"measure": "area"} | areas.mean().to_dict()
            rows.append(what | areas.std().add_suffix("_std").to_dict())
            sides.append((part["area_together"].to_numpy(), part["area_alone"].to_numpy()))
    return compared(rows, sides)


def singles_table() -> str:
    rows = []
    for row in singles().itertuples():
        mean = abs(row.area_alone)
        percent = [100 * x / mean for x in (row.difference, row.low, row.high)]
        rows.append(
            [
                f"`{row.script}`, {row.task}, {NAMES[row.arm]}",
                str(row.seeds),
                f"{row.area_alone:.1f} ± {row.area_alone_std:.1f}",
                f"{row.area_together:.1f} ± {row.area_together_std:.1f}",
                "{:+.1f} % [{:+.1f}, {:+.1f}]".format(*percent),
                f"{row.corrected:.2f}",
            ]
        )
    columns = ["area", "seeds", "runs of one", "in one process", "difference", "corrected p"]
    return markdown(columns, rows)


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    for measure, name in ((AREA, "area"), (GREEDY, "greedy")):
        shown = near_k(GEOMETRY + ADDED, measure)
        forest(shown, titles(IN_PICTURE), AXES[measure], PICTURES / f"near_k-{name}.png")
        shown = by_task(again(), PAIRS, measure)
        forest(shown, titles(GAINS), AXES[measure], PICTURES / f"again-{name}.png")
        shown = by_task({"PPO": field()}, PAIRS, measure)
        forest(shown, titles(GAINS), AXES[measure], PICTURES / f"field-{name}.png")
    for name, (_, pairs) in QUESTIONS.items():
        forest(gains_of(name, AREA), titles(pairs), AXES[AREA], PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
