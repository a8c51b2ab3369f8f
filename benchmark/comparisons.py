"""Which heads are compared with which, and how: the tables of benchmark/collate.py -> comparisons for benchmark/report.py.

Every head is compared with the learned one, `linear`, script by script and environment by environment, in two columns of
runs.csv, `final` and `area`. Heads that were run with several values of a flag count as one head ("arm") for each, and runs
are compared only if the flags that both heads heed agree. Where all controls were run, CONTRASTS tell geometry, freezing and
scale apart. The statistics are in benchmark/verdicts.py.
"""

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark import verdicts
from benchmark.collate import HEAD_FLAGS, KEYS, fail
from benchmark.measures import COLLAPSE, MEASURES
from benchmark.thresholds import normalised

BASELINE = "linear"
COMPARED = {"final": "final return", "area": "area under the curve"}
NORMALISED = {"normalised": "normalised final return", "normalised_area": "normalised area under the curve"}
FROZEN, TRAINABLE = ("etf", "random", "orthogonal"), ("etf-trainable", "random-trainable", "orthogonal-trainable")
CONTRASTS = (  # what is asked, and the heads whose means are compared to answer it
    ("freezing", FROZEN, TRAINABLE),
    ("geometry", ("etf", "etf-trainable"), ("random", "random-trainable")),
    ("geometry", ("etf", "etf-trainable"), ("orthogonal", "orthogonal-trainable")),
    ("scale", TRAINABLE, (BASELINE,)),
    ("freezing, of the simplex", ("etf",), ("etf-trainable",)),
    ("geometry, of frozen rows", ("etf",), ("random",)),
    ("geometry, of frozen rows", ("etf",), ("orthogonal",)),
)
NO_FLAGS = {*KEYS, *MEASURES, *COLLAPSE, *HEAD_FLAGS, *NORMALISED, "arm"}  # columns of runs.csv


def read(path: Path, numbers: tuple[str, ...]) -> pd.DataFrame:
    """A CSV file with these columns as numbers, NaN for empty ones, and all others as text."""
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        return frame.assign(**{column: frame[column].replace("", "nan").astype(float) for column in numbers})
    except KeyError as error:
        fail("results", path, f"has no column {error}; make it anew with python -m benchmark.collate")
    except (OSError, ValueError) as error:
        fail("results", path, f"{error}; python -m benchmark.collate makes it")


def label_arms(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the column `arm`: the head, and the flags in which runs of this head, script and environment differ."""
    flags = [key for key in runs if key not in NO_FLAGS]
    arms = runs["head"].copy()
    for _, group in runs.groupby(["script", "env_id", "head"]):
        for flag in flags:
            if group[flag].nunique() > 1:
                arms[group.index] += f", {flag} " + group[flag]
    return runs.assign(arm=arms)


def normalise_area(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the column `normalised_area`: `area` on the scale of `normalised`, NaN where that is."""
    scores = [normalised(env_id, area) for env_id, area in zip(runs["env_id"], runs["area"])]
    return runs.assign(normalised_area=np.array(scores, dtype=float))


def read_runs(results: Path) -> pd.DataFrame:
    """runs.csv of the directory, with the columns `arm` and `normalised_area`."""
    return normalise_area(label_arms(read(results / "runs.csv", (*MEASURES, *COLLAPSE))))


def comparable(head: pd.Series, baseline: pd.Series) -> bool:
    """Whether two runs agree in every flag that both heads heed."""
    flags = [key for key in head.index if key not in NO_FLAGS]
    return all(head[flag] == baseline[flag] for flag in flags if head[flag] and baseline[flag])


def pairs(runs: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame, pd.DataFrame]]:
    """Script, environment, runs of a head, and runs of the baseline to compare them with."""
    for (script, env_id), task in runs.groupby(["script", "env_id"]):
        arms = [arm for _, arm in task.groupby("arm")]
        for head in arms:
            for baseline in arms:
                is_pair = head["head"].iat[0] != BASELINE and baseline["head"].iat[0] == BASELINE
                if is_pair and comparable(head.iloc[0], baseline.iloc[0]):
                    yield script, env_id, head, baseline


