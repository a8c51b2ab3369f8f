"""The sentences and numbers of benchmark/report.py."""

import math
from collections.abc import Iterator

import pandas as pd

from benchmark.collate import COUNTS
from benchmark.reporting import verdicts
from benchmark.reporting.comparisons import ALL, COMPARED, flags, known, pairs, unit

PERCENT = f"{100 * verdicts.POWER:.0f} %"


# NUMBERS
def number(value: float) -> str:
    """Four significant digits, "–" for NaN."""
    if math.isnan(value):
        return "–"
    digits = 3 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(max(digits, 0), 5)}f}"


def signed(value: float) -> str:
    """Three significant digits with the sign."""
    if abs(value) >= 1000:
        return f"{value:+,.0f}"
    return f"{value:+.3g}"


def span(point: float, low: float, high: float) -> str:
    """A figure and its interval, unless that is unknown or has no width, as a bootstrap's of values that all agree."""
    if not low < high:
        return number(point)
    return f"{number(point)} ({number(low)} to {number(high)})"


def p_value(p: float) -> str:
    if math.isnan(p):
        return "–"
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def mean_std(values: pd.Series) -> str:
    """Mean and standard deviation of the values that are known, and of how many, if not of all."""
    known = values.dropna()
    text = number(known.mean())
    if len(known) > 1:
        text += f" ± {number(known.std())}"
    if 0 < len(known) < len(values):
        text += f" (of {len(known)})"
    return text


# ANSWERS
def relation(row: dict) -> str:
    """The verdict as a sentence without its end."""
    measure = COMPARED[row["column"]]
    arm, baseline = row["arm"], row["baseline"]
    if row["verdict"] == "not distinguishable":
        return f"{arm} is not distinguishable from {baseline} in its {measure}"
    size = "larger" if row["verdict"] == "better" else "smaller"
    if measure.endswith("return"):
        size = size.replace("larger", "higher").replace("smaller", "lower")
    return f"{arm} has a {size} {measure} than {baseline}"


def difference(row: dict) -> str:
    if math.isnan(row["low"]):
        return signed(row["difference"])
    return f"{signed(row['difference'])} [{signed(row['low'])}, {signed(row['high'])}]"


def tally(rows: pd.DataFrame) -> str:
    """How many single tasks have each verdict."""
    better, worse, undecided = ((rows["verdict"] == word).sum() for word in verdicts.WORDS)
    return f"better in {better}, worse in {worse}, open in {undecided}"


def answer(rows: pd.DataFrame, several: pd.DataFrame) -> str:
    """What the comparisons of an arm in a measure, a row per task, say, and the one over all of these tasks, if there is one."""
    if len(several):
        row = several.iloc[0].to_dict()
        result = f"{difference(row)} of the normalised scale"
        return f"{relation(row)} over {row['env_id']}: {result}; by task {tally(rows)}."
    row = rows.iloc[0].to_dict()
    if len(rows) > 1:
        what = f"{row['arm']} against {row['baseline']} in its {COMPARED[row['column']]}"
        return f"{what}: {tally(rows)} of {len(rows)} tasks."
    text = f"{relation(row)} on {row['task']}: {difference(row)} ({row['seeds']})"
    if math.isnan(row["p"]):
        return f"{text}; a single seed shows no spread."
    if row["verdict"] == "not distinguishable" and not math.isnan(row["smallest"]):
        least = f"a true difference of {number(row['smallest'])}"
        text += f"; {least} would have been found in {PERCENT} of such experiments"
    return f"{text}."


def answers(comparisons: pd.DataFrame, several: pd.DataFrame) -> dict[str, list[str]]:
    """By column of COMPARED a sentence for each arm and baseline, over all groups."""
    texts = {}
    for key, rows in comparisons.groupby(["column", "arm", "baseline"], sort=False):
        groups = rows["group"].unique()
        scope = groups[0] if len(groups) == 1 else ALL
        same = several[["column", "arm", "baseline", "group"]] == [*key, scope]
        texts.setdefault(key[0], []).append(answer(rows, several[same.all(axis=1)]))
    return texts


# NOTES
def origin(row: dict) -> str:
    """A row of provenance.csv in words."""
    text = f"{row['runs']} runs at commit {row['commit']} ({row['versions']}; {row['machine']}), started between "
    text += f"{row['first_start']} and {row['last_start']}, {row['hours']} hours of one worker"
    if row["restarted"] != "0":
        text += f"; {row['restarted']} of them were started more than once"
    return f"{text}."


def missing(runs: pd.DataFrame, repeated: list[str], counts: pd.DataFrame) -> Iterator[str]:
    """What the report lacks, in sentences."""
    for row in counts[counts["finished"] < counts["planned"]].to_dict("records"):
        states = ", ".join(f"{row[state]:.0f} {state}" for state in COUNTS[2:] if row[state])
        where = f"{row['group']}, {row['env_id']}, {row['arm']}"
        yield f"{where}: of {row['planned']:.0f} planned runs {row['finished']:.0f} finished; {states}."
    if repeated:
        names = ", ".join(repeated)
        yield f"Left out, as they repeat another run's name, or its seed and flags: {names}."
    if not len(runs):
        return
    compared = set(pairs(runs)[["group", "env_id", "arm"]].itertuples(index=False, name=None))
    for (task, baseline), rows in runs.groupby(["task", "baseline"]):
        others = rows[rows["plain_arm"] != baseline].drop_duplicates("arm")
        keys = zip(others["group"], others["env_id"], others["arm"])
        alone = sorted(key[2] for key in keys if key not in compared)
        if not len(others):
            yield f"{task}: no finished run of another arm than {baseline}."
        if alone:
            yield f"{task}: no finished run of {baseline} with like flags to compare {', '.join(alone)} with."
    for column, measure in known(runs, COMPARED).items():
        for task, rows in runs.groupby("task"):
            arms = [f"{arm}, {seeds}" for arm, seeds in undefined_seeds(rows, column)]
            if arms:
                what = f"left out of all that is said of the {measure}, which is undefined"
                yield f"{task}: {what}: {'; '.join(arms)}."
    unknown = sorted(set(runs["env_id"][runs["env_id"].map(unit).isna()]))
    if unknown:
        yield f"Not in normalised aggregates, as benchmark/reporting/thresholds.csv has no references for them: {', '.join(unknown)}."


def undefined_seeds(runs: pd.DataFrame, column: str) -> Iterator[tuple[str, str]]:
    """Arms, and their seeds whose value in the column is unknown, in words."""
    for arm, rows in runs.groupby("arm"):
        seeds = list(rows["seed"][rows[column].isna()])
        if len(seeds) == len(rows):
            yield arm, "all seeds"
        elif seeds:
            yield arm, f"seed {', '.join(seeds)}"


def other_flags(runs: pd.DataFrame) -> list[str]:
    """The flags by which arms differ from their baselines, in words."""
    names = flags(runs)
    rows = runs.drop_duplicates(["group", "env_id", "arm"]).set_index(["group", "env_id", "arm"])
    texts = {}
    for pair in pairs(runs).itertuples():
        arm = rows.loc[(pair.group, pair.env_id, pair.arm), names]
        baseline = rows.loc[(pair.group, pair.env_id, pair.baseline), names]
        differ = (arm != baseline) & (arm != "") & (baseline != "")
        if differ.any():
            values = ", ".join(
                f"{flag} {arm[flag]} ({baseline[flag]})" for flag in arm[differ].index
            )
            texts[f"{pair.arm} runs with other flags than {pair.baseline}: {values}."] = None
    return list(texts)
