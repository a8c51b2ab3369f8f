"""The tables of benchmark/collate.py -> report.md, report.html (one file, opens offline) and pictures: which arm is better?

    python -m benchmark.report --results runs/quickstart/results

Reads runs.csv, curves.csv, counts.csv and provenance.csv of that directory, writes beside them, and prints the answers and the
table of results. In benchmark/reporting/, comparisons.py says what is compared with what, verdicts.py holds the statistics,
words.py and tables.py what is said of them, and pictures.py draws.
"""

import base64
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
import pandas as pd
import tyro

from benchmark.collate import COUNTS, PROVENANCE, fail, replacing
from benchmark.reporting import pictures, tables, verdicts, words
from benchmark.reporting.comparisons import (
    ALL,
    COMPARED,
    aggregate_comparisons,
    contrast_comparisons,
    improvements,
    read,
    read_curves,
    read_runs,
    stop_comparisons,
    task_comparisons,
    unit,
)

FOLDED = 12  # rows; a longer table is folded
TASKS = 12  # on a picture of curves, at most
MAIN = "area"  # of COMPARED, the least noisy
INTERVALS = f"95 % stratified bootstrap intervals from {verdicts.LEAST_SEEDS} seeds on"
TESTS = (
    "Differences of means with 95 % intervals and p values by the paired t test of the runs with the same seed; by Welch's test "
    "where the sides share fewer than two seeds, and by the exact permutation test where nothing has any spread. Pairing earns "
    "little, as runs of one seed share their start and environments but soon part; yet the paired test holds whatever their "
    "correlation, and Welch's does not if it is negative.",
    "Does an arm differ from the baseline in this measure? All comparisons that ask so, of all arms, groups and environments, "
    "are one family. Its p values are corrected together by Benjamini and Hochberg's procedure, so that of the differences "
    f"found {100 * verdicts.LEVEL:.0f} % are false alarms, or fewer. Means over several tasks are families of their own, by "
    "measure too. A verdict is open where an arm is not distinguishable from the baseline with these seeds. The intervals are "
    "not corrected.",
    f"Smallest difference: what these very verdicts would have found in {words.PERCENT} of such experiments, going by the "
    f"observed spread: by a t test at the level that the correction leaves, {verdicts.LEVEL:g} × differences found, this one "
    "counted, / comparisons.",
)


@dataclass
class Args:
    results: Path  # directory that holds collate's tables; the report is written there
    baseline: str | None = None  # arm to compare the others with, instead of the experiment's


# CONTENT: blocks, as the templates in benchmark/reporting/ show them, and tables.Table
class Heading(NamedTuple):
    text: str
    level: int = 2


class Text(NamedTuple):
    text: str


class Items(NamedTuple):
    items: list[str]


class Picture(NamedTuple):
    name: str
    caption: str
    png: bytes


class Fold(NamedTuple):
    summary: str
    blocks: list[NamedTuple]


class Data(NamedTuple):
    """What the report is made of."""

    runs: pd.DataFrame
    repeated: list[str]  # names of runs left out
    curves: pd.DataFrame
    counts: pd.DataFrame
    origins: list[dict]  # rows of provenance.csv


def folded(table: tables.Table, summary: str) -> NamedTuple:
    """The table, folded if it is long."""
    if len(table.rows) <= FOLDED:
        return table
    return Fold(f"{summary} ({len(table.rows)} rows)", [table])


def first_shown(found: list[Picture], summary: str) -> list[NamedTuple]:
    """The first picture, and the others folded."""
    if len(found) < 2:
        return [*found]
    return [found[0], Fold(f"{summary} ({len(found) - 1} more)", found[1:])]


# ANSWER
def title(runs: pd.DataFrame) -> str:
    others = set(runs["plain_arm"][runs["plain_arm"] != runs["baseline"]])
    baselines = set(runs["baseline"])
    baseline = baselines.pop() if len(baselines) == 1 else "their baselines"
    if len(others) == 1:
        return f"Is {others.pop()} better than {baseline}?"
    return f"Which arms are better than {baseline}?"


