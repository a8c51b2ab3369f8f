"""Finished runs -> runs.csv, curves.csv, episodes.csv.gz, counts.csv, provenance.csv, and a Markdown
table of like runs.

    python -m benchmark.collate --runs runs/quickstart --out runs/quickstart/results

A run is a directory with an args.json, at any depth; of a planned run (benchmark/files.py) it is the
one that its record.json names. A plan.json counts if it lies in --runs, at any depth below, or
beside it if --runs is benchmark/run.py's runs/. Steps are environment steps, returns undiscounted
sums of rewards. A cell is empty where a number is undefined, or not finite.

Columns of runs.csv, a row per run, and of curves.csv, 25 rows per run:
run        the run's directory, below --runs
group      arms are compared within a group: as planned, else the script
script     program that ran, by its checkpoint
env_id     environment
arm        what is compared: as planned, else the head
baseline   the arm to compare with: as planned, else "linear"
head       linear (the plain one), etf, or the frame of a control; "-trainable" if it only starts
           there; empty for a script without --etf-head
and every flag in which the runs differ (empty where the run's head ignores it; exp_name where it is
the script's name; "--NAME" if NAME is another column's), and seed.
Of runs.csv also
best       highest mean return of 100 episodes in a row; `final` with fewer
final      mean return of the last 100 episodes
last_tenth mean return of the episodes that ended in the last 10 % of the steps
area       mean of the run's curve, from the first episode's end on
greedy     mean return of the greedy episodes at the end (evaluation.csv)
threshold  return that counts as solved (benchmark/reporting/thresholds.py); empty if nobody says
stop       first step at which the mean return of the last 100 episodes is at least that; empty if
           never, or without one
normalised final on the scale of 0, the random policy, to 1, the best known return or else the
           threshold; empty without these
seconds    duration of the run, up to its last episode's end
steps_per_second
and of curves.csv, the run's curve at 25 equally spaced points:
step       steps so far
value      mean return of the last 100 episodes up to there; empty before the first episode's end
and of both the measures of action collapse as the scripts log them (docs/scripts.md), the last at or before
the step, of runs.csv the run's last: actions_seen, feature_norm, head_equinorm,
head_equiangularity, head_maximal_angle, means_equinorm, means_equiangularity, means_maximal_angle,
self_duality, within_variability.
Of a run in which no episode ended, which is named on stderr, all but `greedy` and these are empty.

episodes.csv.gz: run, global_step, return, length, seconds of every episode of these runs.
provenance.csv: a row for each commit, machine and set of versions that the records of planned runs
name (header only without records): commit, machine, versions, runs, restarted (how many of them
were started more than once), first_start and last_start (UTC), hours (of one worker, over all
runs).
counts.csv: group, script, env_id, arm, and how many of their runs were planned (a run in no plan
counts too), finished, failed, damaged, and unfinished, which is the rest. A damaged run is named on
stderr with the reason and left out, and where its files do not tell a name it is empty. A damaged
plan.json is named there too, and the runs below it are in no plan.
"""

import csv
import gzip
import io
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import IO, NamedTuple, NoReturn, TextIO

import numpy as np
import tyro

from benchmark.files import (
    Damaged,
    Planned,
    Record,
    check_agrees,
    read_plan,
    read_record,
)
from benchmark.reporting.measures import (
    COLLAPSE,
    EPISODES,
    KEYS,
    MEASURES,
    Measured,
    Unfinished,
    identify,
    measure,
    read_flags,
    text,
)

GROUPED = ("final", "last_tenth", "area")  # what the Markdown table shows
COUNTS = ("planned", "finished", "failed", "damaged", "unfinished")
HEAD_FLAGS = ("etf_head", "head_frame", "head_trainable")  # what `head` says in one word
WHERE = ("runs_dir", "num_threads", "save_model", "resume")  # flags that only say where and how
SILENT = {*KEYS, *MEASURES, *COLLAPSE, *WHERE}  # of a row, what is never a column for a flag
ARM = ("group", "script", "env_id", "arm")  # of whose runs counts.csv counts
PROVENANCE = (
    "commit",
    "machine",
    "versions",
    "runs",
    "restarted",
    "first_start",
    "last_start",
    "hours",
)
# a directory's name need not be text
TEXT = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}


