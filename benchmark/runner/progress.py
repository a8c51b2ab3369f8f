"""How the runs of benchmark.run get on, and how long they may take, on a terminal or in a log."""

import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column
from rich.text import Text

from benchmark.files import Damaged, Planned
from benchmark.runner.execute import folder_of, is_finished, log_tail, read_record

# Steps a second of a run on one core: of an MLP, and of a CNN by words in the names of scripts and
# environments with images. Rules of thumb, for as long as no run of that kind is finished.
MLP_SPEED = 8000
IMAGE_SPEEDS = {"MinAtar/": 2500, "CarRacing": 300, "Atari/": 150, "ppo_atari": 150}
SPEED_UP = 5  # of a process with many seeds, against one
STARTING = 4  # seconds that a run takes before its first step and for its greedy episodes
LONGEST = 8  # runs that a line without a terminal names
PERIOD = 60.0  # seconds between two lines where there is no terminal

State = tuple[list[Planned], list[Planned]]  # the running runs, and those that have ended


def kind_of(run: Planned) -> str:
    """Runs of a kind take a like time for a step."""
    return f"{run.script} {run.env_id}"


def estimate(
    finished: list[tuple[str, int, float]],
    left: list[tuple[str, float]],
    at_a_time: float,
    runs_of_job: float = 1,
) -> float:
    """The seconds that the runs that are `left` take, given as (kind, steps), that many
    `at_a_time` and `runs_of_job` in a process; by the `finished` ones of the same kind, given as
    (kind, steps, seconds)."""
    slower = max(1, runs_of_job / SPEED_UP)
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
        each.append(STARTING + slower * steps / min(speeds, default=MLP_SPEED))
    return max(sum(each) / at_a_time, max(each))


class Status(NamedTuple):
    """What a run's log says last."""

    step: int = 0
    steps: int = 1
    value: str = "starting"
    speed: int = 0  # steps a second, 0 if it does not say

    @property
    def left(self) -> float | None:
        """Seconds."""
        return (self.steps - self.step) / self.speed if self.speed else None


def status(out: Path, run: Planned) -> Status:
    """The last line of progress in the run's log."""
    pattern = rf"^(?:seed {run.seed}: )?step (\d+)/(\d+): (return \S+) .*, (\d+) steps/s$"
    lines = re.findall(pattern, log_tail(out, run), re.MULTILINE)
    if not lines:
        return Status()
    step, steps, value, speed = lines[-1]
    total = max(1, int(steps))
    return Status(min(int(step), total), total, value, int(speed))


class Forecast:
    """The time that runs take, by rules of thumb, finished runs, and those that are running."""

    def __init__(
        self, out: Path, steps: dict[Planned, int], at_a_time: float, runs_of_job: float = 1
    ):
        """`steps` of all runs of the command."""
        self.out = out
        self.steps = steps
        self.at_a_time = at_a_time
        self.runs_of_job = runs_of_job
        self.finished = []  # (kind, steps, seconds)

    def note(self, runs: Iterable[Planned]) -> None:
        """Go by these runs, which are finished, too."""
        for run in runs:
            record = read_record(self.out, run)
            seconds = record.seconds * max(1, len(record.beside))  # its share of those of all
            self.finished.append((kind_of(run), self.steps[run], seconds))

    def seconds(self, waiting: Iterable[Planned], running: dict[Planned, Status]) -> float:
        """The seconds until all of these have ended."""
        left = [(kind_of(run), self.steps[run]) for run in waiting]
        samples = list(self.finished)
        for run, now in running.items():
            left.append((kind_of(run), self.steps[run] * (1 - now.step / now.steps)))
            if now.speed and now.step:
                samples.append((kind_of(run), now.step, now.step / now.speed))
        if not left:
            return 0.0
        return estimate(samples, left, self.at_a_time, self.runs_of_job)


def summary(out: Path, runs: list[Planned], left: list[Planned], forecast: Forecast) -> str:
    """The plan in words, with a guess of the time that the runs `left` take."""
    done = len(runs) - len(left)
    text = f"{len(runs)} runs in {out}, {done} of them finished, {forecast.at_a_time:.0f} at a time"
    if not left:
        return text
    known = {kind_of(run) for run in left} <= {kind for kind, _, _ in forecast.finished}
    basis = "going by the finished ones" if known else "by a rule of thumb"
    return f"{text}; the others take about {in_words(forecast.seconds(left, {}))} ({basis})"


def in_words(seconds: float) -> str:
    """A duration: 45 s, 1.5 min, 7.0 h, 12 days."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} days"


def failure(out: Path, run: Planned) -> str:
    """How a run failed, and the end of its log."""
    try:
        record = read_record(out, run)
        how = "it was never started"
        if record is not None:
            how = record.reason or "it was cut off"
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
            text("description", max_width=24),
            text("fields[seed]"),
            BarColumn(bar_width=10),
            text("fields[status]", max_width=20),
            text("fields[left]"),
            text("fields[where]", ratio=1),
            console=console,
            auto_refresh=False,
            disable=not console.is_terminal,
            expand=True,
        )
        self.rows = {}
        self.all_runs = self.add_task(
            "all runs", total=total, seed="", status="", left="", where=""
        )

    def show(self, news: dict[Planned, Status], ended: int, counts: str, seconds: float) -> None:
        """Bring the lines up to date."""
        for run in [run for run in self.rows if run not in news]:
            self.remove_task(self.rows.pop(run))
        completed = ended
        for run, now in news.items():
            if run not in self.rows:
                fields = {"seed": f"seed {run.seed}", "where": where(run)}
                self.rows[run] = self.add_task(run.arm, total=1, status="", left="", **fields)
            part = now.step / now.steps
            left = "" if now.left is None else in_words(now.left)
            self.update(self.rows[run], completed=part, status=now.value, left=left)
            completed += part
        left = in_words(seconds)
        self.update(self.all_runs, completed=completed, status=counts, left=left)
        self.refresh()


def follow(
    runs: list[Planned], states: Iterator[State], forecast: Forecast, console: Console
) -> list[Planned]:
    """Show how the runs get on, as a display that is updated, or line by line where there is no
    terminal. Returns those that did not finish."""
    out = forecast.out
    period = 0.5 if console.is_terminal else PERIOD
    seen = 0
    failed = []
    next_look = 0.0
    waiting = dict.fromkeys(runs)
    with Display(console, len(runs)) as display:
        for running, ended in states:
            if len(ended) == seen and time.monotonic() < next_look:
                continue
            for run in ended[seen:]:
                if is_finished(out, run):
                    forecast.note([run])
                else:
                    failed.append(run)
                    console.print(Text(failure(out, run)), soft_wrap=True)
            for run in [*running, *ended[seen:]]:
                waiting.pop(run, None)
            seen = len(ended)
            next_look = time.monotonic() + period
            news = {run: status(out, run) for run in running}
            seconds = forecast.seconds(waiting, news)
            done = seen - len(failed)
            if console.is_terminal:
                bad = f", {len(failed)} failed" if failed else ""
                display.show(news, seen, f"{done} of {len(runs)}{bad}", seconds)
                continue
            counts = f"{done} of {len(runs)} done, {len(running)} running, {len(failed)} failed"
            lines = [f"{run.name}: {now.value}" for run, now in news.items()]
            if len(lines) > LONGEST:
                lines[LONGEST:] = ["..."]
            text = "; ".join([f"{counts}, {in_words(seconds)} left", *lines])
            console.print(Text(text), soft_wrap=True)
    return failed


def cores() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0))
