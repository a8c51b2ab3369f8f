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
    folder: str = "tuning"  # where its tables are, in benchmark/results


def settings(task: str, folder: str = "tuning") -> pd.DataFrame:
    """The mean over seeds of the area, by head and "RATE,NORM" (`arm`, `value`). Settings that some seed did not
    finish are left out."""
    frame = runs(folder).query("task == @task")
    areas = frame.groupby(["arm", "value"], sort=False)["area"].agg(["mean", "size"])
    return areas[areas["size"] == areas["size"].max()]


def winners(task: str, folder: str = "tuning") -> dict[str, str]:
    """By head: the setting whose mean area is the largest, the first of equals."""
    areas = settings(task, folder)["mean"]
    return {head: areas[head].idxmax() for head in DEFAULTS}


def table() -> str:
    """By task, head and learning rate: the mean areas over the tuning seeds by norm, the winner's in bold."""
    areas = {task: settings(task)["mean"] for task in sorted(runs("tuning")["task"].unique())}
    tried = [setting.split(",") for found in areas.values() for _, setting in found.index]
    rates, norms = (sorted(set(values), key=float) for values in zip(*tried))
    rows = []
    for task, found in areas.items():
        winner = winners(task)
        for head in DEFAULTS:
            of_head = found[head]
            for rate in rates:
                cells = []
                for norm in norms:
                    setting = f"{rate},{norm}"
                    area = f"{of_head[setting]:.1f}" if setting in of_head else ""
                    cells.append(f"**{area}**" if setting == winner[head] else area)
                rows.append([task, NAMES[head], rate, *cells])
    columns = ["area by norm of rows", "head", "learning rate", *norms]
    return markdown(columns, rows)


def main(args: Args) -> None:
    task = plain_id(args.env_id)
    if task not in set(runs(args.folder)["task"]):
        fail("env-id", args.env_id, f"benchmark/results/{args.folder} has no runs of it")
    for head, setting in winners(task, args.folder).items():
        print(head, *setting.split(","))


if __name__ == "__main__":
    main(tyro.cli(Args))
