"""The tables of benchmark/report.py."""

from typing import NamedTuple

import pandas as pd

from benchmark.reporting import verdicts
from benchmark.reporting.comparisons import COMPARED, known, stop
from benchmark.reporting.words import mean_std, number, p_value, span


class Table(NamedTuple):
    columns: list[str]
    rows: list[list[str]]


def table_of(rows: list[dict[str, str]]) -> Table:
    """A table of these rows, without the column "against" if all are compared with the same arm."""
    columns = list(rows[0])
    if len({row.get("against") for row in rows}) == 1:
        columns = [column for column in columns if column != "against"]
    return Table(columns, [[row[column] for column in columns] for row in rows])


def results(runs: pd.DataFrame) -> Table:
    """best, final and stop as in the paper, the greedy return where it is known, and the area, by task and arm."""
    columns = ["best", "final", "greedy", "area"]
    if "greedy" not in known(runs, COMPARED):
        columns.remove("greedy")
    rows = []
    for (task, arm), group in runs.groupby(["task", "arm"]):
        row = {"task": task, "arm": arm, "seeds": str(len(group))}
        row |= {column: mean_std(group[column]) for column in columns}
        rows.append(row | {"stop (steps)": stop(group)})
    return table_of(rows)


def verdict_counts(comparisons: pd.DataFrame) -> Table:
    """How often each arm got each verdict."""
    rows = []
    for (arm, baseline, measure), group in comparisons.groupby(["arm", "baseline", "measure"]):
        row = {"arm": arm, "against": baseline, "measure": measure}
        rows.append(row | {word: str((group["verdict"] == word).sum()) for word in verdicts.WORDS})
    return table_of(rows)


def differences(comparisons: pd.DataFrame) -> Table:
    """The comparisons with their intervals."""
    rows = []
    for row in comparisons.to_dict("records"):
        cells = {"factor": row["factor"]} if "factor" in row else {}
        cells |= {"task": row["task"], "arm": row["arm"], "against": row["baseline"]}
        cells["seeds"] = row["seeds"]
        cells["difference (95 % interval)"] = span(row["difference"], row["low"], row["high"])
        cells |= {"p": p_value(row["p"]), "corrected p": p_value(row["corrected"])}
        cells |= {
            "verdict": row["verdict"].replace(verdicts.WORDS[2], "open"),
            "smallest difference": number(row["smallest"]),
        }
        rows.append(cells)
    return table_of(rows)


def aggregates(rows: pd.DataFrame, figures: dict[str, str]) -> Table:
    """Aggregates with their intervals; `figures` are the columns of these and their titles."""
    lines = []
    for row in rows.to_dict("records"):
        cells = {"over": row["task"], "measure": row["measure"].removeprefix("normalised ")}
        cells |= {"arm": row["arm"], "against": row["baseline"], "seeds": str(row["runs"])}
        cells["runs left out"] = str(row["left_out"])
        lines.append(cells | {title: span(*row[name]) for name, title in figures.items()})
    return table_of(lines)


def stops(comparisons: pd.DataFrame) -> Table:
    """How soon the threshold is reached with an arm and with the baseline."""
    rows = []
    for row in comparisons.to_dict("records"):
        drawn = row["seeds"] - row["sooner"] - row["later"]
        cells = {"task": row["task"], "arm": row["arm"], "against": row["baseline"]}
        cells |= {"stop of the arm": row["stop"], "stop of the baseline": row["baseline_stop"]}
        cells["sooner, later, drawn"] = f"{row['sooner']}, {row['later']}, {drawn}"
        rows.append(cells | {"p": p_value(row["p"]), "corrected p": p_value(row["corrected"])})
    return table_of(rows)


def dispersion(comparisons: pd.DataFrame) -> Table:
    """Standard deviations over seeds and the tests of their equality."""
    rows = []
    corrected = comparisons.groupby("measure")["equal_spread"].transform(verdicts.corrected)
    for row, p in zip(comparisons.to_dict("records"), corrected):
        cells = {"task": row["task"], "measure": row["measure"], "arm": row["arm"]}
        cells |= {"against": row["baseline"], "std of the arm": number(row["spread"])}
        cells |= {"std of the baseline": number(row["baseline_spread"])}
        rows.append(cells | {"p": p_value(row["equal_spread"]), "corrected p": p_value(p)})
    return table_of(rows)
