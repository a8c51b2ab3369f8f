"""Run the scripts over environments x heads x seeds, then collate and report. Without arguments, the quick start:

    python -m benchmark.run

trains PPO with both heads on CartPole-v1, three seeds each, and writes runs/quickstart/results/. In full:

    python -m benchmark.run --scripts ppo_acpg a2c_acpg --env-ids CartPole-v1 benchmark.envs:MinAtar/Breakout-v1 \\
        --heads linear etf random --num-seeds 10 --total-timesteps 500000 --workers 8 --out runs/mine \\
        --flags "all --gamma 0.98" "ppo_acpg --learning-rate 1e-3 --num-envs 8"

The same command again skips what is finished and continues what was cut off from its checkpoint, whatever ended it. More
seeds, heads, environments and scripts may join a folder, but a script's flags on an environment stay what they were. Exit
codes: 0 all runs finished; 1 some failed; 2 nothing started, or --out could not be written; 130 after Ctrl-C.

OUT/plan.json            every run that any command has asked of this folder, with its flags
OUT/runs/NAME/           NAME is <environment, %-encoded>__<script>__<head>__<seed>
    record.json          command (the first one), outcome ("finished"; "failed"; "running" also if it was cut off), attempts
                         (how often it was started), exit_code, started (UTC), seconds (of all attempts seen to their end),
                         versions, commit and machine (of the last attempt)
    log.txt              the command and output of every attempt
    <run>/               what the script itself leaves behind
    lock                 held by whoever executes the run, and by its script
OUT/slurm/               jobs.json (run: Slurm job), submitit's own files
OUT/results/             what benchmark.collate and benchmark.report make of OUT/runs

With --cluster slurm every run is a task of a job array, for any node that shares the working directory and honours flock in
it. At its time limit, or preempted, it goes back to the queue and later on from its checkpoint. This program only waits for
the jobs: if it is stopped they go on, and the same command waits for them again.
"""

import json
import math
import re
import shlex
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Literal, NoReturn
from urllib.parse import quote

import gymnasium as gym
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from benchmark.runner.execute import (
    HEADS,
    Run,
    execute,
    is_finished,
    lock,
    log_tail,
    next_command,
    read_record,
    write_json,
)

OWN_FLAGS = (
    "--env-id",
    "--seed",
    "--total-timesteps",
    "--etf-head",
    "--head-frame",
    "--head-trainable",
)
OWN_FLAGS += ("--runs-dir", "--resume")
RULE_OF_THUMB = 5000  # steps/s that a run of an MLP makes on one core


@dataclass
class Args:
    scripts: tuple[str, ...] = ("ppo_acpg",)  # names of *_acpg.py in the working directory
    env_ids: tuple[str, ...] = ("CartPole-v1",)  # what the scripts take as --env-id
    heads: tuple[str, ...] = (
        "linear",
        "etf",
    )  # linear, {etf,random,orthogonal}, the same with -trainable
    num_seeds: int = 3  # seeds of each combination
    start_seed: int = 1  # the first of them
    total_timesteps: int | None = (
        100_000  # environment steps of each run; None: the script's default
    )
    flags: tuple[
        str, ...
    ] = ()  # further flags of a script, or of all: "ppo_acpg --learning-rate 1e-3" "all --gamma 0.98"
    workers: int = 2  # runs at a time
    out: Path = Path("runs/quickstart")  # directory of the runs and their results
    dry_run: bool = False  # only print the commands, as lines for a shell
    cluster: Literal["local", "slurm"] = "local"  # where to run
    partition: str | None = None  # Slurm: partition (None, here and below: Slurm's default)
    time: int = (
        240  # Slurm: minutes that a job may take before it is requeued to go on from its checkpoint
    )
    memory: int | None = None  # Slurm: GB per run
    cpus: int = 1  # Slurm: CPUs per run
    gpus: int = 0  # Slurm: GPUs per run (the scripts want --cuda in --flags too)


# The plan
def fail(*lines: str) -> NoReturn:
    """Print what is wrong, a line per problem, and exit with code 2."""
    for line in lines:
        print("error: " + " ".join(line.split()), file=sys.stderr)
    sys.exit(2)


def unknown_environment(script: str, env_id: str, flags: list[str]) -> str | None:
    """Why this script will not find the environment; None if it will. Looks it up without building it."""
    try:
        if script == "ppo_atari_acpg":
            if {"ale", "--backend=ale"} & {*flags}:
                gym.register_envs(import_module("ale_py"))
                games = [name for name in gym.registry if name.startswith("ALE/")]
            else:
                specs = import_module("envpool.registration").registry.specs
                games = [task for task, (module, *_) in specs.items() if module == "envpool.atari"]
            return None if env_id in games else "is no game of its --backend"
        module, _, name = env_id.rpartition(":")
        if module:
            import_module(module)
        gym.spec(name)
    except Exception as error:  # a user's module can raise anything
        return str(error)


