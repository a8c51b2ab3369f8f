"""curves.csv of benchmark/collate.py -> a picture: one panel per environment, one colour per head.

    python -m benchmark.readme.figure --curves benchmark/results/ppo_checks/curves.csv --out curves.png

Thin lines are seeds, the thick one is their median.
"""

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import tyro

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmark.png import png

HEADS = {
    "False": ("learned head", "#E69F00"),
    "True": ("frozen simplex ETF", "#0072B2"),
}  # Okabe & Ito's colours


@dataclass
class Args:
    curves: Path  # curves.csv to read
    out: Path  # PNG to write


def main(args: Args) -> None:
    with open(args.curves) as file:
        rows = list(csv.DictReader(file))
    curves = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in rows:
        curves[row["env_id"]][row["etf_head"]][row["seed"]].append(
            (float(row["step"]), float(row["value"]))
        )
    figure, axes = plt.subplots(
        1, len(curves), figsize=(3.6 * len(curves), 3.1), squeeze=False, layout="constrained"
    )
    for axis, (env_id, heads) in zip(axes[0], curves.items(), strict=True):
        for head, (label, colour) in HEADS.items():
            seeds = np.array([*heads[head].values()])
            steps, values = seeds[0, :, 0] / 1000, seeds[:, :, 1]
            axis.plot(steps, values.T, color=colour, linewidth=0.6, alpha=0.35)
            axis.plot(
                steps,
                np.median(values, axis=0),
                color=colour,
                linewidth=2.2,
                label=f"{label}, seeds: {len(seeds)}",
            )
        axis.set(title=env_id, xlabel="environment steps (thousands)")
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8)
    axes[0, 0].set_ylabel("return, last 100 episodes")
    args.out.write_bytes(png(figure, dpi=140))


if __name__ == "__main__":
    main(tyro.cli(Args))