@dataclass
class Args:
    runs: Path  # directory that holds the runs, at any depth
    out: Path  # directory to write the tables to


class Expected(NamedTuple):
    """A planned run, and the arm to compare it with."""

    planned: Planned
    baseline: str


class Collated(NamedTuple):
    """All runs, but for their episodes."""

    rows: list[dict]
    """of runs.csv, with all flags"""
    curves: list[np.ndarray]
    """of the same runs, as in `Measured`"""
    counts: Counter
    """of runs by (group, script, env_id, arm) and one of COUNTS, but for unfinished"""
    records: list[Record]


class Failed(Exception):
    """The run has failed, by its record."""


def say(line: str, stream: TextIO) -> None:
    """Print a line, and be content if nobody reads it, as in `... | head -1`."""
    try:
        print(line, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # for what the exit flushes


def warn(text: str) -> None:
    """Say on stderr, in one line, what is left out and why."""
    say(" ".join(text.split()), sys.stderr)


def fail(flag: str, value: object, reason: object) -> NoReturn:
    """Say in one line which flag's value cannot work, and exit with code 2."""
    say(f"error: --{flag} {value}: {' '.join(str(reason).split())}", sys.stderr)
    sys.exit(2)


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO]:
    """A file beside `path`, that takes its place when the block ends without an error, and else
    goes. Raises OSError, at once where `path` is a directory."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, mode, **({} if "b" in mode else TEXT)) as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def files_named(root: Path, name: str) -> Iterator[Path]:
    """The files of this name below `root`, but for what benchmark.run keeps of replaced runs."""
    for path in root.rglob(name):
        if "replaced" not in path.relative_to(root).parts:
            yield path


def plans(root: Path) -> Iterator[Path]:
    """The plans that count for runs below `root`."""
    yield from files_named(root, "plan.json")
    if root.name == "runs":
        yield from root.parent.glob("plan.json")


def read_plans(root: Path) -> dict[Path, Expected]:
    """The planned runs of all readable plans by their directories, which need not exist."""
    expected = {}
    for file in sorted(plans(root)):
        try:
            plan = read_plan(file)
        except (OSError, Damaged) as error:
            warn(f"damaged: {error}")
            continue
        for planned in plan.runs:
            folder = file.parent / "runs" / planned.name
            expected[folder] = Expected(planned, plan.baseline)
    return expected


def check_outcome(record: Record) -> None:
    """Raises Failed or Unfinished if the run has not come to a good end."""
    if record.outcome == "failed":
        raise Failed(record.reason or f"exit code {record.exit_code}")
    if record.outcome != "finished":
        raise Unfinished(record.outcome)


def measure_planned(folder: Path, planned: Planned, records: list[Record]) -> Measured:
    """The numbers of the run in a planned run's directory, whose record is added to `records`.
    Raises Failed, and what `measure` does."""
    path = folder / "record.json"
    record = read_record(folder)
    check_agrees(path, record, planned, ("group", "arm", "env_id", "seed", "flags"))
    records.append(record)
    check_outcome(record)
    if record.run_dir is None:
        raise Damaged(f"{path}: run_dir: null where a finished run has a directory")
    run = folder / record.run_dir
    for other in sorted(folder.glob("*/args.json")):
        if other.parent != run:
            warn(f"left out: {other.parent}: {path} names another")
    check_agrees(run / "args.json", read_flags(run), planned, ("env_id", "seed"))
    return measure(run, Path(planned.script).stem)


def measure_other(run: Path) -> Measured:
    """The numbers of a run that is in no plan. Raises Failed, and what `measure` does."""
    with suppress(FileNotFoundError):
        check_outcome(read_record(run.parent))
    return measure(run)


def attempt(path: Path, read: Callable[[], Measured]) -> tuple[str, Measured | None]:
    """The state of the run, one of COUNTS, and its numbers if it is finished; if not, says why."""
    try:
        return "finished", read()
    except Failed as reason:
        warn(f"failed: {path}: {reason}")
        return "failed", None
    except Unfinished as reason:
        warn(f"unfinished: {path}: {reason}")
        return "unfinished", None
    except (OSError, Damaged) as reason:  # which name the file
        warn(f"damaged: {reason}")
        return "damaged", None


def planned_keys(expected: Expected) -> dict[str, str]:
    """What tells the arms of planned runs apart."""
    planned, baseline = expected
    script = Path(planned.script).stem
    keys = {"group": planned.group, "script": script, "env_id": planned.env_id}
    return keys | {"arm": planned.arm, "baseline": baseline}


def other_keys(run: Path, measured: Measured | None) -> dict[str, str]:
    """What tells the arms of runs in no plan apart."""
    if measured is None:
        script, env_id, head = identify(run)
    else:
        script, env_id, head = (measured.row[name] for name in ("script", "env_id", "head"))
    keys = {"group": script, "script": script, "env_id": env_id}
    return keys | {"arm": head, "baseline": "linear"}


def collate(root: Path, episodes: TextIO) -> Collated:
    """Read all runs below `root`, write the episodes of those that are finished, and name the
    others on stderr."""
    collated = Collated([], [], Counter(), [])
    episodes.write(",".join(["run", *EPISODES]) + "\n")
    expected = read_plans(root)
    runs = (file.parent for file in files_named(root, "args.json"))
    others = [run for run in runs if run.parent not in expected]
    for path in sorted({*expected, *others}):
        if path in expected:
            keys = planned_keys(expected[path])
            read = partial(measure_planned, path, expected[path].planned, collated.records)
            state, measured = "unfinished", None
            if (path / "record.json").exists():
                state, measured = attempt(path, read)
        else:
            state, measured = attempt(path, partial(measure_other, path))
            keys = other_keys(path, measured)
        arm = tuple(keys[name] for name in ARM)
        collated.counts[arm, "planned"] += 1
        collated.counts[arm, state] += 1
        if measured is None:
            continue
        if not measured.lines:
            warn(f"no episode ended: {path}: has no measures")
        name = str(measured.row["run"].relative_to(root))
        collated.rows.append(keys | measured.row | {"run": name})
        collated.curves.append(measured.curve)
        cell = csv_cell(name)
        episodes.write("".join(f"{cell},{line}\n" for line in measured.lines))
    return collated


def csv_cell(text: str) -> str:
    """The text as a cell of a CSV file, quoted if need be."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow([text])
    return buffer.getvalue().removesuffix("\n")


