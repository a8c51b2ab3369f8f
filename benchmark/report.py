"""The tables of benchmark/collate.py -> report.md, report.html (one file, opens offline) and pictures: did the head help?

    python -m benchmark.report --results runs/quickstart/results

Reads runs.csv, curves.csv, counts.csv and provenance.csv of that directory, writes beside them, and prints the table of
results. What is compared with what is in benchmark/reporting/comparisons.py, the statistics in benchmark/reporting/verdicts.py, the pictures in
benchmark/reporting/pictures.py.
"""

import base64
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd
import tyro

from benchmark.collate import COUNTS, fail, replacing
from benchmark.reporting import verdicts
from benchmark.reporting.comparisons import (
    BASELINE,
    COMPARED,
    aggregate_comparisons,
    aggregated,
    contrast_comparisons,
    judged,
    pairs,
    read,
    read_runs,
    stop,
    stop_comparisons,
    task_comparisons,
)
from benchmark.reporting.measures import COLLAPSE
from benchmark.reporting.pictures import CURVES, draw_curves, draw_effects
from benchmark.reporting.thresholds import normalised, plain_id


@dataclass
class Args:
    results: Path  # directory that holds collate's tables; the report is written there


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
    """A figure and its interval, unless that is unknown or has no width, as a bootstrap's of values that all agree."""
    return number(point) if not low < high else f"{number(point)} ({number(low)} to {number(high)})"


def p_value(p: float) -> str:
    return "–" if math.isnan(p) else f"{p:.3f}" if p >= 0.001 else "< 0.001"


def mean_std(values: pd.Series) -> str:
    return number(values.mean()) + (f" ± {number(values.std())}" if len(values) > 1 else "")


def seeds_text(needed: float) -> str:
    """A number of seeds as `verdicts.seeds_needed` gives it."""
    return (
        "–"
        if math.isnan(needed)
        else f"more than {verdicts.MOST_SEEDS}"
        if math.isinf(needed)
        else f"{needed:.0f}"
    )


def sentence(row: pd.Series) -> str:
    """The verdict in words."""
    start = f"{row['script']}, {row['env_id']}, {row['measure']}: {row['head']} is {row['verdict']}"
    seeds = (
        f"{row['seeds']} of seeds" if row["seeds"].endswith("pairs") else f"{row['seeds']} seeds"
    )
    if math.isnan(row["p"]):
        return f"{start} from {row['baseline']} at this number of seeds ({seeds}): a single seed shows no spread."
    figures = f"{seeds}; difference {span(row['difference'], row['low'], row['high'])}, corrected p {p_value(row['corrected'])}"
    if row["verdict"] != "not distinguishable":
        return f"{start} than {row['baseline']} ({figures})."
    why = f"about {seeds_text(row['needed'])} seeds a side would be needed".replace(
        "about more", "more"
    )
    if row["p"] <= 0.05:
        why = f"without the correction it would count as different (p {p_value(row['p'])})"
    return f"{start} from {row['baseline']} at this number of seeds ({figures}); {why}."


def origin(row: dict) -> str:
    """A row of provenance.csv in words."""
    text = f"{row['runs']} runs at commit {row['commit']} ({row['versions']}; {row['machine']}), started between "
    text += f"{row['first_start']} and {row['last_start']}, {row['hours']} hours of one worker"
    return (
        f"{text}; {row['restarted']} of them were started more than once."
        if row["restarted"] != "0"
        else f"{text}."
    )


def pictures(curves: pd.DataFrame, columns: list[str]) -> Iterator[Picture]:
    """One per script and column, of the environments where the column is defined."""
    for script, group in curves.groupby("script"):
        for column in columns:
            # at a step where a seed has no value yet there is no IQM
            if len(defined := group.dropna(subset=column)):
                name = f"{re.sub(r'[^A-Za-z0-9_-]', '-', script)}-{column.replace('value', 'return')}.png"
                yield Picture(name, f"{script}: {CURVES[column]}", draw_curves(defined, column))


def effects(comparisons: pd.DataFrame, several: pd.DataFrame) -> pd.DataFrame:
    """What `draw_effects` draws: the comparisons on the scale of normalised scores, where that is known, and those over
    several tasks under the others of their script. Up to two heads have panels of their own. The area comes first, as it is
    the less noisy measure."""
    rows, plain = [], Counter(plain_id(env_id) for env_id in set(comparisons["env_id"]))
    few = len(comparisons[["head", "baseline"]].drop_duplicates()) <= 2
    for row in pd.concat([comparisons.assign(several=False), several.assign(several=True)]).to_dict(
        "records"
    ):
        ends = (
            (0.0, 1.0)
            if row["several"]
            else (normalised(row["env_id"], 0.0), normalised(row["env_id"], 1.0))
        )
        if None not in ends:
            measure = row["measure"].removeprefix("normalised ")
            name = plain_id(row["env_id"]) if plain[plain_id(row["env_id"])] == 1 else row["env_id"]
            task, head = f"{row['script'].removesuffix('_acpg')}, {name}", row["head"]
            shown = {
                "label": task if few else f"{task}: {head}",
                "several": row["several"],
                "verdict": row["verdict"],
            }
            shown |= {"panel": f"{measure}\n{f'{head} ' * few}against {row['baseline']}"}
            shown |= {key: row[key] * (ends[1] - ends[0]) for key in ("difference", "low", "high")}
            rows.append(
                shown
                | {
                    "place": (row["script"] == "all scripts", row["script"], row["several"]),
                    "measure": measure,
                }
            )
    return pd.DataFrame(sorted(rows, key=lambda row: (row["measure"], row["place"])))


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
        yield f"Not in normalised aggregates, as benchmark/reporting/thresholds.csv has no references for them: {', '.join(unknown)}."


