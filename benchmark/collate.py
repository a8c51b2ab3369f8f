"""Finished runs -> runs.csv, curves.csv, episodes.csv.gz, counts.csv, provenance.csv, and a Markdown table of like runs.

    python -m benchmark.collate --runs runs/quickstart --out runs/quickstart/results

A run is a directory with an args.json, at any depth. Steps are environment steps, returns undiscounted sums of rewards.

Columns of runs.csv, a row per run, and of curves.csv, 25 rows per run:
run        the run's directory, below --runs
script     program that ran
head       linear (the plain one), etf, or the frame of a control; "-trainable" if it only starts there
and every flag in which the runs differ (empty where the run's head ignores it; exp_name where it is the script's name), env_id
and seed always.
Of runs.csv also
best       highest mean return of 100 episodes in a row; `final` with fewer
final      mean return of the last 100 episodes
last_tenth mean return of the episodes that ended in the last 10 % of the steps
area       mean of the run's curve, from the first episode's end on
threshold  return that counts as solved (benchmark/reporting/thresholds.py); empty if nobody says
stop       first step at which the mean return of the last 100 episodes is at least that; empty if never, or without one
normalised final on the scale of 0, the random policy, to 1, the best known return or else the threshold; empty without these
seconds    duration of the run, up to its last episode's end
steps_per_second
and of curves.csv, the run's curve at 25 equally spaced points:
step       steps so far
value      mean return of the last 100 episodes up to there ("nan" before the first episode's end)
and of both the measures of action collapse as the scripts log them (README), the last at or before the step, of runs.csv the
run's last; empty where undefined: actions_seen, feature_norm, head_equinorm, head_equiangularity, head_maximal_angle,
means_equinorm, means_equiangularity, means_maximal_angle, self_duality, within_variability.

episodes.csv.gz: run, global_step, return, length, seconds of every episode of these runs.
provenance.csv: a row for each commit, machine and set of versions that benchmark/run.py's records name (header only without
records): commit, machine, versions, runs, restarted (how many of them were started more than once), first_start and
last_start (UTC), hours (of one worker, over all runs).
counts.csv: script, env_id, head, and how many of their runs were planned (in benchmark/run.py's plan.json in --runs, at any
depth below, or beside it if it is run.py's runs/; a run that is in no plan counts too), finished, failed, damaged (named on
stderr, with the reason), and unfinished, which is the rest.

Memory holds one run's episodes at a time, and of the others their path and three numbers.
"""

import csv
import gzip
import io
import json
import os
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, NoReturn, TextIO

import numpy as np
import tyro

from benchmark.reporting.measures import (
    COLLAPSE,
    HEADER,
    MEASURES,
    Unfinished,
    group_of,
    measure,
    read_json,
)

GROUPED = ("final", "last_tenth", "area")  # what the Markdown table shows
KEYS = ("run", "script", "env_id", "head", "seed")
COUNTS = ("planned", "finished", "failed", "damaged", "unfinished")
SILENT = {
    *KEYS,
    *MEASURES,
    *COLLAPSE,
    "runs_dir",
    "num_threads",
    "save_model",
}  # no flags, or only where and how to run
HEAD_FLAGS = ("etf_head", "head_frame", "head_trainable")  # what `head` says in one word


@dataclass
class Args:
    runs: Path  # directory that holds the runs, at any depth
    out: Path  # directory to write the tables to