def varying(rows: Iterable[dict]) -> list[str]:
    """The flags in which the rows differ, in their order."""
    first = {}
    differing = set()
    for row in rows:
        for name, value in row.items():
            if name not in SILENT and str(value) != first.setdefault(name, str(value)):
                differing.add(name)
    return [name for name in first if name in differing]


def write_runs(found: Collated, keys: list[str], file: IO) -> None:
    """Write runs.csv."""
    columns = [*keys, *MEASURES, *COLLAPSE]
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(found.rows)


def write_curves(found: Collated, keys: list[str], file: IO) -> None:
    """Write curves.csv."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*keys, "step", "value", *COLLAPSE])
    for row, curve in zip(found.rows, found.curves):
        cells = [row.get(key, "") for key in keys]
        for step, *values in curve:
            writer.writerow([*cells, f"{step:.0f}", *map(text, values)])


def write_counts(counts: Counter, file: IO) -> None:
    """Write counts.csv."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*ARM, *COUNTS])
    for arm in sorted({arm for arm, _ in counts}):
        writer.writerow([*arm, *(counts[arm, state] for state in COUNTS)])


def surroundings(record: Record) -> tuple[str, str, str]:
    """Commit, kind of machine and versions. Of the machine neither its name nor its system."""
    machine = ", ".join(record.machine.split(", ")[1:3])
    versions = (f"{package} {version}" for package, version in record.versions.items())
    return record.commit or "unknown", machine, ", ".join(versions)


