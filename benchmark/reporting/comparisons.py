"""Which arms are compared with which, and how: the tables of benchmark/collate.py -> comparisons for benchmark/report.py.

Within its group and on its environment every arm is compared with the baseline arm in three columns of runs.csv, `area`,
`final` and, where it is known, `greedy`. An arm that was run with several values of a flag counts as one arm for each, which
is compared only with like runs of the baseline, where this has several, too. Runs whose value is undefined are left out. Where
heads were run as controls, CONTRASTS tell what it is about a head: its freezing or its frame.

Over several tasks (groups and environments), scores are normalised: benchmark/reporting/thresholds.py says how. The statistics
are in benchmark/reporting/verdicts.py.
"""

import math
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.collate import HEAD_FLAGS, KEYS, fail
from benchmark.reporting import verdicts
from benchmark.reporting.measures import COLLAPSE, MEASURES
from benchmark.reporting.thresholds import normalised, plain_id

BASELINE = "linear"  # of tables without a column `baseline`
ALL = "all groups"
COMPARED = {"area": "area under the curve", "final": "final return", "greedy": "greedy return"}
NORMALISED = {f"normalised_{column}": f"normalised {name}" for column, name in COMPARED.items()}
FROZEN = ("etf", "random", "orthogonal")
TRAINABLE = ("etf-trainable", "random-trainable", "orthogonal-trainable")
CONTRASTS = (  # what differs, and the arms whose means are compared to see what that does
    ("freezing", FROZEN, TRAINABLE),
    ("freezing a simplex", ("etf",), ("etf-trainable",)),
    ("frame (and scale)", ("etf", "etf-trainable"), ("random", "random-trainable")),
    ("scale", ("etf", "etf-trainable"), ("orthogonal", "orthogonal-trainable")),
    ("frozen frame (and scale)", ("etf",), ("random",)),
    ("scale, frozen", ("etf",), ("orthogonal",)),
)
CELL = ["group", "env_id", "arm"]  # whose runs differ in their seeds only
NO_FLAGS = {*KEYS, *CELL, *MEASURES, *COLLAPSE, *HEAD_FLAGS, *NORMALISED, "script", "head"}
NO_FLAGS |= {"baseline", "greedy", "plain_arm", "task"}  # columns of runs.csv that are no flags
LARGEST = 1e100  # whose square is still a number