def task_comparisons(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per script, environment, head, baseline and measure of COMPARED: the comparison, its verdict and both spreads."""
    rows = []
    for script, env_id, head, baseline in pairs(runs):
        for column, measure in COMPARED.items():
            a, b = head[column].to_numpy(), baseline[column].to_numpy()
            row = {"script": script, "env_id": env_id, "measure": measure, "head": head["arm"].iat[0]}
            row |= {"baseline": baseline["arm"].iat[0]} | compared(a, b)
            row |= {"spread": verdicts.spread(a), "baseline_spread": verdicts.spread(b), "change": verdicts.spread(a, b)}
            rows.append(row | {"equal_spread": verdicts.equal_spread(a, b)})
    return judged(rows)


def aggregated(runs: pd.DataFrame, column: str) -> Iterator[tuple[dict, list[np.ndarray]]]:
    """For each script, and for all of them, and each head and baseline: what is compared, and the column's values with the
    head and without, each (seeds, tasks), for the tasks (scripts and environments) where it is known and the seeds that all
    of these have in common."""
    groups = {}
    for script, env_id, head, baseline in pairs(runs.dropna(subset=column)):
        for name in (script, "all scripts"):
            key = (name, head["arm"].iat[0], baseline["arm"].iat[0])
            groups.setdefault(key, {})[script, env_id] = (head, baseline)
    for (script, head, baseline), tasks in sorted(groups.items()):
        arms = [[arm.set_index("seed")[column] for arm in side] for side in zip(*tasks.values())]
        seeds = sorted(set.intersection(*(set(arm.index) for side in arms for arm in side)))
        if seeds and (script != "all scripts" or len({task_script for task_script, _ in tasks}) > 1):
            names = {"script": script, "env_id": f"{len(tasks)} task{'s' * (len(tasks) > 1)}", "tasks": len(tasks)}
            names |= {"head": head, "baseline": baseline, "seeds": len(seeds)}
            names |= {"left_out": sum(len(arm) - len(seeds) for side in arms for arm in side)}
            yield names, [np.stack([arm[seeds] for arm in side], axis=1) for side in arms]


def compared(head: np.ndarray, baseline: np.ndarray) -> dict[str, object]:
    """The comparison of two sides' values (seeds,), and the seeds that a decision would need."""
    sizes = {"seeds": len(head), "baseline_seeds": len(baseline)}
    return sizes | verdicts.compare(head, baseline)._asdict() | {"needed": verdicts.seeds_needed(head, baseline)}


def aggregate_comparisons(runs: pd.DataFrame) -> list[dict]:
    """The comparisons of NORMALISED over tasks, not judged yet."""
    rows = []
    for column, measure in NORMALISED.items():
        for names, scores in aggregated(runs, column):
            row = names | {"measure": measure} | compared(*(side.mean(axis=1) for side in scores))  # a seed is one draw
            iqm, baseline_iqm = (verdicts.interval(side, verdicts.iqm) for side in scores)
            rows.append(row | {"iqm": iqm, "baseline_iqm": baseline_iqm})
    return rows


def seed_means(runs: pd.DataFrame, heads: tuple[str, ...], column: str) -> np.ndarray:
    """(seeds,): the column's mean over these heads and all environments, of each seed that has all of them."""
    cells = runs.pivot(index="seed", columns=["env_id", "head"], values=column)
    wanted = pd.MultiIndex.from_product([sorted(set(runs["env_id"])), heads])
    return cells.reindex(columns=wanted).dropna().mean(axis=1).to_numpy()


def contrast_comparisons(runs: pd.DataFrame) -> pd.DataFrame:
    """The CONTRASTS, a row per script, environment, or all environments with references, and measure, where all of their
    heads were run."""
    rows, plain = [], runs[runs["arm"] == runs["head"]]
    for script, group in plain.groupby("script"):
        tasks = [(env_id, task, COMPARED) for env_id, task in group.groupby("env_id")]
        if len(known := group.dropna(subset="normalised")) and known["env_id"].nunique() > 1:
            tasks.append((f"{known['env_id'].nunique()} tasks", known, NORMALISED))
        for (env_id, task, columns), (factor, heads, others) in product(tasks, CONTRASTS):
            for column, measure in columns.items():
                sides = [seed_means(task, side, column) for side in (heads, others)]
                if min(map(len, sides)):
                    row = {"script": script, "env_id": env_id, "measure": measure, "factor": factor}
                    row |= {"head": ", ".join(heads), "baseline": ", ".join(others)}
                    rows.append(row | compared(*sides))
    return judged(rows)


def stop_comparisons(runs: pd.DataFrame) -> list[dict]:
    """A row per script, environment with a threshold, head and baseline: how soon they reach it."""
    rows = []
    for script, env_id, head, baseline in pairs(runs.dropna(subset="threshold")):
        steps = [arm["stop"].fillna(math.inf).to_numpy() for arm in (head, baseline)]
        row = {"script": script, "env_id": env_id, "head": head["arm"].iat[0], "baseline": baseline["arm"].iat[0]}
        row |= {"stop": stop(head), "baseline_stop": stop(baseline), "p": verdicts.rank_p(*steps)}
        rows.append(row | {"sooner": verdicts.interval([-side[:, None] for side in steps], verdicts.improvement)})
    return rows


def judged(rows: list[dict]) -> pd.DataFrame:
    """The comparisons with their corrected p values and verdicts."""
    frame = pd.DataFrame(rows)
    if not rows:
        return frame
    frame = frame.assign(corrected=verdicts.corrected(frame["p"]))
    return frame.assign(verdict=[verdicts.verdict(*row) for row in zip(frame["difference"], frame["corrected"])])


def stop(runs: pd.DataFrame) -> str:
    """Median step at which the threshold is reached, where a run that never does so counts as later than any other."""
    if runs["threshold"].isna().all():
        return "no threshold"
    median = runs["stop"].fillna(math.inf).median()
    reached = f"reached by {runs['stop'].count()} of {len(runs)}"
    return f"{median:,.0f} ({reached})" if math.isfinite(median) else f"– ({reached})"
