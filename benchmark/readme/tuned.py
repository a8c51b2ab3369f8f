"""Question 7 of benchmark/results/README.md: which setting of each head the tuning seeds chose -> benchmark/paper/tuned.sh and a
table of docs/does-the-head-help.md.

    python -m benchmark.readme.tuned --env-id Taxi-v4

prints a line for each head: its name, learning rate and norm of rows.
"""

from dataclasses import dataclass

import pandas as pd
import tyro

from benchmark.collate import fail
from benchmark.readme.second import NAMES, runs
from benchmark.readme.tables import markdown
from benchmark.reporting.thresholds import plain_id

# "RATE,NORM" of the scripts' defaults, by head; the order is that of the arms
DEFAULTS = {"linear": "2.5e-4,0.01", "etf": "2.5e-4,2", "etf-trainable": "2.5e-4,2"}


@dataclass
class Args:
    env_id: str  # the task that was tuned for


def settings(task: str) -> pd.DataFrame:
    """The mean over seeds of the area, by head and "RATE,NORM" (`arm`, `value`). Settings that some seed did not
    finish are left out."""
    frame = runs("tuning").query("task == @task")
    areas = frame.groupby(["arm", "value"], sort=False)["area"].agg(["mean", "size"])
    return areas[areas["size"] == areas["size"].max()]


def winners(task: str) -> dict[str, str]:
    """By head: the setting whose mean area is the largest, the first of equals."""
    areas = settings(task)["mean"]
    return {head: areas[head].idxmax() for head in DEFAULTS}


def table() -> str:
    """By task and head: the winner, and the mean areas of it and of the default setting over the tuning seeds."""
    rows = []
    for task in runs("tuning")["task"].unique():
        areas = settings(task)["mean"]
        for head, winner in winners(task).items():
            rate, norm = winner.split(",")
            found = (f"{areas[head, setting]:.1f}" for setting in (winner, DEFAULTS[head]))
            rows.append([task, NAMES[head], rate, norm, *found])
    columns = ["", "head", "learning rate", "norm of rows", "its area", "the default's"]
    return markdown(columns, rows)


def main(args: Args) -> None:
    task = plain_id(args.env_id)
    if task not in set(runs("tuning")["task"]):
        fail("env-id", args.env_id, "benchmark/results/tuning has no runs of it")
    for head, setting in winners(task).items():
        print(head, *setting.split(","))


if __name__ == "__main__":
    main(tyro.cli(Args))