def answer_blocks(comparisons: pd.DataFrame, several: pd.DataFrame) -> Iterator[NamedTuple]:
    """A sentence for each arm; those of all measures, or, if there are many, the others folded."""
    answers = words.answers(comparisons, several)
    if sum(map(len, answers.values())) <= 6:
        yield Items([text for texts in answers.values() for text in texts])
        return
    shown = MAIN if MAIN in answers else next(iter(answers))
    yield Items(answers.pop(shown))
    for column, texts in answers.items():
        yield Fold(f"The same of the {COMPARED[column]}", [Items(texts)])


def effects(
    comparisons: pd.DataFrame, several: pd.DataFrame, column: str
) -> tuple[pd.DataFrame, str]:
    """What `draw_effects` draws of a measure, and the unit: comparisons by task as normalised scores, those over several tasks
    under the others of their group. If no task has that scale, all are in standard deviations over seeds."""
    frames = [comparisons.assign(several=False), several.assign(several=True)]
    rows = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    rows = rows[rows["column"] == column]
    units = rows["env_id"].map(unit)
    units = units.where(~rows["several"], 1.0)
    scale = "normalised scores"
    if units.isna().all():
        units = np.sqrt((rows["spread"] ** 2 + rows["baseline_spread"] ** 2) / 2)
        units = units.where(units > 0)
        scale = "standard deviations over seeds"
    rows = rows.assign(**rows[["difference", "low", "high"]].div(units, axis=0))[units.notna()]
    rows = rows.assign(label=rows["task"], panel=rows["arm"] + "\nagainst " + rows["baseline"])
    rows = rows.assign(last=rows["group"] == ALL)
    return rows.sort_values(["last", "group", "several", "task"], kind="stable"), scale


def effect_blocks(comparisons: pd.DataFrame, several: pd.DataFrame) -> Iterator[NamedTuple]:
    """A picture of the differences in each measure."""
    found = []
    for column, measure in COMPARED.items():
        drawn, scale = effects(comparisons, several, column)
        if len(drawn):
            name = "effects.png" if column == MAIN else f"effects-{column}.png"
            caption = f"Differences in the {measure}, in {scale}. Bold: means over several tasks. "
            caption += "The colour is the verdict, after correction."
            found.append(Picture(name, caption, pictures.draw_effects(drawn, scale)))
    yield from first_shown(found, "The same of the other measures")


# CURVES
def curve_pictures(curves: pd.DataFrame, labels: dict[str, str], lines: dict) -> Iterator[Picture]:
    """Of each group and column the curves, on as many pictures as its tasks need."""
    for group, rows in curves.groupby("group"):
        arms = [arm for arm in lines if arm in set(rows["arm"])]
        facets = pictures.facets(arms, set(rows["baseline"]))
        size = TASKS * len(facets)
        for column, label in labels.items():
            panels = pictures.run_panels(rows, column, facets)
            for start in range(0, len(panels), size):
                name = f"{group}-{column}".replace("value", "return")
                if start:
                    name += f"-{start // size + 1}"
                axes = {"x": rows["axis"].iat[0], "y": label, "log": column in pictures.RATIOS}
                drawn = pictures.draw_panels(panels[start : start + size], lines, **axes)
                caption = f"{group}: {' '.join(label.split())}"
                yield Picture(f"{name}.png", caption, drawn)