def results_table(runs: pd.DataFrame) -> Table:
    """best, final and stop as in the paper, and the area, by script, environment and head."""
    rows = []
    for key, group in runs.groupby(["script", "env_id", "arm"]):
        rows.append(
            [
                *key,
                str(len(group)),
                *(mean_std(group[column]) for column in ("best", "final", "area")),
                stop(group),
            ]
        )
    return Table(
        ["script", "environment", "head", "seeds", "best", "final", "area", "stop (steps)"], rows
    )


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
        rows[-1] += [row["seeds"], span(row["difference"], row["low"], row["high"])]
        rows[-1] += [
            p_value(row["p"]),
            p_value(row["corrected"]),
            row["verdict"],
            seeds_text(row["needed"]),
        ]
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
    names = ("script", "env_id", "measure", "head", "baseline", "seeds", "left_out")
    cells = [[str(row[name]) for name in names] for row in rows]
    for row, line in zip(rows, cells):
        line += [span(*(float(x[0]) for x in row[name])) for name in figures.values()]
    return Table(
        ["script", "over", "measure", "head", "against", "seeds", "runs left out", *figures], cells
    )


def contrast_table(contrasts: pd.DataFrame) -> Table:
    """The contrasts with their intervals."""
    table = difference_table(contrasts)
    return Table(
        ["factor", *table.columns],
        [[factor, *row] for factor, row in zip(contrasts["factor"], table.rows)],
    )


def stop_table(stops: pd.DataFrame) -> Table:
    """How soon the threshold is reached with a head and without."""
    rows = []
    for row in stops.to_dict("records"):
        rows.append(
            [row[key] for key in ("script", "env_id", "head", "baseline", "stop", "baseline_stop")]
        )
        draws = row["seeds"] - row["sooner"] - row["later"]
        rows[-1] += [
            f"{row['sooner']}, {row['later']}, {draws}",
            p_value(row["p"]),
            p_value(row["corrected"]),
        ]
    columns = [
        "script",
        "environment",
        "head",
        "against",
        "stop of the head",
        "stop of the baseline",
    ]
    return Table([*columns, "seeds sooner, later, drawn", "p", "corrected p"], rows)


def dispersion_table(comparisons: pd.DataFrame) -> Table:
    """Standard deviations over seeds and their differences."""
    rows, tests = [], verdicts.corrected(comparisons["equal_spread"])
    for row, p in zip(comparisons.to_dict("records"), tests):
        spans = [span(*row[key]) for key in ("spread", "baseline_spread", "change")]
        rows.append(
            [
                row["script"],
                row["env_id"],
                row["measure"],
                row["head"],
                row["baseline"],
                *spans,
                p_value(p),
            ]
        )
    columns = [
        "script",
        "environment",
        "measure",
        "head",
        "against",
        "std of the head",
        "std of the baseline",
        "difference",
    ]
    return Table([*columns, "corrected p"], rows)