def script_flags(args: Args) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """The flags passed through to each script, and what is wrong with them."""
    steps = () if args.total_timesteps is None else ("--total-timesteps", str(args.total_timesteps))
    flags, problems = dict.fromkeys(args.scripts, steps), []
    for text in args.flags:
        try:
            name, *further = shlex.split(text)
        except ValueError as error:
            problems.append(f"--flags {text}: {error}")
            continue
        if name not in ("all", *args.scripts):
            problems.append(
                f"--flags {text}: must begin with all or with one of --scripts {' '.join(args.scripts)}"
            )
        names = [word.split("=")[0].replace("_", "-").replace("--no-", "--") for word in further]
        problems += [
            f"--flags {text}: {name} is for benchmark.run to set"
            for name in names
            if name in OWN_FLAGS
        ]
        flags |= {script: (*flags[script], *further) for script in flags if name in ("all", script)}
    return flags, problems


def planned(args: Args) -> list[Run]:
    """The runs asked for. Exits with code 2 after naming all that is wrong with the arguments."""
    known, (flags, problems) = (
        sorted(path.stem for path in Path().glob("*_acpg.py")),
        script_flags(args),
    )
    problems += [
        f"--scripts {name}: is none of {', '.join(known)} in this directory"
        for name in {*args.scripts} - {*known}
    ]
    problems += [
        f"--heads {head}: is none of {', '.join(HEADS)}" for head in {*args.heads} - {*HEADS}
    ]
    for script, env_id in product({*args.scripts} & {*known}, {*args.env_ids}):
        if reason := unknown_environment(script, env_id, flags[script]):
            problems.append(f"--env-ids {env_id}: {reason} ({script})")
    problems += [
        f"--{flag.replace('_', '-')}: names none"
        for flag in ("scripts", "env_ids", "heads")
        if not getattr(args, flag)
    ]
    for flag in (
        "num_seeds",
        "total_timesteps",
        "workers",
        "time",
        "memory",
        "cpus",
        "start_seed",
        "gpus",
    ):
        value, least = getattr(args, flag), int(flag not in ("start_seed", "gpus"))
        if value is not None and value < least:
            problems.append(f"--{flag.replace('_', '-')} {value}: must be at least {least}")
    if args.cluster == "slurm" and not shutil.which("sbatch"):
        problems.append("--cluster slurm: there is no sbatch on the PATH")
    for flag in (
        "partition",
        "out",
    ):  # submitit writes both into comments of a shell script, which end with the line
        if "\n" in str(getattr(args, flag)):
            problems.append(f"--{flag} {getattr(args, flag)}: must not have a line break")
    if problems:
        fail(*sorted(problems))
    seeds = range(args.start_seed, args.start_seed + args.num_seeds)
    return [
        Run(
            f"{quote(env_id, safe='')}__{script}__{head}__{seed}",
            env_id,
            script,
            head,
            seed,
            flags[script],
        )
        for env_id, script, seed, head in dict.fromkeys(
            product(args.env_ids, args.scripts, seeds, args.heads)
        )
    ]


def joined(out: Path, runs: list[Run]) -> list[Run]:
    """The runs that `out` holds already, and these. Exits with code 2 if it holds runs of the same script and environment with
    other flags."""
    try:
        plan = json.loads((out / "plan.json").read_text())["runs"]
        there = [Run(**run | {"flags": tuple(run["flags"])}) for run in plan]
    except FileNotFoundError:
        return runs
    except (ValueError, KeyError, TypeError) as error:
        fail(f"--out {out}: its plan.json is damaged ({error})")
    old, new = (
        {(run.script, run.env_id): shlex.join(run.flags) for run in group}
        for group in (there, runs)
    )
    problems = [
        f"--out {out}: holds another experiment, {' on '.join(key)} with `{old[key]}` instead of `{new[key]}`"
        for key in new
        if old.get(key, new[key]) != new[key]
    ]
    if problems:
        fail(*problems)
    return list(dict.fromkeys([*there, *runs]))


def summary(out: Path, runs: list[Run], left: list[Run], workers: int) -> str:
    """The plan in words, with a guess of the time that the runs `left` take."""
    seconds = [read_record(out, run)["seconds"] for run in runs if run not in left]
    steps = [int(run.flags[1]) for run in left if run.flags[:1] == ("--total-timesteps",)]
    text = (
        f"{len(runs)} runs in {out}, {len(runs) - len(left)} of them finished, {workers} at a time"
    )
    if not left or not (seconds or steps):
        return text
    each, basis = (
        steps[0] / RULE_OF_THUMB if steps else 0,
        f"at {RULE_OF_THUMB:,} steps/s, a rule of thumb for MLPs",
    )
    if seconds:
        each, basis = sum(seconds) / len(seconds), "going by the finished ones"
    return f"{text}; the others take about {each * math.ceil(len(left) / workers) / 60:.1f} min ({basis})"


# Many runs
def work(out: Path, runs: list[Run], workers: int) -> Iterator[tuple[list[Run], list[Run]]]:
    """Execute the runs, that many at a time. Yields the running and the ended ones."""
    waiting, running, ended = deque(runs), {}, []
    try:
        while waiting or running:
            for run, steps in [*running.items()]:
                if next(steps, "ended"):
                    del running[run]
                    ended.append(run)
            while waiting and len(running) < workers:
                run = waiting.popleft()
                running[run] = execute(out, run)
            yield [*running], ended
            time.sleep(0.05)
    finally:
        for steps in running.values():
            steps.close()