def over_many_tasks(curves: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The curves of groups with more than TASKS tasks with medians over tasks in their place, a curve for each arm and seed,
    against the share of training; those of other groups as they are."""
    parts = []
    for _, rows in curves.groupby("group"):
        tasks = rows["task"].nunique()
        if tasks > TASKS:
            share = rows["step"] / rows.groupby("task")["step"].transform("max")
            rows = rows.assign(step=(1e5 * share).round())
            keys = ["group", "arm", "baseline", "seed", "step"]
            rows = rows.groupby(keys, as_index=False)[columns].median()
            rows["task"] = f"median over {tasks} tasks"
            rows["run"] = rows["arm"] + ", seed " + rows["seed"]
            rows["axis"] = "share of training (%)"
        parts.append(rows)
    return pd.concat(parts)


def curve_blocks(data: Data, lines: dict) -> Iterator[NamedTuple]:
    found = list(curve_pictures(data.curves, {"value": "return, last 100 episodes"}, lines))
    if found:
        yield Heading("Learning curves")
        yield Text(
            "IQM over seeds of the mean return of the last 100 episodes, with pointwise 95 % bootstrap intervals from "
            f"{verdicts.LEAST_SEEDS} seeds on, and else with the seeds as thin lines."
        )
        yield from first_shown(found, "Further learning curves")


def collapse_blocks(data: Data, lines: dict) -> Iterator[NamedTuple]:
    labels = {column: text for column, text in pictures.COLLAPSE.items() if column in data.curves}
    if not labels or not len(data.curves):
        return
    found = list(curve_pictures(over_many_tasks(data.curves, [*labels]), labels, lines))
    if found:
        yield Heading("Action collapse")
        yield Text(
            "The measures of action collapse, each 0 under it, drawn as the learning curves are; of a group with more than "
            f"{TASKS} tasks medians over these. With two actions the means' are not defined. Only steps at which a measure is "
            "defined for all seeds that ever have it are drawn; a seed that never has is left out."
        )
        yield from first_shown(found, "Further measures")


# AGGREGATES
def common_scores(runs: pd.DataFrame, arms: list[str]) -> tuple[list[str], dict[str, np.ndarray]]:
    """The tasks where the normalised MAIN measure is known of all arms, and by arm its values (seeds, tasks) for the seeds that
    have all of these tasks."""
    runs = runs.dropna(subset=f"normalised_{MAIN}")
    have = runs.groupby("task")["arm"].nunique()
    tasks = sorted(have.index[have == len(arms)])
    scores = {}
    for arm in arms:
        rows = runs[(runs["arm"] == arm) & runs["task"].isin(tasks)]
        table = rows.pivot(index="seed", columns="task", values=f"normalised_{MAIN}").dropna()
        if len(table):
            scores[arm] = table.to_numpy()
    return tasks, scores


def aggregate_blocks(data: Data, lines: dict) -> Iterator[NamedTuple]:
    """rliable's pictures."""
    tasks, scores = common_scores(data.runs, [*lines])
    if len(tasks) < 2 or not scores:
        return
    measure = f"normalised {COMPARED[MAIN]}"
    yield Heading("Over all tasks")
    yield Text(
        f"Over the {len(tasks)} tasks that all arms have, of normalised scores, as rliable defines them: the median over tasks "
        "of the mean over seeds, the interquartile mean (IQM) and the mean over both, and the optimality gap, the mean of what "
        "scores lack to 1; the performance profile, which is the share of runs above each score; and the IQM along training. "
        f"{INTERVALS}."
    )
    names = ["median", "IQM", "mean", "optimality gap (less is better)"]
    estimates = {
        arm: verdicts.interval(array, verdicts.aggregates) for arm, array in scores.items()
    }
    drawn = pictures.draw_intervals(estimates, names, lines)
    yield Picture("aggregates.png", f"Aggregates of the {measure}", drawn)

    levels = np.linspace(*np.quantile(np.concatenate([*scores.values()]), [0.005, 1]), 81)
    bands = pictures.profiles(scores, levels)
    panels = pictures.band_panels(bands, lines, data.runs)
    drawn = pictures.draw_panels(panels, lines, measure, "share of runs above")
    yield Picture("profile.png", "Performance profile", drawn)

    bands = pictures.training_bands(data.curves, tasks, [*scores])
    panels = pictures.band_panels(bands, lines, data.runs)
    if panels:
        drawn = pictures.draw_panels(
            panels, lines, "share of training", "IQM of normalised returns"
        )
        yield Picture(
            "training.png", f"IQM of returns over {len(tasks)} tasks along training", drawn
        )


# TABLES
def difference_blocks(comparisons: pd.DataFrame) -> Iterator[NamedTuple]:
    """A table for each measure, with what its p values are corrected for."""
    for measure, rows in comparisons.groupby("measure", sort=False):
        found = int((rows["corrected"] <= verdicts.LEVEL).sum())
        said = f"comparisons, corrected together: {len(rows)}; differences found: {found}."
        yield Text(f"{measure.capitalize()}, {said}")
        yield folded(tables.differences(rows), f"Differences in the {measure}")


def comparison_blocks(
    data: Data, comparisons: pd.DataFrame, several: pd.DataFrame
) -> Iterator[NamedTuple]:
    """The tables that compare arms."""
    yield Heading("Differences")
    yield from map(Text, TESTS)
    if comparisons["task"].nunique() > 1:
        yield folded(tables.verdict_counts(comparisons), "Verdicts, counted")
    yield from difference_blocks(several)
    yield from difference_blocks(comparisons)
    stops = stop_comparisons(data.runs)
    if len(stops):
        yield Heading("Time to threshold")
        yield Text(
            "stop: median of the first step at which the mean return of 100 episodes reaches the environment's threshold, "
            "where never is later than any step. Then for how many seeds the arm is sooner or later than the baseline with "
            f"the same seed, and p by the sign test; the table's p values ({len(stops)}) are corrected together."
        )
        yield folded(tables.stops(stops), "Time to threshold")
    contrasts = contrast_comparisons(data.runs)
    if len(contrasts):
        yield Heading("Freezing or frame?")
        yield Text(
            "Heads against each other: a seed's mean over the heads of one side and that of the other, by the tests named "
            "under Differences, those of one table corrected together. A softmax does not see what all rows have in common. "
            "So orthogonal rows are to it a simplex whose rows are √((K-1)/K) times as long, and so are, nearly, random ones in "
            "many dimensions; two rows are always a simplex. These frames differ in scale, and hardly in geometry."
        )
        yield from difference_blocks(contrasts)
    yield from aggregate_tables(data, several)
    yield Heading("Dispersion across seeds")
    yield Text(
        "Standard deviations over seeds. p by Brown and Forsythe's test of equal spread, which takes the sides as independent, "
        f"from {verdicts.LEAST_SEEDS} seeds on, those of one measure corrected together."
    )
    yield folded(tables.dispersion(comparisons), "Standard deviations")


def aggregate_tables(data: Data, several: pd.DataFrame) -> Iterator[NamedTuple]:
    chances = improvements(data.runs)
    if not len(chances):
        return
    yield Heading("Aggregates")
    yield Text(
        "Over tasks, which are groups and environments, and the seeds that all of these share: the probability that a run of "
        f"the arm has the higher value than one of the baseline, where a draw counts half. {INTERVALS}, too narrow for fewer "
        "than some 20."
    )
    figures = {"probability": "P(arm beats the baseline)"}
    yield folded(tables.aggregates(chances, figures), "Probabilities of improvement")
    if len(several):
        yield Text(
            "Interquartile means (IQM) of scores, normalised so that 0 is the random policy and 1 the best known return or "
            f"else the threshold, over the tasks where these are known (benchmark/reporting/thresholds.csv). {INTERVALS}."
        )
        figures = {"iqm": "IQM of the arm", "baseline_iqm": "IQM of the baseline"}
        yield folded(tables.aggregates(several, figures), "Interquartile means")


def content(data: Data) -> Iterator[NamedTuple]:
    """The report from top to bottom."""
    runs = data.runs
    counted = ", ".join(f"{data.counts[state].sum():.0f} {state}" for state in COUNTS)
    notes = [*words.missing(runs, data.repeated, data.counts), *words.other_flags(runs)]
    if not len(runs):
        yield Heading("Nothing to report yet", level=1)
        yield Text(f"No run has finished. Runs: {counted}.")
        yield Items(notes)
        return
    lines = pictures.styles(runs)
    comparisons = task_comparisons(runs)
    several = aggregate_comparisons(runs)
    yield Heading(title(runs), level=1)
    if len(comparisons):
        yield from answer_blocks(comparisons, several)
    yield Text(f"Runs: {counted}.")
    if len(notes) > FOLDED:
        yield Fold(f"What is missing or differs ({len(notes)} notes)", [Items(notes)])
    elif notes:
        yield Items(notes)
    if len(comparisons):
        yield from effect_blocks(comparisons, several)
    yield from curve_blocks(data, lines)
    yield from aggregate_blocks(data, lines)
    yield Heading("Results")
    yield Text(
        "Mean ± standard deviation over seeds. best: highest mean return of 100 episodes in a row; final: mean return of the "
        "last 100 episodes; greedy: mean return of the greedy policy at the end, where it is known; area: mean of the curve; "
        "stop: median of the first step at which the mean return of 100 episodes reaches the environment's threshold, where "
        "never is later than any step."
    )
    yield folded(tables.results(runs), "Results by task and arm")
    if len(comparisons):
        yield from comparison_blocks(data, comparisons, several)
    yield from collapse_blocks(data, lines)
    if data.origins:
        yield Heading("Where the runs come from")
        yield Items([words.origin(row) for row in data.origins])


# FILES
def read_data(args: Args) -> Data:
    """The tables in the directory. Exits with a line of error if one of them is not what it must be."""
    runs, repeated = read_runs(args.results, args.baseline)
    curves = read_curves(args.results, runs, tuple(pictures.COLLAPSE))
    counts = read(args.results / "counts.csv", ("group", "env_id", "arm"), COUNTS)
    provenance = args.results / "provenance.csv"
    origins = []  # older tables have none
    if provenance.exists():
        origins = read(provenance, PROVENANCE, ()).to_dict("records")
    return Data(runs, repeated, curves, counts, origins)


def escape_markdown(text: str) -> str:
    """The text on one line, with nothing in it that Markdown or HTML would read as more than text."""
    return re.sub(r"([\\`*_$~#\[\]<>|&])", r"\\\1", " ".join(text.split()))


def render(blocks: list[NamedTuple], template: str) -> str:
    """The content by one of the templates in benchmark/reporting/."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "reporting"),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["md"] = escape_markdown
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["base64"] = lambda png: base64.b64encode(png).decode()
    return environment.get_template(template).render(blocks=blocks).strip() + "\n"


def with_file_names(blocks: Iterable[NamedTuple], used: set[str]) -> Iterator[NamedTuple]:
    """The blocks, with names of pictures that are those of files, each another than in `used`, which grows."""
    for block in blocks:
        if isinstance(block, Fold):
            block = block._replace(blocks=[*with_file_names(block.blocks, used)])
        if isinstance(block, Picture):
            stem = re.sub(r"[^A-Za-z0-9_-]", "-", block.name.removesuffix(".png"))
            while stem in used:
                stem += "-"
            used.add(stem)
            block = block._replace(name=f"{stem}.png")
        yield block


def pictures_in(blocks: list[NamedTuple]) -> Iterator[Picture]:
    """Also the folded ones."""
    for block in blocks:
        if isinstance(block, Picture):
            yield block
        if isinstance(block, Fold):
            yield from pictures_in(block.blocks)


def write(blocks: list[NamedTuple], results: Path) -> None:
    """The pages and their pictures."""
    for picture in pictures_in(blocks):
        with replacing(results / picture.name, "wb") as file:
            file.write(picture.png)
    for name in ("report.md", "report.html"):
        with replacing(results / name) as file:
            file.write(render(blocks, f"{name}.jinja"))


def main(args: Args) -> None:
    try:
        with tempfile.TemporaryFile(dir=args.results):
            pass  # else only a minute's work later it would be seen that nothing can be written
        data = read_data(args)
        blocks = [*with_file_names(content(data), set())]
        write(blocks, args.results)
    except OSError as error:
        fail("results", args.results, error)
    summary = blocks[:2]
    if len(data.runs):
        summary.append(tables.results(data.runs))
    try:
        print(render(summary, "report.md.jinja"))
        print(args.results / "report.html", flush=True)
    except BrokenPipeError:  # nobody reads on; at its end Python would try once more to write
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main(tyro.cli(Args))
