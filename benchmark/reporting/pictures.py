"""The pictures of benchmark/report.py, as PNG: curves of runs and of aggregates, and differences with their intervals.

Names of arms and environments are text: nothing in them is read as mathematics.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import ticker

from benchmark.png import png
from benchmark.reporting import verdicts
from benchmark.reporting.comparisons import FROZEN, TRAINABLE

matplotlib.use("Agg")
import matplotlib.pyplot as plt

matplotlib.rcParams["text.parse_math"] = False

PALETTE = (
    "#E69F00",
    "#0072B2",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#000000",
)  # Okabe, Ito
LINESTYLES = ("-", "--", ":", "-.")
HEADS = ("linear", *FROZEN, *TRAINABLE)  # have the colours of the same place
COLLAPSE = {  # columns of curves.csv and what their axes say
    "within_variability": "variance within actions /\nvariance between them",
    "trace_ratio": "Tr(variance within actions) /\nTr(variance between them)",
    "self_duality": "distance of rows and\nmean activations",
    "means_equinorm": "means: spread of norms",
    "means_equiangularity": "means: spread of cosines",
    "means_maximal_angle": "means: distance from -1/(K-1)",
}
RATIOS = ("within_variability", "trace_ratio")  # drawn on a logarithmic axis
VERDICTS = {  # colour and marker
    "better": ("#0072B2", "o"),
    "worse": ("#D55E00", "s"),
    "not distinguishable": ("#999999", "d"),
}
LINES = 3  # in a panel, at most
COLUMNS = 4  # of panels, at most


class Band(NamedTuple):
    """A line with its interval, and where this is unknown, thin lines of the runs beside it."""

    x: np.ndarray  # (points,)
    point: np.ndarray  # (points,)
    low: np.ndarray  # (points,); NaN: unknown
    high: np.ndarray  # (points,)
    runs: np.ndarray | None = None  # (points, runs)


class Panel(NamedTuple):
    title: str
    bands: dict[str, Band]  # by arm


def styles(runs: pd.DataFrame) -> dict[str, dict[str, str]]:
    """By arm its line's colour and style. The order is the arms' in pictures: baselines first, heads in the order of HEADS,
    others by name. Arms that differ only in a flag have one colour."""
    arms = runs[["arm", "plain_arm", "baseline"]].drop_duplicates("arm")
    arms["second"] = arms["plain_arm"] != arms["baseline"]
    arms["place"] = [[*HEADS, arm].index(arm) for arm in arms["plain_arm"]]
    arms = arms.sort_values(["second", "place", "plain_arm", "arm"])
    plain = [*dict.fromkeys(arms["plain_arm"])]
    order = list(HEADS) if set(plain) <= set(HEADS) else plain
    lines = {}
    for arm, name in zip(arms["arm"], arms["plain_arm"]):
        place = order.index(name)
        like = [other for other in lines if lines[other]["color"] == PALETTE[place % len(PALETTE)]]
        style = LINESTYLES[len(like) % len(LINESTYLES)]
        lines[arm] = {"color": PALETTE[place % len(PALETTE)], "linestyle": style}
    return lines


def facets(arms: list[str], baselines: set[str]) -> list[list[str]]:
    """The arms, in their order, that share a panel: LINES at most; with one baseline, this is in all of them."""
    first = [arm for arm in arms if arm in baselines]
    if len(arms) <= LINES or len(first) > 1:
        first = []
    others = [arm for arm in arms if arm not in first]
    size = LINES - len(first)
    return [[*first, *others[k : k + size]] for k in range(0, len(others), size)]


# CURVES
def run_band(curves: pd.DataFrame, column: str) -> Band | None:
    """IQM over the runs of one arm and task with its interval, against thousands of steps, where all runs have a value that
    ever have one; None if there is no such step."""
    known = curves.dropna(subset=column)
    table = known.pivot(index="step", columns="run", values=column).dropna()
    if not table.size:
        return None
    scores = table.to_numpy().T[:, None, :]
    band = verdicts.interval(scores, verdicts.curve_iqm)
    return Band(table.index.to_numpy() / 1000, *band, table.to_numpy())


def run_panels(curves: pd.DataFrame, column: str, groups: list[list[str]]) -> list[Panel]:
    """A panel for each task and each group of arms that has something to show there."""
    panels = []
    for task, rows in curves.groupby("task"):
        bands = {arm: run_band(members, column) for arm, members in rows.groupby("arm")}
        for arms in groups:
            drawn = {arm: bands[arm] for arm in arms if bands.get(arm) is not None}
            if drawn:
                panels.append(Panel(task, drawn))
    return panels


def training_bands(curves: pd.DataFrame, tasks: list[str], arms: list[str]) -> dict[str, Band]:
    """By arm the IQM over runs and tasks of `normalised_value`, with its stratified interval, against the share of training, of
    the seeds that have all tasks; without arms that have no such seed."""
    curves = curves[curves["task"].isin(tasks)]
    curves = curves.assign(point=curves.groupby("run").cumcount())
    share = curves["step"] / curves.groupby("task")["step"].transform("max")
    shares = share.groupby(curves["point"]).mean()
    bands = {}
    for arm in arms:
        rows = curves[curves["arm"] == arm]
        complete = rows.groupby("seed")["task"].nunique() == len(tasks)
        rows = rows[rows["seed"].map(complete).astype(bool)]
        table = rows.pivot(index="point", columns=["seed", "task"], values="normalised_value")
        table = table.sort_index(axis=1).dropna()
        if table.size:
            scores = table.to_numpy().T.reshape(-1, len(tasks), len(table))
            band = verdicts.interval(scores, verdicts.curve_iqm)
            bands[arm] = Band(shares[table.index].to_numpy(), *band)
    return bands


def profiles(scores: dict[str, np.ndarray], levels: np.ndarray) -> dict[str, Band]:
    """By arm the share of its scores (runs, tasks) above each level."""
    bands = {}
    for arm, array in scores.items():
        shares = verdicts.interval(array, lambda sample: verdicts.profile(sample, levels))
        bands[arm] = Band(levels, *shares)
    return bands


def band_panels(bands: dict[str, Band], lines: dict, runs: pd.DataFrame) -> list[Panel]:
    """Panels without title of these bands, by `facets`."""
    arms = [arm for arm in lines if arm in bands]
    groups = facets(arms, set(runs["baseline"]))
    return [Panel("", {arm: bands[arm] for arm in group}) for group in groups]


def draw_panels(
    panels: list[Panel], lines: dict[str, dict[str, str]], x: str, y: str, log: bool = False
) -> bytes:
    """PNG of the panels, up to COLUMNS beside each other, with these styles of lines and labels of axes."""
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    width = 11.5 if columns > 2 else 4.5 * columns
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, 2.5 * rows + 0.5), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    handles = {}
    for axis, panel in zip(axes.flat, panels):
        for arm, band in panel.bands.items():
            (handles[arm],) = axis.plot(band.x, band.point, linewidth=1.8, **lines[arm])
            if not np.isnan(band.low).any():
                shade = {"color": lines[arm]["color"], "alpha": 0.2, "linewidth": 0}
                axis.fill_between(band.x, band.low, band.high, **shade)
            elif band.runs is not None:
                axis.plot(band.x, band.runs, linewidth=0.6, alpha=0.5, **lines[arm])
        axis.set_title(panel.title, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        if log:
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
            axis.yaxis.set_minor_formatter(ticker.NullFormatter())
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)
    arms = [arm for arm in lines if arm in handles]
    legend(figure, [handles[arm] for arm in arms], arms, columns)
    return png(figure)


def legend(figure: plt.Figure, handles: list, names: Iterable[str], columns: int) -> None:
    """Names above the panels, also such as begin with "_", which matplotlib would leave out."""
    names = list(names)
    drawn = figure.legend(
        handles,
        [f"{place}" for place in range(len(names))],
        loc="outside upper center",
        ncols=min(len(names), 2 * columns),
        fontsize=9,
    )
    for text, name in zip(drawn.get_texts(), names):
        text.set_text(name)


# AGGREGATES AND DIFFERENCES
def draw_intervals(estimates: dict[str, tuple], names: list[str], lines: dict) -> bytes:
    """PNG of aggregates with their intervals: a panel for each of the names, a row per arm. `estimates`: by arm the points and
    the intervals' ends, each (names,)."""
    arms = [arm for arm in lines if arm in estimates]
    size = (11.5, 0.9 + 0.32 * len(arms))
    figure, axes = plt.subplots(
        1, len(names), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for column, axis in enumerate(axes[0]):
        for place, arm in enumerate(arms):
            point, low, high = (values[column] for values in estimates[arm])
            colour = lines[arm]["color"]
            axis.plot([low, high], [place, place], color=colour, linewidth=5, alpha=0.5)
            axis.plot(point, place, "|", color=colour, markersize=12, markeredgewidth=2.5)
        axis.set_title(names[column], fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25, axis="x")
    axes[0, 0].set_yticks(range(len(arms)), arms)
    axes[0, 0].set_ylim(len(arms) - 0.4, -0.6)
    return png(figure)


def draw_effects(effects: pd.DataFrame, unit: str) -> bytes:
    """PNG of differences with their 95 % intervals: a panel per panel, a line per label, from top to bottom, those of several
    tasks in bold. Columns: panel, label, several, difference, low, high (NaN: none), verdict."""
    labels = list(dict.fromkeys(effects["label"]))
    panels = list(dict.fromkeys(effects["panel"]))
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    size = (min(11.5, 4 + 2.5 * columns), rows * (0.7 + 0.23 * len(labels)) + 0.6)
    figure, axes = plt.subplots(
        rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    places = {label: place for place, label in enumerate(labels)}
    handles = {}
    for axis, panel in zip(axes.flat, panels):
        axis.axvline(0, color="black", linewidth=0.8)
        rows = effects[effects["panel"] == panel]
        for (verdict, several), members in rows.groupby(["verdict", "several"]):
            colour, marker = VERDICTS[verdict]
            y = members["label"].map(places)
            width, size = (2.6, 7) if several else (1.4, 5)
            axis.hlines(y, members["low"], members["high"], colors=colour, linewidth=width)
            shape = {"markersize": size, "linestyle": "none", "color": colour}
            (handles[verdict],) = axis.plot(members["difference"], y, marker, **shape)
        axis.set_title(panel, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25, axis="x")
    figure.supxlabel(f"difference and its 95 % interval, {unit} (right of 0: higher)", fontsize=9)
    bold = set(effects["label"][effects["several"]])
    for axis in axes[:, 0]:
        axis.set_yticks(range(len(labels)), labels, fontsize=8)
        for text in axis.get_yticklabels():
            text.set_fontweight("bold" if text.get_text() in bold else "normal")
    axes[0, 0].set_ylim(len(labels) - 0.4, -0.6)
    shown = [word for word in VERDICTS if word in handles]
    legend(figure, [handles[word] for word in shown], shown, columns)
    return png(figure)