def fail(flag: str, value: object, reason: object) -> NoReturn:
    """Say in one line which flag's value cannot work, and exit with code 2."""
    print(f"error: --{flag} {value}: {' '.join(str(reason).split())}", file=sys.stderr)
    sys.exit(2)


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO]:
    """A file beside `path`, that takes its place when the block ends without an error, and else goes."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, mode, newline=None if "b" in mode else "") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_plans(root: Path) -> tuple[dict[Path, tuple], Counter, list[dict]]:
    """By run.py's directory of a planned run its script, environment and head; how many of those are planned and failed; and
    the records of all that were begun. Plans lie in `root`, at any depth below, or beside it if it is run.py's runs/. All
    empty without one."""
    planned, counts, records = {}, Counter(), []
    beside = root.parent.glob("plan.json") if root.name == "runs" else ()
    for file in [*beside, *sorted(root.rglob("plan.json"))]:
        try:
            for run in read_json(file)["runs"]:
                planned[file.parent / "runs" / run["name"]] = (
                    run["script"],
                    run["env_id"],
                    run["head"],
                )
        except (OSError, ValueError, KeyError, TypeError) as error:
            fail("runs", root, f"{file} is damaged: {error}")
    for folder, group in planned.items():
        counts[group, "planned"] += 1
        try:
            record = read_json(folder / "record.json")
            counts[group, "failed"] += record["outcome"] == "failed"
        except FileNotFoundError:
            continue  # not begun
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"damaged {folder / 'record.json'}: {error}", file=sys.stderr)
        else:
            records.append(record)
    return planned, counts, records


def collate(root: Path, planned: dict[Path, tuple], episodes: TextIO, spool: TextIO) -> Counter:
    """Write the episodes of all finished runs below `root`, and to `spool` a line of JSON per run, its row and its curve; name
    the others on stderr. Returns how many runs of each (script, environment, head) have each of
    the states in COUNTS; those that are in no plan count as planned too."""
    counts = Counter()
    writer = csv.writer(episodes, lineterminator="\n")
    writer.writerow(["run", *HEADER])
    for file in sorted(root.rglob("args.json")):
        run, name = file.parent, str(file.parent.relative_to(root))
        group, state = planned.get(run.parent), "finished"
        try:
            row, points, lines = measure(run)
        except Unfinished as reason:
            state = "unfinished"
            print(f"unfinished {run}: {reason}", file=sys.stderr)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            state = "damaged"
            print(f"damaged {run}: {type(error).__name__}: {error}", file=sys.stderr)
        else:
            group = (row["script"], row["env_id"], row["head"])
            spool.write(json.dumps([{"run": name, **row}, points]) + "\n")
            writer.writerows([name, *line] for line in lines)
        group = group or group_of(run)
        counts[group, "planned"] += run.parent not in planned
        counts[group, state] += 1
    return counts


def spooled_runs(spool: TextIO) -> Iterator[tuple[dict, list[dict]]]:
    """What `collate` has written to `spool`."""
    spool.seek(0)
    return map(json.loads, spool)


def varying(rows: Iterable[dict]) -> list[str]:
    """The flags in which the rows differ, without those that `KEYS` name or that only say where and how to run."""
    first, differing = {}, set()
    for row in rows:
        for key, value in row.items():
            if key not in SILENT and str(value) != first.setdefault(key, str(value)):
                differing.add(key)
    return [key for key in first if key in differing]


def write_tables(
    spooled: Callable[[], Iterable[tuple[dict, list[dict]]]], out: Path
) -> dict[tuple, list]:
    """Write runs.csv and curves.csv from the spooled runs. Returns GROUPED of the runs by all else that tells them apart but
    the seed: under the columns' names, and then under each group's values."""
    keys = [*KEYS[:-1], *varying(row for row, _ in spooled()), KEYS[-1]]
    telling = [key for key in keys[1:-1] if key not in HEAD_FLAGS]
    groups = defaultdict(list, {tuple(telling): GROUPED})
    options = {"extrasaction": "ignore", "lineterminator": "\n"}
    with replacing(out / "runs.csv") as runs_file, replacing(out / "curves.csv") as curves_file:
        runs = csv.DictWriter(runs_file, [*keys, *MEASURES, *COLLAPSE], **options)
        curves = csv.DictWriter(curves_file, [*keys, "step", "value", *COLLAPSE], **options)
        runs.writeheader()
        curves.writeheader()
        for row, points in spooled():
            runs.writerow(row)
            curves.writerows(row | point for point in points)
            groups[tuple(str(row.get(key, "")) for key in telling)].append(
                [float(row[key]) for key in GROUPED]
            )
    return groups


def markdown(groups: dict[tuple, list]) -> str:
    """A line per group: number of seeds, and mean ± standard deviation (of a sample) over them."""
    (names, measures), *groups = groups.items()
    lines = [
        "| " + " | ".join([*names, "seeds", *measures]) + " |",
        "|---" * (len(names) + 1 + len(measures)) + "|",
    ]
    for group, members in sorted(groups):
        numbers = [f"{mean:.4g}" for mean in np.mean(members, axis=0)]
        if len(members) > 1:
            numbers = [
                f"{mean} ± {std:.2g}" for mean, std in zip(numbers, np.std(members, axis=0, ddof=1))
            ]
        lines.append("| " + " | ".join([*group, str(len(members)), *numbers]) + " |")
    return "\n".join(lines)


def write_counts(counts: Counter, out: Path) -> None:
    """Write counts.csv."""
    with replacing(out / "counts.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["script", "env_id", "head", *COUNTS])
        for group in sorted({group for group, _ in counts}):
            planned, *others = (counts[group, state] for state in COUNTS[:-1])
            writer.writerow([*group, planned, *others, planned - sum(others)])


def write_provenance(records: list[dict], out: Path) -> None:
    """Write provenance.csv from run.py's records; of the machine its kind and number of CPUs, but not its own name."""
    groups = defaultdict(list)
    for record in records:
        versions = ", ".join(
            f"{package} {version}" for package, version in (record.get("versions") or {}).items()
        )
        machine = ", ".join((record.get("machine") or "").split(", ")[1:3])
        groups[record.get("commit") or "unknown", machine, versions].append(record)
    with replacing(out / "provenance.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            [
                "commit",
                "machine",
                "versions",
                "runs",
                "restarted",
                "first_start",
                "last_start",
                "hours",
            ]
        )
        for group, members in sorted(groups.items()):
            starts = sorted(record.get("started") or "" for record in members)
            restarted = sum(record.get("attempts", 1) > 1 for record in members)
            hours = sum(record.get("seconds", 0) for record in members) / 3600
            writer.writerow(
                [*group, len(members), restarted, starts[0], starts[-1], f"{hours:.2f}"]
            )


def main(args: Args) -> None:
    planned, counts, records = read_plans(args.runs)
    if not planned and not any(args.runs.rglob("args.json")):
        fail("runs", args.runs, "holds no run")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile("w+", dir=args.out) as spool:
            # neither name nor time in the file, so that the same runs make the same bytes
            with (
                replacing(args.out / "episodes.csv.gz", "wb") as file,
                io.TextIOWrapper(
                    gzip.GzipFile("", "wb", fileobj=file, mtime=0), newline=""
                ) as episodes,
            ):
                counts += collate(args.runs, planned, episodes, spool)
            groups = write_tables(partial(spooled_runs, spool), args.out)
        write_counts(counts, args.out)
        write_provenance(records, args.out)
    except OSError as error:
        fail("out", args.out, error)
    print(markdown(groups))


if __name__ == "__main__":
    main(tyro.cli(Args))
