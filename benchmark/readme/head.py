"""The small table -> a picture of what the head's start, frame and freezing do to the area under the learning curve.

python -m benchmark.readme.head --out benchmark/results/table_1_small/head.png
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
import tyro

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmark.readme import evidence
from benchmark.reporting.comparisons import ALL

AREA = "area under the curve"
PANELS = {  # heads that are compared, and what the panel is called
    ("etf", "linear"): "frozen ETF\nagainst CleanRL's learned head",
    ("linear-2", "linear"): "learned head from norm 2\nagainst CleanRL's learned head",
    ("etf", "linear-2"): "frozen ETF\nagainst learned head from norm 2",
}
COLOURS = {"better": "#0072B2", "worse": "#D55E00", "not distinguishable": "#888888"}
MARKERS = {"better": "o", "worse": "s", "not distinguishable": "D"}


@dataclass
class Args:
    out: Path  # PNG to write


def rows() -> pd.DataFrame:
    """The comparisons over the tasks of each algorithm, and over all, by panel."""
    found = []
    for head, baseline in PANELS:
        for script in (*evidence.SCRIPTS, ALL):
            place = script, evidence.over(script), AREA, head, baseline
            row = evidence.small().loc[place]
            name = "all together" if script == ALL else script.removesuffix("_acpg").upper()
            found.append({"panel": (head, baseline), "name": name, **row})
    return pd.DataFrame(found)


def main(args: Args) -> None:
    size = {"figsize": (9, 2.9), "sharex": True, "sharey": True, "layout": "constrained"}
    figure, axes = plt.subplots(1, len(PANELS), **size)
    compared = rows()
    for axis, (panel, title) in zip(axes, PANELS.items(), strict=True):
        axis.axvline(0, color="black", linewidth=0.8)
        for place, row in enumerate(compared[compared["panel"] == panel].itertuples()):
            style = {"color": COLOURS[row.verdict], "linewidth": 2}
            axis.plot([row.low, row.high], [place, place], **style)
            axis.plot(row.difference, place, MARKERS[row.verdict], markersize=7, **style)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.25, axis="x")
    names = compared["name"].unique()
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    axes[1].set_xlabel(
        "difference of normalised areas, 95 % intervals (right of 0: earns more while learning)"
    )
    handles = [
        plt.Line2D([], [], color=colour, marker=MARKERS[verdict], linewidth=2, label=verdict)
        for verdict, colour in COLOURS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(args.out, dpi=160)


if __name__ == "__main__":
    main(tyro.cli(Args))