def comparison_blocks(runs: pd.DataFrame) -> Iterator[NamedTuple]:
    """The part of the report that compares heads."""
    comparisons, aggregates = task_comparisons(runs), aggregate_comparisons(runs)
    several = judged(
        [row for row in aggregates if row["tasks"] > 1]
    )  # over one task, its own comparison has been judged
    if not len(comparisons):
        return
    yield Heading("Verdicts")
    yield Text(
        "Comparisons by script and environment, counted; then each in words, those over several environments first."
    )
    yield verdict_table(comparisons)
    yield Items([sentence(row) for _, row in pd.concat([several, comparisons]).iterrows()])
    yield Heading("Differences")
    yield Text(
        "Differences of means, their 95 % intervals and p values by the paired t test of the runs with the same seed, which "
        "start from the same backbone and environments; by Welch's test where the sides share fewer than two seeds, and by "
        f"the permutation test where nothing has any spread. The p values of this table's {len(comparisons)} comparisons are "
        "corrected together by Benjamini and Hochberg's procedure, those of other tables by themselves, the intervals not at "
        "all. Seeds needed: for 80 % power at the 5 % level before correction, if the true difference and spread are the "
        "observed ones, which a few seeds tell only roughly."
    )
    yield difference_table(comparisons)
    if len(drawn := effects(comparisons, several)):
        yield Text(
            "The same on the scale of normalised scores, where its references are known; bold: means over several tasks."
        )
        yield Picture(
            "effects.png", "Differences of the heads with 95 % intervals", draw_effects(drawn)
        )
    if len(stops := stop_comparisons(runs)):
        yield Heading("Time to threshold")
        yield Text(
            "stop: median of the first step at which the mean return of 100 episodes reaches the environment's threshold, "
            "where never is later than any step. Then for how many seeds the head is sooner or later than the baseline with "
            "the same seed, and p by the sign test, corrected within this table as above."
        )
        yield stop_table(stops)
    if len(contrasts := contrast_comparisons(runs)):
        yield Heading("Freezing or frame?")
        yield Text(
            "Heads against each other: a seed's mean over the heads of one side and that of the other, by the tests named "
            f"under Differences, corrected over this table's {len(contrasts)} comparisons. A softmax does not see what all "
            "rows have in common. So orthogonal rows are to it a simplex whose rows are √((K-1)/K) times as long, and so are, "
            "nearly, random ones in many dimensions; two rows are always a simplex. These frames differ in scale, and hardly "
            "in geometry."
        )
        yield contrast_table(contrasts)
    intervals = f"95 % stratified bootstrap intervals ({verdicts.RESAMPLES} resamples) from {verdicts.LEAST_SEEDS} seeds on"
    yield Heading("Aggregates")
    yield Text(
        "Over tasks, which are scripts and environments, and the seeds that all of these share: the probability that a run "
        "with the head has the higher value than one without, where a draw counts half; "
        f"{intervals}, too narrow for fewer than some 20."
    )
    chances = [
        names | {"measure": measure, "probability": verdicts.interval(scores, verdicts.improvement)}
        for column, measure in COMPARED.items()
        for names, scores in aggregated(runs, column)
    ]
    yield aggregate_table(chances, {"P(head beats the baseline)": "probability"})
    if aggregates:
        yield Text(
            "Interquartile means (IQM) of final returns and areas, normalised so that 0 is the random policy and 1 the best "
            "known return or else the threshold, over the tasks where these are known (benchmark/reporting/thresholds.csv); "
            f"{intervals}."
        )
        yield aggregate_table(
            aggregates, {"IQM of the head": "iqm", "IQM of the baseline": "baseline_iqm"}
        )
    if len(several):
        yield Text(
            "The same by t tests of the seeds' means over several tasks, corrected within this table:"
        )
        yield difference_table(several)
    yield Heading("Dispersion across seeds")
    yield Text(
        "Standard deviations over seeds and their differences (below 0: the head varies less). From "
        f"{verdicts.LEAST_SEEDS} seeds on with 95 % BCa bootstrap intervals, which are too narrow for fewer than some 20, and "
        "with p values by Brown and Forsythe's test of equal spread, which takes the sides as independent, corrected within "
        "this table as above."
    )
    yield dispersion_table(comparisons)


def content(
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    counts: pd.DataFrame,
    origins: list[dict],
    duplicates: int,
) -> Iterator[NamedTuple]:
    """The report from top to bottom."""
    yield Heading("Did the head help?", level=1)
    yield Text("Runs: " + ", ".join(f"{counts[state].sum():.0f} {state}" for state in COUNTS) + ".")
    if origins:
        yield Items([origin(row) for row in origins])
    gaps = [
        *missing(runs, counts),
        *[f"Left out: {duplicates} runs that repeat another's seed and flags."] * bool(duplicates),
    ]
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
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "reporting"),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "md": escape_markdown,
        "base64": lambda png: base64.b64encode(png).decode(),
    }
    return environment.get_template(template).render(
        blocks=[{"kind": type(b).__name__, **b._asdict()} for b in blocks]
    )


def main(args: Args) -> None:
    runs, duplicates = read_runs(args.results)
    curves = read(args.results / "curves.csv", ("step", "value", *COLLAPSE)).merge(
        runs[["run", "arm"]], on="run"
    )
    counts, provenance = read(args.results / "counts.csv", COUNTS), args.results / "provenance.csv"
    origins = (
        read(provenance, ()).to_dict("records") if provenance.exists() else []
    )  # older tables have none
    blocks = list(content(runs, curves, counts, origins, duplicates))
    try:
        for picture in (block for block in blocks if isinstance(block, Picture)):
            with replacing(args.results / picture.name, "wb") as file:
                file.write(picture.png)
        for name in ("report.md", "report.html"):
            with replacing(args.results / name) as file:
                file.write(render(blocks, f"{name}.jinja"))
    except OSError as error:
        fail("results", args.results, error)
    print(
        render([results_table(runs)] if len(runs) else blocks, "report.md.jinja")
        + str(args.results / "report.html")
    )


if __name__ == "__main__":
    main(tyro.cli(Args))
