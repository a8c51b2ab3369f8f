"""Differences with their intervals and verdicts, as dots with bars: panels beside each other, a row for each name."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from benchmark.png import png

COLOURS = {"better": "#0072B2", "worse": "#D55E00", "not distinguishable": "#888888"}
MARKERS = {"better": "o", "worse": "s", "not distinguishable": "D"}


def forest(rows: pd.DataFrame, titles: dict, axis_title: str, out: Path) -> None:
    """Draws those of `rows` whose `panel` has a title. Each row has besides `name`, its line in all panels, `difference`,
    `low`, `high` and `verdict`. A name that a panel has no row of stays empty there."""
    rows = rows[rows["panel"].isin(titles)]
    names = [*dict.fromkeys(rows["name"])]
    height = 1.5 + 0.28 * len(names)
    size = {"figsize": (9, height), "sharex": True, "sharey": True, "layout": "constrained"}
    figure, axes = plt.subplots(1, len(titles), **size)
    for axis, (panel, title) in zip(axes, titles.items(), strict=True):
        axis.axvline(0, color="black", linewidth=0.8)
        for row in rows[rows["panel"] == panel].itertuples():
            style = {"color": COLOURS[row.verdict], "linewidth": 2}
            place = names.index(row.name)
            axis.plot([row.low, row.high], [place, place], **style)
            axis.plot(row.difference, place, MARKERS[row.verdict], markersize=7, **style)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.25, axis="x")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)  # the first on top
    handles = [
        plt.Line2D([], [], color=colour, marker=MARKERS[verdict], linewidth=2, label=verdict)
        for verdict, colour in COLOURS.items()
    ]
    where = {"loc": "outside lower center", "ncols": 3, "frameon": False}
    figure.legend(handles=handles, title=axis_title, **where)
    out.write_bytes(png(figure, dpi=160))
