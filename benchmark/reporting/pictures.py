"""The pictures of benchmark/report.py, as PNG: learning and collapse curves, and the heads' effects with their intervals."""

import io
import math

import matplotlib
import numpy as np
import pandas as pd

from benchmark.reporting import verdicts

matplotlib.use("Agg")
import matplotlib.pyplot as plt

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
VERDICTS = {
    "better": ("#0072B2", "o"),
    "worse": ("#D55E00", "s"),
    "not distinguishable": ("#999999", "d"),
}  # colour, marker


def png(figure: plt.Figure) -> bytes:
    """The figure as a file, closed."""
    file = io.BytesIO()
    figure.savefig(file, dpi=140)
    plt.close(figure)
    return file.getvalue()


def draw_curves(curves: pd.DataFrame, column: str) -> bytes:
    """PNG of the IQM over seeds against steps with its 95 % interval, or thin lines of too few seeds for one: a panel per
    environment, a line per arm."""
    tasks, arms = (
        list(curves.groupby("env_id")),
        sorted(curves[["head", "arm"]].drop_duplicates().itertuples(index=False)),
    )
    arms.sort(key=lambda arm: [*COLOURS, arm.head].index(arm.head))
    columns = min(3, len(tasks))
    size = (
        max(3.6 * columns, 5),
        2.9 * math.ceil(len(tasks) / columns) + 0.3 * math.ceil(len(arms) / columns),
    )
    figure, axes = plt.subplots(
        -(-len(tasks) // columns), columns, figsize=size, squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(tasks) :]:
        axis.set_axis_off()
    lines = {}
    for axis, (env_id, task) in zip(axes.flat, tasks):
        for place, (head, arm) in enumerate(arms):
            rows = (
                task[task["arm"] == arm].pivot(index="step", columns="run", values=column).dropna()
            )
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
        lines.values(),
        lines.keys(),
        loc="outside lower center",
        ncols=max(1, min(len(lines), 2 * columns)),
        fontsize=9,
    )
    return png(figure)


def draw_effects(effects: pd.DataFrame) -> bytes:
    """PNG of differences, head minus baseline, with their 95 % intervals: a column per panel, a line per label, from top to
    bottom, those of several tasks in bold. Columns: panel, label, several, difference, low, high (NaN: none), verdict."""
    labels, panels = list(dict.fromkeys(effects["label"])), list(dict.fromkeys(effects["panel"]))
    size = (2.9 + 2.7 * len(panels), 1.3 + 0.26 * len(labels))
    figure, axes = plt.subplots(
        1, len(panels), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    handles = {}
    for axis, panel in zip(axes[0], panels):
        axis.axvline(0, color="black", linewidth=0.8)
        for row in effects[effects["panel"] == panel].itertuples():
            (colour, marker), place = VERDICTS[row.verdict], labels.index(row.label)
            axis.plot(
                [row.low, row.high],
                [place, place],
                color=colour,
                linewidth=2.6 if row.several else 1.4,
            )
            (handles[row.verdict],) = axis.plot(
                row.difference,
                place,
                marker,
                color=colour,
                markersize=7 if row.several else 5,
                linestyle="none",
            )
        axis.set_title(panel, fontsize=10)
        axis.grid(alpha=0.25, axis="x")
    figure.suptitle(
        "Difference of normalised scores with its 95 % interval (right of 0: higher)", fontsize=10.5
    )
    axes[0, 0].set_yticks(range(len(labels)), labels, fontsize=8.5)
    axes[0, 0].invert_yaxis()
    several = set(effects["label"][effects["several"]])
    for text in axes[0, 0].get_yticklabels():
        text.set_fontweight("bold" if text.get_text() in several else "normal")
    shown = [word for word in VERDICTS if word in handles]
    figure.legend(
        [handles[word] for word in shown], shown, loc="outside lower center", ncols=3, fontsize=9
    )
    return png(figure)
