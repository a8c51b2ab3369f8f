"""Finished runs -> one CSV with a row per run, and a Markdown table of its groups.

    python -m benchmark.collate --runs runs/ppo --out benchmark/results/ppo.csv

Columns: every flag in which the runs differ, and
final      mean return of the last 100 episodes
last_tenth mean return of the episodes that ended in the last 10 % of the steps
area       mean over 25 equally spaced points of the run of the mean return of the last 100 episodes up to there
seconds    duration of the run
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
    out: Path  # CSV to write


def measure(run: Path) -> dict:
    """Flags and measures of one run. Raises ValueError if it is not finished or its files are damaged."""
    flags = json.loads((run / "args.json").read_text())
    episodes = np.loadtxt(run / "episodes.csv", delimiter=",", skiprows=1, ndmin=2)
    total = flags["total_timesteps"]
    if not len(episodes) or not (run / "checkpoint.pt").exists():
        raise ValueError("no episode or no checkpoint")
    steps, returns = episodes[:, 0], episodes[:, 1]
    if steps[-1] < 0.95 * total:
        raise ValueError(f"stops at step {steps[-1]:.0f} of {total}")
    cumulated = np.concatenate([[0], returns.cumsum()])
    ends = np.searchsorted(steps, np.linspace(total / 25, total, 25), side="right")
    starts = np.maximum(ends - 100, 0)
    windows = (cumulated[ends] - cumulated[starts])[ends > 0] / (ends - starts)[ends > 0]
    last_tenth = returns[steps > 0.9 * total]
    values = (returns[-100:].mean(), last_tenth.mean(), windows.mean(), episodes[-1, 3])
    return {"script": run.name.split("__")[1], **flags, **dict(zip(MEASURES, values, strict=True))}


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
    flags = [key for key in rows[0] if key not in (*MEASURES, "seed", "runs_dir", "num_threads", "save_model")]
    return [key for key in flags if len({str(row[key]) for row in rows}) > 1 or key == "env_id"] + ["seed"]


def markdown(rows: list[dict]) -> str:
    """One line per group of runs that differ in their seed only: mean ± standard deviation over the seeds."""
    keys = varying(rows)[:-1]
    lines = ["| " + " | ".join([*keys, "seeds", *MEASURES[:3]]) + " |", "|---" * (len(keys) + 4) + "|"]

    def group(row: dict) -> tuple[str, ...]:
        return tuple(str(row[key]) for key in keys)

    for name, members in itertools.groupby(sorted(rows, key=group), key=group):
        members = list(members)
        cells = [f"{np.mean(v):.4g} ± {np.std(v):.2g}" for v in ([row[m] for row in members] for m in MEASURES[:3])]
        lines.append("| " + " | ".join([*name, str(len(members)), *cells]) + " |")
    return "\n".join(lines)


def main(args: Args) -> None:
    rows = collate(args.runs)
    if not rows:
        sys.exit(f"no finished run below {args.runs}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with open(args.out, "w", newline="") as file:
        writer = csv.DictWriter(file, [*varying(rows), *MEASURES], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {key: f"{row[key]:.6g}" for key in MEASURES})
    print(markdown(rows))


if __name__ == "__main__":
    main(tyro.cli(Args))
