"""Which heads are compared with which, and how: the tables of benchmark/collate.py -> comparisons for benchmark/report.py.

Every head is compared with the learned one, `linear`, script by script and environment by environment, in two columns of
runs.csv, `final` and `area`. Heads that were run with several values of a flag count as one head ("arm") for each, and runs
are compared only if the flags that both heads heed agree. Where controls were run too, CONTRASTS tell what it is about a head:
its freezing or its frame. Runs of the same seed are pairs. The statistics are in benchmark/reporting/verdicts.py.
"""

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.collate import HEAD_FLAGS, KEYS, fail
from benchmark.reporting import verdicts
from benchmark.reporting.measures import COLLAPSE, MEASURES
from benchmark.reporting.thresholds import normalised

BASELINE = "linear"
COMPARED = {"final": "final return", "area": "area under the curve"}
NORMALISED = {
    "normalised": "normalised final return",
    "normalised_area": "normalised area under the curve",
}
FROZEN, TRAINABLE = (
    ("etf", "random", "orthogonal"),
    ("etf-trainable", "random-trainable", "orthogonal-trainable"),
)
CONTRASTS = (  # what differs, and the heads whose means are compared to see what that does
    ("freezing", FROZEN, TRAINABLE),
    ("freezing a simplex", ("etf",), ("etf-trainable",)),
    ("frame (and scale)", ("etf", "etf-trainable"), ("random", "random-trainable")),
    ("scale", ("etf", "etf-trainable"), ("orthogonal", "orthogonal-trainable")),
    ("frozen frame (and scale)", ("etf",), ("random",)),
    ("scale, frozen", ("etf",), ("orthogonal",)),
)
NO_FLAGS = {*KEYS, *MEASURES, *COLLAPSE, *HEAD_FLAGS, *NORMALISED, "arm"}  # columns of runs.csv


def read(path: Path, numbers: tuple[str, ...]) -> pd.DataFrame:
    """A CSV file, or NAME.gz in its place, with these columns as numbers, NaN for empty ones, and all others as text."""
    path = path if path.exists() else next(path.parent.glob(f"{path.name}.gz"), path)
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        return frame.assign(
            **{column: frame[column].replace("", "nan").astype(float) for column in numbers}
        )
    except KeyError as error:
        fail(
            "results", path, f"has no column {error}; make it anew with python -m benchmark.collate"
        )
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


def read_runs(results: Path) -> tuple[pd.DataFrame, int]:
    """runs.csv of the directory, with the columns `arm` and `normalised_area`, and how many runs were left out as they repeat
    another's seed and flags."""
    runs = normalise_area(label_arms(read(results / "runs.csv", (*MEASURES, *COLLAPSE))))
    unique = runs.drop_duplicates(["script", "env_id", "arm", "seed"])
    return unique, len(runs) - len(unique)


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
            sides = [arm.set_index("seed")[column] for arm in (head, baseline)]
            a, b = (side.to_numpy() for side in sides)
            row = {
                "script": script,
                "env_id": env_id,
                "measure": measure,
                "head": head["arm"].iat[0],
            }
            row |= {"baseline": baseline["arm"].iat[0]} | compared(*sides)
            row |= {
                "spread": verdicts.spread(a),
                "baseline_spread": verdicts.spread(b),
                "change": verdicts.spread(a, b),
            }
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
        if seeds and (
            script != "all scripts" or len({task_script for task_script, _ in tasks}) > 1
        ):
            names = {
                "script": script,
                "env_id": f"{len(tasks)} task{'s' * (len(tasks) > 1)}",
                "tasks": len(tasks),
            }
            names |= {"head": head, "baseline": baseline, "seeds": len(seeds)}
            names |= {"left_out": sum(len(arm) - len(seeds) for side in arms for arm in side)}
            yield names, [np.stack([arm[seeds] for arm in side], axis=1) for side in arms]


def aggregate_comparisons(runs: pd.DataFrame) -> list[dict]:
    """The comparisons of NORMALISED over tasks, not judged yet."""
    rows = []
    for column, measure in NORMALISED.items():
        for names, scores in aggregated(runs, column):
            row = (
                names
                | {"measure": measure}
                | compared(*(pd.Series(side.mean(axis=1)) for side in scores))
            )
            iqm, baseline_iqm = (verdicts.interval(side, verdicts.iqm) for side in scores)
            rows.append(row | {"iqm": iqm, "baseline_iqm": baseline_iqm})
    return rows


