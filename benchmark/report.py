"""The tables of benchmark/collate.py -> report.md, report.html (one file, opens offline) and pictures: did the head help?

    python -m benchmark.report --results runs/quickstart/results

Reads runs.csv, curves.csv and counts.csv of that directory, writes beside them, and prints the table of results. Every head is
compared with the learned one, `linear`, script by script and environment by environment, in two columns of runs.csv, `final`
and `area`. Heads that were run with several values of a flag count as one head for each, and runs are compared only if the
flags that both heads heed agree. The statistics are in benchmark/verdicts.py.
"""

import base64
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jinja2
import matplotlib
import numpy as np
import pandas as pd
import tyro

from benchmark import verdicts
from benchmark.collate import COUNTS, HEAD_FLAGS, KEYS, fail, replacing
from benchmark.measures import COLLAPSE, MEASURES

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BASELINE = "linear"
COMPARED = {"final": "final return", "area": "area under the curve"}
NO_FLAGS = {*KEYS, *MEASURES, *COLLAPSE, *HEAD_FLAGS, "arm"}  # columns of runs.csv
COLOURS = {  # Okabe & Ito's
    "linear": "#E69F00",
    "etf": "#0072B2",
    "random": "#009E73",
    "orthogonal": "#CC79A7",
    "etf-trainable": "#56B4E9",
    "random-trainable": "#D55E00",
    "orthogonal-trainable": "#000000",
}
CURVES = {  # columns of curves.csv and what their axes say
    "value": "return, last 100 episodes",
    "within_variability": "variability within actions",
    "means_equinorm": "means: spread of norms",
    "means_equiangularity": "means: spread of cosines",
    "means_maximal_angle": "means: distance from -1/(K-1)",
}


@dataclass
class Args:
    results: Path  # directory that holds collate's tables; the report is written there


# TABLES
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
            row |= {"baseline": baseline["arm"].iat[0], "seeds": len(a), "baseline_seeds": len(b)}
            row |= verdicts.compare(a, b)._asdict() | {"needed": verdicts.seeds_needed(a, b)}
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
            names |= {"head": head, "baseline": baseline, "seeds": len(seeds), "baseline_seeds": len(seeds)}
            names |= {"left_out": sum(len(arm) - len(seeds) for side in arms for arm in side)}
            yield names, [np.stack([arm[seeds] for arm in side], axis=1) for side in arms]


def aggregate_comparisons(runs: pd.DataFrame) -> list[dict]:
    """The comparisons of normalised final returns over tasks, not judged yet."""
    rows = []
    for names, scores in aggregated(runs, "normalised"):
        means = [side.mean(axis=1) for side in scores]  # a seed's runs of all tasks are one draw
        row = names | {"measure": "normalised final return"} | verdicts.compare(*means)._asdict()
        row |= {"needed": verdicts.seeds_needed(*means)}
        iqm, baseline_iqm = (verdicts.interval(side, verdicts.iqm) for side in scores)
        rows.append(row | {"iqm": iqm, "baseline_iqm": baseline_iqm})
    return rows


def judged(rows: list[dict]) -> pd.DataFrame:
    """The comparisons with their corrected p values and verdicts."""
    frame = pd.DataFrame(rows)
    if not rows:
        return frame
    frame = frame.assign(corrected=verdicts.corrected(frame["p"]))
    return frame.assign(verdict=[verdicts.verdict(*row) for row in zip(frame["difference"], frame["corrected"])])


# CONTENT
class Heading(NamedTuple):
    text: str
    level: int = 2


class Text(NamedTuple):
    text: str


class Items(NamedTuple):
    items: list[str]


class Table(NamedTuple):
    columns: list[str]
    rows: list[list[str]]


class Picture(NamedTuple):
    name: str
    caption: str
    png: bytes


def number(value: float) -> str:
    """Four significant digits, "–" for NaN."""
    if math.isnan(value):
        return "–"
    digits = 3 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(max(digits, 0), 5)}f}"


def span(point: float, low: float, high: float) -> str:
    """A figure and its interval."""
    return number(point) if math.isnan(low) or math.isnan(high) else f"{number(point)} ({number(low)} to {number(high)})"


def p_value(p: float) -> str:
    return "–" if math.isnan(p) else f"{p:.3f}" if p >= 0.001 else "< 0.001"


def mean_std(values: pd.Series) -> str:
    return number(values.mean()) + (f" ± {number(values.std())}" if len(values) > 1 else "")


def stop(runs: pd.DataFrame) -> str:
    """Median step at which the threshold is reached, where a run that never does so counts as later than any other."""
    if runs["threshold"].isna().all():
        return "no threshold"
    median = runs["stop"].fillna(math.inf).median()
    reached = f"reached by {runs['stop'].count()} of {len(runs)}"
    return f"{median:,.0f} ({reached})" if math.isfinite(median) else f"– ({reached})"


