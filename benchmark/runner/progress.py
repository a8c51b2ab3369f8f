"""How the runs of benchmark.run get on, and how long they may take, on a terminal or in a log."""

import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from benchmark.files import Damaged, Planned
from benchmark.runner.execute import folder_of, is_finished, log_tail, read_record

# Steps a second of a run on one core: of an MLP, and of a CNN by words in the names of scripts and
# environments with images. Rules of thumb, for as long as no run of that kind is finished.
MLP_SPEED = 5000
IMAGE_SPEEDS = {"MinAtar/": 2500, "CarRacing": 300, "Atari/": 150, "ppo_atari": 150}
STARTING = 4  # seconds that a run takes before its first step and for its greedy episodes
PERIOD = 60.0  # seconds between two lines where there is no terminal

State = tuple[list[Planned], list[Planned]]  # the running runs, and those that have ended


def kind_of(run: Planned) -> str:
    """Runs of a kind take a like time for a step."""
    return f"{run.script} {run.env_id}"


def estimate(
    finished: list[tuple[str, int, float]], left: list[tuple[str, int]], at_a_time: int
) -> float:
    """The seconds that the runs that are `left` take, given as (kind, steps), that many
    `at_a_time`; by the `finished` ones of the same kind, given as (kind, steps, seconds)."""
    steps_of = defaultdict(int)
    seconds_of = defaultdict(float)
    for kind, steps, seconds in finished:
        steps_of[kind] += steps
        seconds_of[kind] += seconds
    each = []
    for kind, steps in left:
        if seconds_of[kind] > 0:
            each.append(steps * seconds_of[kind] / steps_of[kind])
            continue
        speeds = [speed for word, speed in IMAGE_SPEEDS.items() if word in kind]
        each.append(STARTING + steps / min(speeds, default=MLP_SPEED))
    return max(sum(each) / at_a_time, max(each))


def summary(
    out: Path, runs: list[Planned], left: list[Planned], steps: dict[Planned, int], at_a_time: int
) -> str:
    """The plan in words, with a guess of the time that the runs `left` take."""
    done = len(runs) - len(left)
    text = f"{len(runs)} runs in {out}, {done} of them finished, {at_a_time} at a time"
    if not left:
        return text
    waiting = {run.name for run in left}
    ended = [run for run in runs if run.name not in waiting]
    finished = [(kind_of(run), steps[run], read_record(out, run).seconds) for run in ended]
    seconds = estimate(finished, [(kind_of(run), steps[run]) for run in left], at_a_time)
    known = {kind_of(run) for run in left} <= {kind_of(run) for run in ended}
    basis = "going by the finished ones" if known else "by a rule of thumb"
    return f"{text}; the others take about {in_words(seconds)} ({basis})"


def in_words(seconds: float) -> str:
    """A duration: 1.5 min, 7.0 h, 12 days."""
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} days"


def status(out: Path, run: Planned) -> tuple[float, str]:
    """What the run's log says last: the part of its steps that is done, and its return."""
    lines = re.findall(r"^step (\d+)/(\d+): return (\S+)", log_tail(out, run), re.MULTILINE)
    if not lines:
        return 0.0, "starting"
    step, steps, value = lines[-1]
    return min(int(step) / int(steps), 1.0), f"return {value}"


def failure(out: Path, run: Planned) -> str:
    """How a run failed, and the end of its log."""
    try:
        record = read_record(out, run)
        how = record.reason if record and record.outcome == "failed" else "it was cut off"
    except Damaged as error:
        how = str(error)
    lines = log_tail(out, run).splitlines()[-10:]
    log = folder_of(out, run) / "log.txt"
    return "\n    ".join([f"failed: {run.name} ({how}); the end of {log}:", *lines])


def where(run: Planned) -> str:
    """A run's group and environment, short."""
    return f"{run.group} {re.split('[:/]', run.env_id)[-1]}"


class Display(Progress):
    """A line for all runs and for each that is running: arm, seed, bar, return, time left, and, as
    far as there is room for it, group and environment."""

    def __init__(self, console: Console, total: int):
        def text(field: str, **options) -> TextColumn:
            column = Column(no_wrap=True, overflow="ellipsis", **options)
            return TextColumn(f"{{task.{field}}}", markup=False, table_column=column)

        super().__init__(
            text("description", max_width=20),
            text("fields[seed]"),
            BarColumn(bar_width=12),
            text("fields[status]", max_width=24),
            TimeRemainingColumn(compact=True),
            text("fields[where]", ratio=1),
            console=console,
            auto_refresh=False,
            speed_estimate_period=3600,
            disable=not console.is_terminal,
            expand=True,
        )
        self.rows = {}
        self.all_runs = self.add_task("all runs", total=total, seed="", status="", where="")

    def show(self, news: dict[Planned, tuple[float, str]], completed: float, counts: str) -> None:
        """Bring the lines up to date."""
        for run in [run for run in self.rows if run not in news]:
            self.remove_task(self.rows.pop(run))
        for run, (part, text) in news.items():
            if run not in self.rows:
                fields = {"seed": f"seed {run.seed}", "status": text, "where": where(run)}
                self.rows[run] = self.add_task(run.arm, total=1, **fields)
            self.update(self.rows[run], completed=part, status=text)
        self.update(self.all_runs, completed=completed, status=counts)
        self.refresh()


def follow(
    out: Path, runs: list[Planned], states: Iterator[State], console: Console
) -> list[Planned]:
    """Show how the runs get on, as a display that is updated, or line by line where there is no
    terminal. Returns those that did not finish."""
    period = 0.5 if console.is_terminal else PERIOD
    seen = 0
    failed = []
    next_look = 0.0
    with Display(console, len(runs)) as display:
        for running, ended in states:
            if len(ended) == seen and time.monotonic() < next_look:
                continue
            for run in ended[seen:]:
                if not is_finished(out, run):
                    failed.append(run)
                    console.print(Text(failure(out, run)), soft_wrap=True)
            seen = len(ended)
            next_look = time.monotonic() + period
            news = {run: status(out, run) for run in running}
            completed = seen + sum(part for part, _ in news.values())
            done = seen - len(failed)
            if console.is_terminal:
                bad = f", {len(failed)} failed" if failed else ""
                display.show(news, completed, f"{done} of {len(runs)}{bad}")
                continue
            display.update(display.all_runs, completed=completed)
            seconds = display.tasks[0].time_remaining
            left = "" if seconds is None else f", {in_words(seconds)} left"
            counts = f"{done} of {len(runs)} done, {len(running)} running, {len(failed)} failed"
            lines = [f"{run.name}: {text}" for run, (_, text) in news.items()]
            console.print(Text("; ".join([counts + left, *lines])), soft_wrap=True)
    return failed


def cores() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0))