def seed_means(runs: pd.DataFrame, heads: tuple[str, ...], column: str) -> pd.Series:
    """By seed: the column's mean over these heads and all scripts and environments, of each seed that has all of them."""
    cells = runs.pivot(index="seed", columns=["script", "env_id", "head"], values=column)
    tasks = dict.fromkeys(zip(runs["script"], runs["env_id"]))
    return (
        cells.reindex(columns=[(*task, head) for task in tasks for head in heads])
        .dropna()
        .mean(axis=1)
    )


def contrast_comparisons(runs: pd.DataFrame, contrasts: tuple = CONTRASTS) -> pd.DataFrame:
    """Those of the contrasts whose heads were run with one value of each flag: a row per script, environment and measure; and,
    of normalised scores, per script and for all of them over all tasks where these are known."""
    rows, plain = [], runs[runs["arm"] == runs["head"]]
    groups = [(*key, task, COMPARED) for key, task in plain.groupby(["script", "env_id"])]
    known = plain.dropna(subset="normalised")
    for script, group in [*known.groupby("script"), ("all scripts", known)]:
        tasks = group[["script", "env_id"]].drop_duplicates()
        if len(tasks) > 1 and (script != "all scripts" or tasks["script"].nunique() > 1):
            groups.append((script, f"{len(tasks)} tasks", group, NORMALISED))
    for (script, env_id, group, columns), (factor, heads, others) in product(groups, contrasts):
        for column, measure in columns.items():
            sides = [seed_means(group, side, column) for side in (heads, others)]
            if min(map(len, sides)):
                row = {"script": script, "env_id": env_id, "measure": measure, "factor": factor}
                rows.append(
                    row
                    | {"head": ", ".join(heads), "baseline": ", ".join(others)}
                    | compared(*sides)
                )
    return judged(rows)


def stop_comparisons(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per script, environment with a threshold, head and baseline: of how many seeds the head reaches it sooner."""
    rows = []
    for script, env_id, head, baseline in pairs(runs.dropna(subset="threshold")):
        a, b = (arm.set_index("seed")["stop"].fillna(math.inf) for arm in (head, baseline))
        seeds = a.index.intersection(b.index)
        row = {
            "script": script,
            "env_id": env_id,
            "head": head["arm"].iat[0],
            "baseline": baseline["arm"].iat[0],
        }
        row |= {"stop": stop(head), "baseline_stop": stop(baseline)}
        row |= {
            "sooner": int((a[seeds] < b[seeds]).sum()),
            "later": int((a[seeds] > b[seeds]).sum()),
        }
        rows.append(row | {"seeds": len(seeds), "p": verdicts.sign_p(row["sooner"], row["later"])})
    return pd.DataFrame(rows).assign(corrected=verdicts.corrected([row["p"] for row in rows]))


def compared(head: pd.Series, baseline: pd.Series) -> dict[str, object]:
    """The comparison of two sides' values by seed, and how many seeds a decision would need: of the pairs of equal seeds, or
    of all seeds where the sides share fewer than two."""
    shared = head.index.intersection(baseline.index)
    if len(shared) > 1:
        differences = (head[shared] - baseline[shared]).to_numpy()
        seeds, result = f"{len(shared)} pairs", verdicts.compare_paired(differences)
        least, needed = len(shared), verdicts.pairs_needed(differences)
    else:
        sides = head.to_numpy(), baseline.to_numpy()
        seeds, result = f"{len(head)} and {len(baseline)}", verdicts.compare(*sides)
        least, needed = min(len(head), len(baseline)), verdicts.seeds_needed(*sides)
    if result.p > 0.05:
        needed = max(needed, least + 1.0)  # the power's approximation may differ from the test
    return {"seeds": seeds, **result._asdict(), "needed": needed}


def judged(rows: list[dict]) -> pd.DataFrame:
    """The comparisons with their corrected p values and verdicts."""
    frame = pd.DataFrame(rows)
    if not rows:
        return frame
    frame = frame.assign(corrected=verdicts.corrected(frame["p"]))
    return frame.assign(
        verdict=[verdicts.verdict(*row) for row in zip(frame["difference"], frame["corrected"])]
    )


def stop(runs: pd.DataFrame) -> str:
    """Median step at which the threshold is reached, where a run that never does so counts as later than any other."""
    if runs["threshold"].isna().all():
        return "no threshold"
    median = runs["stop"].fillna(math.inf).median()
    reached = f"reached by {runs['stop'].count()} of {len(runs)}"
    return f"{median:,.0f} ({reached})" if math.isfinite(median) else f"– ({reached})"