def status(out: Path, run: Run) -> tuple[float, str]:
    """What the run's log says last: the part of its steps that is done, and its return and steps/s."""
    lines = re.findall(
        r"^step (\d+)/(\d+): (return \S+).*(, \d+ steps/s)$", log_tail(out, run), re.MULTILINE
    )
    if not lines:
        return 0.0, "starting"
    step, steps, value, speed = lines[-1]
    return min(int(step) / int(steps), 1.0), value + speed


def failure(out: Path, run: Run) -> str:
    """How a run failed, and the end of its log."""
    code = read_record(out, run).get("exit_code")
    lines = log_tail(out, run).splitlines()[-10:]
    how = "it was cut off" if code is None else f"exit code {code}"
    return "\n    ".join(
        [f"failed: {run.name} ({how}); the end of {out / 'runs' / run.name / 'log.txt'}:", *lines]
    )


def follow(
    out: Path, runs: list[Run], states: Iterator[tuple[list[Run], list[Run]]], console: Console
) -> list[Run]:
    """Show how the runs get on, as a display that is updated, or line by line where there is no terminal. Returns those that
    did not finish."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[status]}", markup=False),
    )
    period, tasks, seen, failed, next_look = 0.5 if console.is_terminal else 60, {}, 0, [], 0.0
    display = Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        auto_refresh=False,
        speed_estimate_period=3600,
        disable=not console.is_terminal,
    )
    with display as progress:
        total = progress.add_task("all runs", total=len(runs), status="")
        for running, ended in states:
            if len(ended) == seen and time.monotonic() < next_look:
                continue
            for run in ended[seen:]:
                if not is_finished(out, run):
                    failed.append(run)
                    console.print(Text(failure(out, run)))
            seen, next_look = len(ended), time.monotonic() + period
            news = {run: status(out, run) for run in running}
            for run in tasks | news:
                if run not in news:
                    progress.remove_task(tasks.pop(run))
                    continue
                if run not in tasks:
                    tasks[run] = progress.add_task(run.name, total=1, status="")
                progress.update(tasks[run], completed=news[run][0], status=news[run][1])
            counts = f"{seen - len(failed)} of {len(runs)} done, {len(running)} running, {len(failed)} failed"
            progress.update(
                total, completed=seen + sum(part for part, _ in news.values()), status=counts
            )
            progress.refresh()
            if not console.is_terminal:
                seconds = progress.tasks[0].time_remaining
                left = "" if seconds is None else f", {seconds / 60:.1f} min left"
                console.print(
                    Text(
                        "; ".join(
                            [
                                counts + left,
                                *(f"{run.name}: {text}" for run, (_, text) in news.items()),
                            ]
                        )
                    )
                )
    return failed


def report(out: Path) -> None:
    """Collate the runs and report on them, into OUT/results."""
    collate, report = (import_module(f"benchmark.{name}") for name in ("collate", "report"))
    collate.main(collate.Args(runs=out / "runs", out=out / "results"))
    report.main(report.Args(results=out / "results"))


def bring_to_an_end(args: Args, runs: list[Run], left: list[Run], console: Console) -> list[Run]:
    """Run those that are `left`. Returns the failed ones. Exits with code 2 if another runner is at work in --out."""
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "lock", "w") as lock_file:
        if not lock(lock_file):
            fail(f"--out {args.out}: another benchmark.run is at work there")
        write_json(
            args.out / "plan.json", {"runs": [run._asdict() for run in joined(args.out, runs)]}
        )
        slurm = args.cluster == "slurm"
        states = (
            import_module("benchmark.runner.slurm").work(args.out, left, args)
            if slurm
            else work(args.out, left, args.workers)
        )
        with closing(states):
            return follow(args.out, left, states, console)


def main(args: Args) -> None:
    runs, console = planned(args), Console(stderr=True, soft_wrap=True)
    try:
        joined(args.out, runs)
        left = [run for run in runs if not is_finished(args.out, run)]
        console.print(Text(summary(args.out, runs, left, args.workers)))
        if args.dry_run:
            print(*(shlex.join(next_command(args.out, run)) for run in left), sep="\n")
            return
        failed = bring_to_an_end(args, runs, left, console)
        if failed:
            console.print(
                Text(
                    f"{len(failed)} of {len(runs)} runs failed: {' '.join(run.name for run in failed)}"
                )
            )
        report(args.out)
    except OSError as error:
        fail(f"--out {args.out}: {error}")
    except KeyboardInterrupt:
        jobs = (
            "; Slurm's jobs go on, and scancel stops those in slurm/jobs.json there"
            if args.cluster == "slurm"
            else ""
        )
        console.print(Text(f"stopped; the same command goes on in {args.out}{jobs}"))
        sys.exit(130)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main(tyro.cli(Args))