# TABLES
def read(
    path: Path, text: tuple[str, ...], numbers: tuple[str, ...], optional: tuple[str, ...] = ()
) -> pd.DataFrame:
    """A CSV file, or NAME.gz in its place, that must have these columns: `text`, which is never empty, and `numbers`, NaN for
    empty ones; and may have `optional` numbers. All others are text. Tables made before there were arms get their columns:
    then arms are heads of a script. Exits with a line of error that names the file and what is wrong."""
    path = path if path.exists() else next(path.parent.glob(f"{path.name}.gz"), path)
    options = {"dtype": str, "keep_default_na": False, "index_col": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # of rows that are too long
            frame = pd.read_csv(path, encoding="utf-8-sig", **options).fillna("")
    except (OSError, ValueError, EOFError, zlib.error, pd.errors.ParserWarning) as error:
        fail("results", path, f"{error}; python -m benchmark.collate makes it")
    if not {"group", "arm", "baseline"} & set(frame) and {"script", "head"} <= set(frame):
        frame = frame.assign(group=frame["script"], arm=frame["head"], baseline=BASELINE, greedy="")
    for column in (*text, *numbers):
        if column not in frame:
            reason = f"has no column {column!r}; make it anew with python -m benchmark.collate"
            fail("results", path, reason)
    for column in text:
        refuse(path, frame[column], frame[column] == "", "is empty")
    for column in (*numbers, *(column for column in optional if column in frame)):
        values = pd.to_numeric(frame[column], errors="coerce")
        unknown = frame[column].str.strip().str.lower().isin(["", "nan"])
        wrong = ~unknown & ~(values.abs() < LARGEST)
        refuse(path, frame[column], wrong, f"is no number below {LARGEST:g}")
        frame[column] = values
    return frame


def refuse(path: Path, cells: pd.Series, wrong: pd.Series, what: str) -> None:
    """Exit with a line of error if a cell of the column is wrong."""
    if wrong.any():
        row = wrong.idxmax()
        fail("results", path, f"row {row + 1}, column {cells.name!r}: {cells[row]!r} {what}")


def read_runs(results: Path, baseline: str | None = None) -> tuple[pd.DataFrame, list[str]]:
    """runs.csv of the directory, and the names of runs that were left out as they repeat another's name, or its seed and
    flags. `baseline` is to take the place of the file's. Further columns:

    plain_arm  the arm as in the file, where `arm` has the flags that tell its runs apart, too
    task       a short name of group and environment
    and NORMALISED
    """
    text = ("run", *CELL, "baseline", "seed")
    runs = read(results / "runs.csv", text, tuple(dict.fromkeys((*MEASURES, "greedy"))))
    if baseline is not None:
        if baseline not in set(runs["arm"]):
            arms = ", ".join(sorted(set(runs["arm"])))
            fail("baseline", baseline, f"no run has this arm; there are {arms}")
        runs["baseline"] = baseline
    runs = completed(runs)
    repeated = runs.duplicated("run") | runs.duplicated([*CELL, "seed"])
    return runs[~repeated].reset_index(drop=True), list(runs["run"][repeated])


def read_curves(results: Path, runs: pd.DataFrame, measures: tuple[str, ...]) -> pd.DataFrame:
    """curves.csv of the directory, those of the measures that it has too, of these runs, with what they are. Further columns
    are `axis`, what the steps are, and `normalised_value`. Of rows that repeat a run's step the first counts."""
    curves = read(results / "curves.csv", ("run",), ("step", "value"), optional=measures)
    present = [measure for measure in measures if measure in curves]
    curves = curves[["run", "step", "value", *present]].drop_duplicates(["run", "step"])
    keys = ["run", "group", "env_id", "task", "arm", "plain_arm", "baseline", "seed"]
    curves = curves.merge(runs[keys], on="run").sort_values(["run", "step"], ignore_index=True)
    zero = curves["env_id"].map(lambda env_id: normalised(env_id, 0.0)).astype(float)
    curves["normalised_value"] = zero + curves["value"] / curves["env_id"].map(unit)
    return curves.assign(axis="environment steps (thousands)")


def completed(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the further columns of `read_runs`."""
    runs = runs.assign(plain_arm=runs["arm"], arm=labelled(runs), task=task_names(runs))
    for column in COMPARED:
        scores = [normalised(env_id, score) for env_id, score in zip(runs["env_id"], runs[column])]
        runs[f"normalised_{column}"] = np.array(scores, dtype=float)
    return runs


def flags(runs: pd.DataFrame) -> list[str]:
    """The columns that are flags of the scripts."""
    return [column for column in runs if column not in NO_FLAGS]


def labelled(runs: pd.DataFrame) -> pd.Series:
    """The runs' arms, each with the flags in which its runs differ on an environment."""
    arms = runs["arm"].copy()
    names = flags(runs)
    if names:
        varies = runs.groupby(CELL)[names].transform("nunique") > 1
        for flag in names:
            arms = arms.where(~varies[flag], arms + f", {flag} " + runs[flag])
    return arms


def shortened(names: Iterable[str], shorten: Callable[[str], str]) -> dict[str, str]:
    """By name the shorter one, or the name itself where others would be the same."""
    short = {name: shorten(name) for name in set(names)}
    times = Counter(short.values())
    return {name: other if times[other] == 1 else name for name, other in short.items()}


def task_names(runs: pd.DataFrame) -> pd.Series:
    """A short name of each run's environment, and of its group, if there are several."""
    tasks = runs["env_id"].map(shortened(runs["env_id"], plain_id))
    if runs["group"].nunique() < 2:
        return tasks
    groups = shortened(runs["group"], lambda name: name.removesuffix("_acpg"))
    return runs["group"].map(groups) + ", " + tasks


def unit(env_id: str) -> float:
    """What 1 of the normalised scale is in the environment's returns, NaN if that is unknown."""
    ends = normalised(env_id, 0.0), normalised(env_id, 1.0)
    return math.nan if None in ends else 1 / (ends[1] - ends[0])


def known(runs: pd.DataFrame, columns: dict[str, str]) -> dict[str, str]:
    """Those of the columns that some run has a value of."""
    return {column: name for column, name in columns.items() if runs[column].notna().any()}


def by_seed(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    """The column's values (CELLs, seeds), NaN where there is none."""
    return runs.pivot(index=CELL, columns="seed", values=column)


def rows_of(cells: pd.DataFrame | pd.Series, keys: pd.DataFrame, arm: str = "arm") -> np.ndarray:
    """Of each of the keys the row of its group, environment and arm, which is in the column `arm`: of the cells, which are by
    CELL, as `by_seed` makes them (keys, seeds)."""
    return cells.reindex(pd.MultiIndex.from_frame(keys[["group", "env_id", arm]])).to_numpy()


# COMPARISONS
def pairs(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each arm on a group's environment and each like arm of the baseline there: group, env_id, task, arm, baseline.
    They are alike if they agree in the flags that tell several arms of one name apart, except where one ignores the flag."""
    cells = runs.drop_duplicates(CELL)
    names = flags(runs)
    varies = cells.groupby(["group", "env_id", "plain_arm"])[names].transform("nunique") > 1
    cells = cells.join(varies.add_suffix(" varies"))
    arms = ["group", "env_id", "baseline"]
    baselines = ["group", "env_id", "plain_arm"]
    suffixes = ("", " of the baseline")
    both = cells.merge(cells, left_on=arms, right_on=baselines, suffixes=suffixes)
    unlike = (both["plain_arm"] == both["baseline"]).to_numpy()
    for flag in names:
        ours = both[flag]
        theirs = both[f"{flag} of the baseline"]
        telling = both[f"{flag} varies"] | both[f"{flag} varies of the baseline"]
        unlike = unlike | (telling & (ours != theirs) & (ours != "") & (theirs != "")).to_numpy()
    both = both.assign(baseline=both["arm of the baseline"])[~unlike]
    both = both.sort_values(["group", "task", "arm", "baseline"], ignore_index=True)
    return both[["group", "env_id", "task", "arm", "baseline"]]


def task_comparisons(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per measure and pair: the comparison, its verdict, the standard deviations `spread` and `baseline_spread` over
    seeds, and the p value of `equal_spread`."""
    keys = pairs(runs)
    tables = []
    for column, measure in known(runs, COMPARED).items():
        cells = by_seed(runs, column)
        sides = [rows_of(cells, keys), rows_of(cells, keys, "baseline")]
        spread, baseline_spread = (np.sqrt(verdicts.moments(side)[2]) for side in sides)
        tests = [
            verdicts.equal_spread(*(row[~np.isnan(row)] for row in rows)) for rows in zip(*sides)
        ]
        table = pd.concat([keys, verdicts.compare(*sides)], axis=1)
        table = table.assign(measure=measure, column=column, spread=spread)
        table = table.assign(baseline_spread=baseline_spread, equal_spread=tests)
        tables.append(table.dropna(subset="difference"))
    return verdicts.judged(pd.concat(tables, ignore_index=True)) if tables else compared([], [])


def over(groups: Iterable[str], group: str, tasks: int) -> dict[str, object]:
    """What a row over several tasks of the group, or of ALL these groups, is called."""
    number = "1 task" if tasks == 1 else f"{tasks} tasks"
    short = shortened([*groups, ALL], lambda name: name.removesuffix("_acpg"))[group]
    task = number if len(set(groups)) == 1 else f"{short}, {number}"
    return {"group": group, "env_id": number, "task": task, "tasks": tasks}


def scopes(keys: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each group with its rows; and ALL with all rows, if there are several groups."""
    yield from keys.groupby("group")
    if keys["group"].nunique() > 1:
        yield ALL, keys


def several_tasks(runs: pd.DataFrame, column: str) -> Iterator[tuple[dict, np.ndarray, np.ndarray]]:
    """For each group, and for all of them, and each arm and baseline: what is compared, and the column's values with the arm
    and with the baseline, each (seeds, tasks), for the tasks where it is known and the seeds that all of these have."""
    runs = runs.dropna(subset=column)
    keys = pairs(runs)
    cells = by_seed(runs, column)
    sides = rows_of(cells, keys), rows_of(cells, keys, "baseline")
    for group, members in scopes(keys):
        for (arm, baseline), rows in members.groupby(["arm", "baseline"]):
            if group == ALL and rows["group"].nunique() == 1:
                continue
            ours, theirs = (side[rows.index] for side in sides)
            shared = ~np.isnan(ours).any(axis=0) & ~np.isnan(theirs).any(axis=0)
            if shared.any():
                values = np.sum(~np.isnan(ours)) + np.sum(~np.isnan(theirs))
                names = over(keys["group"].unique(), group, len(rows))
                names |= {"arm": arm, "baseline": baseline, "runs": int(shared.sum())}
                names |= {"left_out": int(values) - 2 * len(rows) * names["runs"]}
                yield names, ours[:, shared].T, theirs[:, shared].T


def aggregate_comparisons(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per measure of NORMALISED, group (and all of them), arm and baseline: the comparison of the seeds' means over
    several tasks, its verdict, and the interquartile means `iqm` and `baseline_iqm` with their intervals."""
    rows = []
    sides = []
    for column, measure in known(runs, NORMALISED).items():
        for names, *scores in several_tasks(runs, column):
            if names["tasks"] > 1:
                iqm, baseline_iqm = (verdicts.interval(side, verdicts.iqm) for side in scores)
                names |= {"measure": measure, "column": column.removeprefix("normalised_")}
                rows.append(names | {"iqm": iqm, "baseline_iqm": baseline_iqm})
                sides.append([side.mean(axis=1) for side in scores])
    return compared(rows, sides)


def compared(rows: list[dict], sides: list[tuple[np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """The rows, a comparison each of two sides (seeds,), with the verdicts; sides may differ in their number of seeds."""
    if not rows:
        return pd.DataFrame(columns=[*CELL, "task", "measure", "column", "baseline", "verdict"])
    # of lists of unequal lengths pandas makes rows that end in NaN
    arms, baselines = (pd.DataFrame([list(pair[k]) for pair in sides]).to_numpy() for k in (0, 1))
    return verdicts.judged(pd.DataFrame(rows).join(verdicts.compare(arms, baselines)))


def improvements(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per measure, group (and all of them), arm and baseline: the probability of improvement with its interval."""
    rows = []
    for column, measure in known(runs, COMPARED).items():
        for names, arm, baseline in several_tasks(runs, column):
            chance = verdicts.improvement(arm, baseline)
            rows.append(names | {"measure": measure, "probability": chance})
    return pd.DataFrame(rows)


def contrast_comparisons(runs: pd.DataFrame, contrasts: tuple = CONTRASTS) -> pd.DataFrame:
    """Those of the contrasts whose arms were run with one value of each flag: a row per group, environment and measure; and,
    of normalised scores, per group and for all of them over all tasks where these are known. A side is a seed's mean over the
    arms and tasks, of the seeds that have all of them."""
    plain = runs[runs["arm"] == runs["plain_arm"]]
    rows = []
    sides = []
    for column, measure in known(plain, COMPARED | NORMALISED).items():
        members = plain.dropna(subset=column)
        cells = by_seed(members, column)
        tasks = members.drop_duplicates(["group", "env_id"])[["group", "env_id", "task"]]
        tasks = tasks.sort_values(["group", "task"], ignore_index=True)
        values = {arm: rows_of(cells, tasks.assign(arm=arm)) for arm in set(members["arm"])}
        possible = [
            (factor, *arms) for factor, *arms in contrasts if set().union(*arms) <= set(values)
        ]
        for names, places in contrast_tasks(tasks, column in NORMALISED):
            for factor, arms, others in possible:
                first = np.mean([values[arm][places] for arm in arms], axis=(0, 1))
                second = np.mean([values[arm][places] for arm in others], axis=(0, 1))
                shared = ~np.isnan(first - second)
                if shared.any():
                    what = {"factor": factor, "measure": measure}
                    what |= {"arm": ", ".join(arms), "baseline": ", ".join(others)}
                    rows.append(names | what)
                    sides.append((first[shared], second[shared]))
    return compared(rows, sides)


def contrast_tasks(tasks: pd.DataFrame, together: bool) -> Iterator[tuple[dict, pd.Index]]:
    """What a contrast is of, and its tasks' rows: each by itself, or those of a group, and of all groups, `together`."""
    if together:
        for group, places in scopes(tasks):
            if len(places) > 1:
                yield over(tasks["group"].unique(), group, len(places)), places.index
    else:
        for place, names in enumerate(tasks.to_dict("records")):
            yield names, tasks.index[[place]]


# STOPS
def stop_comparisons(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per pair on an environment with a threshold: of how many seeds the arm reaches it sooner."""
    runs = runs.dropna(subset="threshold")
    keys = pairs(runs)
    if not len(keys):
        return pd.DataFrame()
    steps = by_seed(runs.assign(stop=runs["stop"].fillna(math.inf)), "stop")
    arm, baseline = rows_of(steps, keys), rows_of(steps, keys, "baseline")
    both = ~np.isnan(arm) & ~np.isnan(baseline)
    sooner = np.sum(arm < baseline, axis=1)
    later = np.sum(arm > baseline, axis=1)
    p = [verdicts.sign_p(*counts) for counts in zip(sooner, later)]
    texts = pd.Series({key: stop(group) for key, group in runs.groupby(CELL)})
    keys = keys.assign(stop=rows_of(texts, keys), baseline_stop=rows_of(texts, keys, "baseline"))
    keys = keys.assign(sooner=sooner, later=later, seeds=both.sum(axis=1))
    return keys.assign(p=p, corrected=verdicts.corrected(p))


def stop(runs: pd.DataFrame) -> str:
    """Median step at which the threshold is reached, where a run that never does so counts as later than any other."""
    if runs["threshold"].isna().all():
        return "no threshold"
    median = runs["stop"].fillna(math.inf).median()
    reached = f"reached by {runs['stop'].count()} of {len(runs)}"
    return f"{median:,.0f} ({reached})" if math.isfinite(median) else f"– ({reached})"
