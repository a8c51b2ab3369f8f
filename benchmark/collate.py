"""Finished runs -> runs.csv (a row per run), curves.csv, and a Markdown table of the groups that differ in more than seed.

    python -m benchmark.collate --runs runs/ppo_checks --out benchmark/results/ppo_checks

Columns of both: every flag in which the runs differ (empty where the run's head ignores it). Of runs.csv also
final      mean return of the last 100 episodes
last_tenth mean return of the episodes that ended in the last 10 % of the steps
area       mean of the run's curve
seconds    duration of the run
and of curves.csv, the run's curve at 25 equally spaced points:
step       environment steps so far
value      mean return of the last 100 episodes up to there ("nan" before the first episode's end)
"""

import csv
import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

MEASURES = ("final", "last_tenth", "area", "seconds")


@dataclass
class Args:
    runs: Path  # directory that holds the runs, at any depth
    out: Path  # directory to write runs.csv and curves.csv to


def measure(run: Path) -> dict:
    """Flags, measures and curve (step, value) of one run. Raises ValueError if it is not finished or its files are damaged."""
    flags = json.loads((run / "args.json").read_text())
    episodes = np.loadtxt(run / "episodes.csv", delimiter=",", skiprows=1, ndmin=2)
    total = flags["total_timesteps"]
    if not len(episodes) or not (run / "checkpoint.pt").exists():
        raise ValueError("no episode or no checkpoint")
    steps, returns = episodes[:, 0], episodes[:, 1]
    if steps[-1] < 0.95 * total:
        raise ValueError(f"stops at step {steps[-1]:.0f} of {total}")
    cumulated = np.concatenate([[0], returns.cumsum()])
    grid = np.linspace(total / 25, total, 25)
    ends = np.searchsorted(steps, grid, side="right")
    starts = np.maximum(ends - 100, 0)
    with np.errstate(invalid="ignore"):
        curve = (cumulated[ends] - cumulated[starts]) / (ends - starts)
    last_tenth = returns[steps > 0.9 * total]
    values = (returns[-100:].mean(), last_tenth.mean(), np.nanmean(curve), episodes[-1, 3])
    ignored = {"head_std"} if flags.get("etf_head") else {"etf_scale", "head_frame", "head_trainable"}
    flags = {key: value for key, value in flags.items() if key not in ignored}
    measures = dict(zip(MEASURES, values, strict=True))
    return {"script": run.name.split("__")[1], **flags, **measures, "curve": [*zip(grid, curve, strict=True)]}


def collate(root: Path) -> list[dict]:
    """Rows of all finished runs below `root`; others are named on stderr."""
    rows = []
    for file in sorted(root.rglob("args.json")):
        try:
            rows.append(measure(file.parent))
        except (OSError, ValueError, KeyError) as error:
            print(f"skipped {file.parent}: {error}", file=sys.stderr)
    return rows


def varying(rows: list[dict]) -> list[str]:
    """The flags in which the rows differ, seed last; those that only say where and how to run are left out."""
    silent = {*MEASURES, "curve", "seed", "runs_dir", "num_threads", "save_model"}
    flags = dict.fromkeys(key for row in rows for key in row if key not in silent)
    return [key for key in flags if key == "env_id" or len({str(row[key]) for row in rows if key in row}) > 1] + ["seed"]


def markdown(rows: list[dict]) -> str:
    """One line per group of runs that differ in their seed only: mean ± standard deviation over the seeds."""
    keys = varying(rows)[:-1]
    lines = ["| " + " | ".join([*keys, "seeds", *MEASURES[:3]]) + " |", "|---" * (len(keys) + 4) + "|"]

    def group(row: dict) -> tuple[str, ...]:
        return tuple(str(row.get(key, "")) for key in keys)

    for name, members in itertools.groupby(sorted(rows, key=group), key=group):
        members = list(members)
        cells = [f"{np.mean(v):.4g} ± {np.std(v):.2g}" for v in ([row[m] for row in members] for m in MEASURES[:3])]
        lines.append("| " + " | ".join([*name, str(len(members)), *cells]) + " |")
    return "\n".join(lines)


def main(args: Args) -> None:
    rows = collate(args.runs)
    if not rows:
        sys.exit(f"no finished run below {args.runs}")
    args.out.mkdir(parents=True, exist_ok=True)
    keys = varying(rows)
    points = [row | {"step": f"{step:.0f}", "value": f"{value:.6g}"} for row in rows for step, value in row["curve"]]
    runs = [row | {key: f"{row[key]:.6g}" for key in MEASURES} for row in rows]
    for name, columns, table in (("runs.csv", MEASURES, runs), ("curves.csv", ("step", "value"), points)):
        with open(args.out / name, "w", newline="") as file:
            writer = csv.DictWriter(file, [*keys, *columns], extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    print(markdown(rows))


if __name__ == "__main__":
    main(tyro.cli(Args))