def seeds_text(needed: float) -> str:
    """A number of seeds as `verdicts.seeds_needed` gives it."""
    return "–" if math.isnan(needed) else f"more than {verdicts.MOST_SEEDS}" if math.isinf(needed) else f"{needed:.0f}"


def sentence(row: pd.Series) -> str:
    """The verdict in words."""
    start = f"{row['script']}, {row['env_id']}, {row['measure']}: {row['head']} is {row['verdict']}"
    seeds = f"{row['seeds']} and {row['baseline_seeds']} seeds"
    if math.isnan(row["p"]):
        return f"{start} from {row['baseline']} at this number of seeds ({seeds}): a single seed shows no spread."
    figures = (
        f"{seeds}; difference {span(row['difference'], row['low'], row['high'])}, corrected p {p_value(row['corrected'])}"
    )
    if row["verdict"] != "not distinguishable":
        return f"{start} than {row['baseline']} ({figures})."
    why = f"about {seeds_text(row['needed'])} seeds a side would be needed".replace("about more", "more")
    if row["p"] <= 0.05:
        why = f"it would be if this were the only comparison (p {p_value(row['p'])})"
    return f"{start} from {row['baseline']} at this number of seeds ({figures}); {why}."


def draw(curves: pd.DataFrame, column: str) -> bytes:
    """PNG of the IQM over seeds against steps with its 95 % interval, or thin lines of too few seeds for one: a panel per
    environment, a line per arm."""
    tasks, arms = list(curves.groupby("env_id")), sorted(curves[["head", "arm"]].drop_duplicates().itertuples(index=False))
    arms.sort(key=lambda arm: [*COLOURS, arm.head].index(arm.head))
    columns = min(3, len(tasks))
    size = (max(3.6 * columns, 5), 2.9 * math.ceil(len(tasks) / columns) + 0.3 * math.ceil(len(arms) / columns))
    figure, axes = plt.subplots(-(-len(tasks) // columns), columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(tasks) :]:
        axis.set_axis_off()
    lines = {}
    for axis, (env_id, task) in zip(axes.flat, tasks):
        for place, (head, arm) in enumerate(arms):
            rows = task[task["arm"] == arm].pivot(index="step", columns="run", values=column).dropna()
            if not len(rows):
                continue
            scores, steps = rows.to_numpy().T[:, None, :], rows.index / 1000
            style = {
                "color": COLOURS.get(head, "#000000"),
                "linestyle": ("-", "--", ":", "-.")[place % 4 if arm != head else 0],
            }
            point, low, high = verdicts.interval(scores, verdicts.curve_iqm)
            (lines[arm],) = axis.plot(steps, point, linewidth=1.8, **style)
            if np.isnan(low).any():
                axis.plot(steps, scores[:, 0].T, linewidth=0.6, alpha=0.5, **style)
            else:
                axis.fill_between(steps, low, high, color=style["color"], alpha=0.2, linewidth=0)
        axis.set_title(env_id, fontsize=10)
        axis.set_xlabel("environment steps (thousands)")
        axis.grid(alpha=0.25)
        if column == "within_variability":
            axis.set_yscale("log")
    for axis in axes[:, 0]:
        axis.set_ylabel(CURVES[column])
    figure.legend(
        lines.values(), lines.keys(), loc="outside lower center", ncols=max(1, min(len(lines), 2 * columns)), fontsize=9
    )
    png = io.BytesIO()
    figure.savefig(png, dpi=140)
    plt.close(figure)
    return png.getvalue()


def pictures(curves: pd.DataFrame, columns: list[str]) -> Iterator[Picture]:
    """One per script and column, of the environments where the column is defined."""
    for script, group in curves.groupby("script"):
        for column in columns:
            # at a step where a seed has no value yet there is no IQM
            if len(defined := group.dropna(subset=column)):
                name = f"{re.sub(r'[^A-Za-z0-9_-]', '-', script)}-{column.replace('value', 'return')}.png"
                yield Picture(name, f"{script}: {CURVES[column]}", draw(defined, column))


def missing(runs: pd.DataFrame, counts: pd.DataFrame) -> Iterator[str]:
    """What the report lacks, in sentences."""
    for row in counts[counts["finished"] < counts["planned"]].to_dict("records"):
        states = ", ".join(f"{row[state]:.0f} {state}" for state in COUNTS[2:] if row[state])
        where = f"{row['script']}, {row['env_id']}, {row['head']}"
        yield f"{where}: of {row['planned']:.0f} planned runs {row['finished']:.0f} finished; {states}."
    compared = {(script, env_id, head["arm"].iat[0]) for script, env_id, head, _ in pairs(runs)}
    for (script, env_id), task in runs.groupby(["script", "env_id"]):
        arms = sorted(set(task["arm"][task["head"] != BASELINE]))
        if not arms:
            yield f"{script}, {env_id}: no finished run with another head than {BASELINE}."
        if alone := [arm for arm in arms if (script, env_id, arm) not in compared]:
            yield f"{script}, {env_id}: no finished run with {BASELINE} and like flags to compare {', '.join(alone)} with."
    if unknown := sorted(set(runs["env_id"][runs["normalised"].isna()])):
        yield f"Not in normalised aggregates, as benchmark/thresholds.csv has no references for them: {', '.join(unknown)}."


def results_table(runs: pd.DataFrame) -> Table:
    """best, final and stop as in the paper, and the area, by script, environment and head."""
    rows = []
    for key, group in runs.groupby(["script", "env_id", "arm"]):
        rows.append([*key, str(len(group)), *(mean_std(group[column]) for column in ("best", "final", "area")), stop(group)])
    return Table(["script", "environment", "head", "seeds", "best", "final", "area", "stop (steps)"], rows)


def verdict_table(comparisons: pd.DataFrame) -> Table:
    """How often each head got each verdict."""
    words = ["better", "worse", "not distinguishable"]
    groups = comparisons.groupby(["head", "baseline", "measure"])["verdict"]
    rows = [[*key, *(str((group == word).sum()) for word in words)] for key, group in groups]
    return Table(["head", "against", "measure", *words], rows)


def difference_table(comparisons: pd.DataFrame) -> Table:
    """The comparisons with their intervals."""
    rows = []
    for row in comparisons.to_dict("records"):
        rows.append([row["script"], row["env_id"], row["measure"], row["head"], row["baseline"]])
        rows[-1] += [f"{row['seeds']}, {row['baseline_seeds']}", span(row["difference"], row["low"], row["high"])]
        rows[-1] += [p_value(row["p"]), p_value(row["corrected"]), row["verdict"], seeds_text(row["needed"])]
    columns = [
        "script",
        "environment",
        "measure",
        "head",
        "against",
        "seeds",
        "difference (95 % interval)",
        "p",
        "corrected p",
    ]
    return Table([*columns, "verdict", "seeds needed a side"], rows)


def aggregate_table(rows: list[dict], figures: dict[str, str]) -> Table:
    """Aggregates with their intervals; `figures` are the titles of these columns and their names in the rows."""
    names = ("script", "env_id", "head", "baseline", "seeds", "left_out")
    cells = [[str(row[name]) for name in names] for row in rows]
    for row, line in zip(rows, cells):
        line += [span(*(float(x[0]) for x in row[name])) for name in figures.values()]
    return Table(["script", "over", "head", "against", "seeds", "runs left out", *figures], cells)


def dispersion_table(comparisons: pd.DataFrame) -> Table:
    """Standard deviations over seeds and their differences."""
    rows, tests = [], verdicts.corrected(comparisons["equal_spread"])
    for row, p in zip(comparisons.to_dict("records"), tests):
        spans = [span(*row[key]) for key in ("spread", "baseline_spread", "change")]
        rows.append([row["script"], row["env_id"], row["measure"], row["head"], row["baseline"], *spans, p_value(p)])
    columns = ["script", "environment", "measure", "head", "against", "std of the head", "std of the other", "difference"]
    return Table([*columns, "corrected p"], rows)


def comparison_blocks(runs: pd.DataFrame) -> Iterator[NamedTuple]:
    """The part of the report that compares heads."""
    comparisons, aggregates = task_comparisons(runs), aggregate_comparisons(runs)
    several = judged([row for row in aggregates if row["tasks"] > 1])  # over one task, its own comparison has been judged
    if not len(comparisons):
        return
    yield Heading("Verdicts")
    yield Text("Comparisons by script and environment, counted; then each in words, those over several environments first.")
    yield verdict_table(comparisons)
    yield Items([sentence(row) for _, row in pd.concat([several, comparisons]).iterrows()])
    yield Heading("Differences")
    yield Text(
        "Differences of means, their 95 % intervals and p values by Welch's t test, or the permutation test if no side has "
        f"any spread. The p values of this table's {len(comparisons)} comparisons are corrected together by Benjamini and "
        "Hochberg's procedure, the intervals are not. Seeds needed: for 80 % power at the 5 % level before correction, if "
        "the true difference and spread are the observed ones, which a few seeds tell only roughly."
    )
    yield difference_table(comparisons)
    yield Heading("Aggregates")
    intervals = f"95 % stratified bootstrap intervals ({verdicts.RESAMPLES} resamples) from {verdicts.LEAST_SEEDS} seeds on"
    yield Text(
        "Over tasks, which are scripts and environments, and the seeds that all of these share: the probability that a run "
        "with the head ends with a higher return than one without, where a draw counts half; "
        f"{intervals}, narrow for fewer than some 20."
    )
    chances = [
        names | {"probability": verdicts.interval(scores, verdicts.improvement)} for names, scores in aggregated(runs, "final")
    ]
    yield aggregate_table(chances, {"P(head beats the other)": "probability"})
    if aggregates:
        yield Text(
            "Interquartile means (IQM) of final returns, normalised so that 0 is the random policy and 1 the best known "
            f"return or else the threshold, over the tasks where these are known (benchmark/thresholds.csv); {intervals}."
        )
        yield aggregate_table(aggregates, {"IQM of the head": "iqm", "IQM of the other": "baseline_iqm"})
    if len(several):
        yield Text("The same by Welch's t test of the seeds' means over several tasks, corrected within this table:")
        yield difference_table(several)
    yield Heading("Dispersion across seeds")
    yield Text(
        "Standard deviations over seeds and their differences (below 0: the head varies less). From "
        f"{verdicts.LEAST_SEEDS} seeds on with 95 % BCa bootstrap intervals, which are narrow for fewer than some 20, and "
        "with p values by Brown and Forsythe's test of equal spread, corrected within this table as above."
    )
    yield dispersion_table(comparisons)


def content(runs: pd.DataFrame, curves: pd.DataFrame, counts: pd.DataFrame, duplicates: int) -> Iterator[NamedTuple]:
    """The report from top to bottom."""
    yield Heading("Did the head help?", level=1)
    yield Text("Runs: " + ", ".join(f"{counts[state].sum():.0f} {state}" for state in COUNTS) + ".")
    gaps = [*missing(runs, counts), *[f"Left out: {duplicates} runs that repeat another's seed and flags."] * bool(duplicates)]
    if gaps:
        yield Items(gaps)
    if not len(runs):
        yield Text("No run has finished, so there is nothing to report yet.")
        return
    yield from comparison_blocks(runs)
    yield Heading("Results")
    yield Text(
        "Mean ± standard deviation over seeds. best: highest mean return of 100 episodes in a row; final: mean"
        " return of the last 100 episodes; area: mean of the curve; stop: median of the first step at which the mean return"
        " of 100 episodes reaches the environment's threshold, where never is later than any step."
    )
    yield results_table(runs)
    yield Heading("Learning curves")
    yield Text(
        "IQM over seeds of the mean return of the last 100 episodes, with pointwise 95 % stratified bootstrap intervals from "
        f"{verdicts.LEAST_SEEDS} seeds on, and else with the seeds as thin lines."
    )
    yield from pictures(curves, ["value"])
    if measured := list(pictures(curves, [column for column in CURVES if column != "value"])):
        yield Heading("Action collapse")
        yield Text(
            "The same of the measures of action collapse, each 0 under it. With two actions the means' are not defined. Only "
            "steps at which a measure is defined for all seeds that ever have it are drawn; a seed that never has is left out."
        )
        yield from measured


# FILES
def escape_markdown(text: str) -> str:
    """The text on one line, with nothing in it that Markdown or HTML would read as more than text."""
    return re.sub(r"([\\`*\[\]<>|&])", r"\\\1", " ".join(text.split()))


def render(blocks: list[NamedTuple], template: str) -> str:
    """The content by one of the templates beside this file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"md": escape_markdown, "base64": lambda png: base64.b64encode(png).decode()}
    return environment.get_template(template).render(blocks=[{"kind": type(b).__name__, **b._asdict()} for b in blocks])


def main(args: Args) -> None:
    runs = label_arms(read(args.results / "runs.csv", (*MEASURES, *COLLAPSE)))
    curves = read(args.results / "curves.csv", ("step", "value", *COLLAPSE))
    counts = read(args.results / "counts.csv", COUNTS)
    unique = runs.drop_duplicates(["script", "env_id", "arm", "seed"])
    blocks = list(content(unique, curves.merge(unique[["run", "arm"]], on="run"), counts, len(runs) - len(unique)))
    try:
        for picture in (block for block in blocks if isinstance(block, Picture)):
            with replacing(args.results / picture.name, "wb") as file:
                file.write(picture.png)
        for name in ("report.md", "report.html"):
            with replacing(args.results / name) as file:
                file.write(render(blocks, f"{name}.jinja"))
    except OSError as error:
        fail("results", args.results, error)
    print(render([results_table(unique)] if len(unique) else blocks, "report.md.jinja") + str(args.results / "report.html"))


if __name__ == "__main__":
    main(tyro.cli(Args))