def write_provenance(records: list[Record], file: IO) -> None:
    """Write provenance.csv."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(PROVENANCE)
    for place, members in groupby(sorted(records, key=surroundings), surroundings):
        members = list(members)
        starts = sorted(record.started or "" for record in members)
        restarted = sum(record.attempts > 1 for record in members)
        hours = sum(record.seconds for record in members) / 3600
        numbers = [len(members), restarted, starts[0], starts[-1], f"{hours:.2f}"]
        writer.writerow([*place, *numbers])


def mean_and_spread(cells: Iterable[str]) -> str:
    """Mean ± standard deviation (of a sample) of the cells that are not empty."""
    numbers = [float(cell) for cell in cells if cell]
    if not numbers:
        return "–"
    if len(numbers) == 1:
        return f"{numbers[0]:.4g}"
    return f"{np.mean(numbers):.4g} ± {np.std(numbers, ddof=1):.2g}"


def markdown(rows: list[dict]) -> str:
    """A line per arm, environment and values of the flags in which an arm's runs differ: its number
    of seeds and its GROUPED. Runs without an episode are left out."""
    rows = [row for row in rows if row["final"]]
    keys = ["group", "env_id", "arm"]
    flags = {}  # as a set that keeps their order
    for members in grouped(rows, keys).values():
        flags |= dict.fromkeys(varying(members))
    keys += flags
    lines = [[*keys, "seeds", *GROUPED]]
    lines.append(["---"] * len(lines[0]))
    for values, members in sorted(grouped(rows, keys).items()):
        numbers = [mean_and_spread(row[name] for row in members) for name in GROUPED]
        lines.append([*values, str(len(members)), *numbers])
    for line in lines:
        line[:] = [cell.replace("|", r"\|") for cell in line]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def grouped(rows: list[dict], keys: list[str]) -> dict[tuple[str, ...], list[dict]]:
    """The rows by their values of the keys, "" for missing ones."""
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(str(row.get(key, "")) for key in keys)].append(row)
    return groups


def main(args: Args) -> None:
    if not any(chain(plans(args.runs), files_named(args.runs, "args.json"))):
        fail("runs", args.runs, "holds no run")
    out = args.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        with (
            replacing(out / "episodes.csv.gz", "wb") as archive,
            replacing(out / "runs.csv") as runs,
            replacing(out / "curves.csv") as curves,
            replacing(out / "counts.csv") as counts,
            replacing(out / "provenance.csv") as provenance,
        ):
            # neither name nor time in the file, so that the same runs make the same bytes
            with (
                gzip.GzipFile("", "wb", 6, archive, mtime=0) as zipped,
                io.TextIOWrapper(zipped, **TEXT) as episodes,
            ):
                found = collate(args.runs, episodes)
            if not found.counts:
                fail("runs", args.runs, "holds no run that can be read")
            keys = [*KEYS[:-1], *varying(found.rows), KEYS[-1]]
            write_runs(found, keys, runs)
            write_curves(found, keys, curves)
            write_counts(found.counts, counts)
            write_provenance(found.records, provenance)
    except OSError as error:
        fail("out", out, error)
    say(markdown(found.rows), sys.stdout)


if __name__ == "__main__":
    try:
        main(tyro.cli(Args))
    except KeyboardInterrupt:
        sys.exit(130)
