"""Run scripts over environments, arms and seeds, then collate and report. Without arguments, the
quick start:

    python -m benchmark.run

trains PPO with both heads on CartPole-v1, three seeds each, and writes runs/quickstart/results/.
Heads are compared by

    python -m benchmark.run --scripts ppo_acpg a2c_acpg --env-ids CartPole-v1 LunarLander-v3 \\
        --heads linear linear:2 etf --num-seeds 10 --total-timesteps 500000 --out runs/heads \\
        --flags "all --gamma 0.98" "ppo_acpg@LunarLander-v3 --gamma 0.999 --num-envs 16"

and anything else by

    python -m benchmark.run --arms "ppo=ppo_acpg.py" "mine=my_ppo.py --bonus 0.1" --out runs/mine

An entry of --flags begins with whom it is for, "all", a script or an arm, and "@" an environment if
it is for this one alone. What is more specific prevails. A script of yours needs a class Args, as
those here, with --env-id, --seed, --total-timesteps, --runs-dir and --resume.

The same command again skips what is finished and continues what was cut off from its checkpoint,
whatever ended it. More seeds, arms, environments and scripts may join a folder, but an arm's script
and flags on an environment stay what they were: after an edit of a script, --rerun executes its
runs anew and keeps the former ones aside. Exit codes: 0 all runs finished; 1 some failed; 2 nothing
started, or --out could not be written; 130 after Ctrl-C.

OUT/plan.json            every run that any command has asked of this folder (benchmark/files.py)
OUT/runs/NAME/           NAME is <environment>__<script, or arms>__<arm>__<seed>, %-encoded
    record.json          how the run went so far (benchmark/files.py)
    log.txt              the command and output of every attempt
    <run>/               what the script itself leaves behind
    lock                 held by whoever executes the run, and by its script
OUT/slurm/               jobs.json (run: Slurm job), submitit's own files
OUT/results/             what benchmark.collate and benchmark.report make of OUT/runs
OUT/replaced/            runs of scripts as they were before an edit

A run is finished if its script ended with exit code 0 and a checkpoint at the full step count; else
it failed. It is retried once if the script crashed. Nothing here is ever deleted.

With --cluster slurm every run is a task of a job array, for any node that shares the working
directory and honours flock in it. At its time limit, or preempted, it goes back to the queue and
later on from its checkpoint. This program only waits for the jobs: if it is stopped they go on, and
the same command waits for them again.
"""

import os
import shlex
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.text import Text

from benchmark.files import Damaged, Planned
from benchmark.runner import execute, plan, progress
from benchmark.runner.execute import Job, programs_of
from benchmark.runner.jobs import jobs_of
from benchmark.runner.plan import Refused


@dataclass
class Args:
    scripts: tuple[str, ...] | None = None
    """scripts by name or path (None: ppo_acpg)"""
    env_ids: tuple[str, ...] = ("CartPole-v1",)
    """what the scripts take as --env-id"""
    heads: tuple[str, ...] | None = None
    """arms by their head: linear, {etf,random,orthogonal}, these with -trainable; `linear:2` and
    `etf:4` begin with rows of that norm (None: linear etf)"""
    arms: tuple[str, ...] | None = None
    """arms of any kind, instead of --scripts and --heads: "NAME=SCRIPT FLAGS" """
    baseline: str | None = None
    """the arm that the others are compared with (None: the first)"""
    flags: tuple[str, ...] = ()
    """further flags: "all --gamma 0.98" "ppo_acpg --num-envs 8" "etf@CartPole-v1 --etf-scale 4" """
    num_seeds: int = 3
    """seeds of each combination"""
    start_seed: int = 1
    """the first of them"""
    total_timesteps: int | None = 100_000
    """environment steps of each run, unless --flags say otherwise (None: the script's default)"""
    out: Path = Path("runs/quickstart")
    """directory of the runs and their results"""
    rerun: bool = False
    """execute the runs of scripts that were edited anew"""
    dry_run: bool = False
    """only print the commands, as lines for a shell"""
    run_timeout: float | None = None
    """minutes after which an attempt at a run is stopped and has failed (None: no limit)"""
    workers: int = 2
    """processes at a time"""
    seeds_per_process: int = 1
    """seeds of an arm that train in one process, by scripts that have a variant for it in
    benchmark/seeds (for vectors, not for images)"""
    devices: tuple[str, ...] = ()
    """CUDA devices to spread local runs over, each run on one of them"""
    cluster: Literal["local", "slurm"] = "local"
    """where to run"""
    partition: str | None = None
    """Slurm: partition (None, here and below: Slurm's default)"""
    time: int = 240
    """Slurm: minutes that a job may take before it is requeued to go on from its checkpoint"""
    memory: int | None = None
    """Slurm: GB per run"""
    cpus: int = 1
    """Slurm: CPUs per run"""
    gpus: int = 0
    """Slurm: GPUs per run"""


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Nobody else's runner works in `out` meanwhile. Raises Refused if one does, or OSError."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "lock", "w") as lock_file:
        if not execute.lock(lock_file):
            raise Refused(f"--out {out}: another benchmark.run is at work there")
        yield


def edited(out: Path, runs: list[Planned], console: Console) -> dict[Planned, str]:
    """The runs that were started by programs as they are no longer, and the names of these. Names
    damaged records."""
    hash_of = cache(execute.hash_of)
    stale = {}
    for run in runs:
        try:
            record = execute.read_record(out, run)
        except Damaged as error:
            console.print(Text(f"damaged, so not finished: {error}"), soft_wrap=True)
            continue
        if record is None:
            continue
        programs = frozenset({record.script, record.command[1]})
        if record.script_hash != hash_of(programs):
            stale[run] = " or ".join(sorted(programs))
    return stale


def refuse_edited(out: Path, stale: dict[Planned, str]) -> None:
    """Raises Refused with a line for each program that was edited, if there is any."""
    advice = "--rerun executes them anew, or take another --out"
    lines = [
        f"--out {out}: {programs} was edited since {count} of these runs were started; {advice}"
        for programs, count in Counter(stale.values()).items()
    ]
    if lines:
        raise Refused(*lines)


def work(execution: execute.Execution, jobs: list[Job], args: Args) -> Iterator[progress.State]:
    """Execute the jobs, --workers at a time, each on a device that the fewest others use. Yields
    the running and the ended runs."""
    devices = args.devices or (None,)
    waiting = deque(jobs)
    free = deque(devices[n % len(devices)] for n in range(min(args.workers, len(jobs))))
    running = {}  # job -> the steps of its execution, and its device
    ended = []
    try:
        while waiting or running:
            for job, (steps, device) in list(running.items()):
                if next(steps, "ended") == "ended":
                    del running[job]
                    free.append(device)
                    ended += job
            while waiting and free:
                job = waiting.popleft()
                device = free.popleft()
                running[job] = (execution.run(job, device), device)
            yield [run for job in running for run in job], ended
            time.sleep(0.05)
    finally:
        for steps, _ in running.values():
            steps.close()


def begin(
    execution: execute.Execution, runs: list[Planned], jobs: list[Job], args: Args
) -> Iterator[progress.State]:
    """Write the plan of these runs and begin with the jobs. Yields as `work` does."""
    out = args.out
    path = out / "plan.json"
    if args.cluster == "local":
        execute.write_model(path, plan.joined(out, runs, args.baseline))
        return work(execution, jobs, args)
    slurm = import_module("benchmark.runner.slurm")
    execution.ignored = slurm.SLURM_SIGNALS
    accepted, refusal = slurm.submit(execution, jobs, args)
    left = list(chain.from_iterable(jobs))
    without_job = set(left) - set(chain.from_iterable(accepted))
    taken = [run for run in runs if run not in without_job]
    if taken:
        execute.write_model(path, plan.joined(out, taken, args.baseline))
    if refusal:
        raise Refused(f"{refusal} ({len(without_job)} of {len(left)} runs have no job)")
    return slurm.wait(out, left)


def report(out: Path) -> None:
    """Collate the runs and report on them, into OUT/results."""
    collate = import_module("benchmark.collate")
    report = import_module("benchmark.report")
    collate.main(collate.Args(runs=out / "runs", out=out / "results"))
    report.main(report.Args(results=out / "results"))


def run_all(args: Args, console: Console) -> list[Planned]:
    """Bring all runs to their end. Returns those that failed. Raises Refused or OSError."""
    out = args.out
    runs = plan.asked_for(args)
    plan.joined(out, runs, args.baseline)  # before anything is written
    steps_of_task = plan.ask_scripts(runs)
    with nullcontext() if args.dry_run else claimed(out):
        plan.joined(out, runs, args.baseline)
        stale = edited(out, runs, console)
        if not args.rerun:
            refuse_edited(out, stale)
        again = set(stale)
        left = [run for run in runs if run in again or not execute.is_finished(out, run)]
        jobs = jobs_of(out, left, again, args.seeds_per_process)
        left = list(chain.from_iterable(jobs))  # those that go on together with one of them too
        steps = {run: steps_of_task[plan.task_of(run)] for run in chain(runs, left)}
        at_a_time = args.workers
        if args.cluster == "local":
            at_a_time = min(at_a_time, progress.cores())
        runs_of_job = len(left) / max(1, len(jobs))
        forecast = progress.Forecast(out, steps, at_a_time * runs_of_job, runs_of_job)
        waiting = set(left)
        forecast.note(run for run in runs if run not in waiting)
        console.print(Text(progress.summary(out, runs, left, forecast)), soft_wrap=True)
        if args.dry_run:
            for job in jobs:
                anew = any(run in again for run in job)
                command = execute.command if anew else execute.next_command
                print(shlex.join(command(out, job)))
            return []
        if args.cluster == "slurm":
            import_module("benchmark.runner.slurm").refuse_queued(out, list(stale))
        for run in stale:
            if not execute.set_aside(out, run):
                raise Refused(f"--rerun: {run.name} is still being executed; stop that first")
        hashes = {programs: execute.hash_of(programs) for programs in map(programs_of, jobs)}
        execution = execute.Execution(out, hashes, args.run_timeout)
        with closing(begin(execution, runs, jobs, args)) as states:
            failed = progress.follow(left, states, forecast, console)
    if failed:
        names = [run.name for run in failed]
        if len(names) > 10:
            names[10:] = ["..."]
        text = f"{len(failed)} of {len(runs)} runs failed: {' '.join(names)}"
        console.print(Text(text), soft_wrap=True)
    if len(failed) < len(runs):
        report(out)
    return failed


def fail(*lines: str) -> None:
    """Print what is wrong, a line per problem, and exit with code 2."""
    for line in lines:
        print("error: " + " ".join(line.split()), file=sys.stderr)
    sys.exit(2)


def main(args: Args) -> None:
    console = Console(stderr=True)
    try:
        failed = run_all(args, console)
        print(end="", flush=True)
    except Refused as refusal:
        fail(*refusal.args)
    except BrokenPipeError:  # as in `... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        fail(f"--out {args.out}: {error}")
    except KeyboardInterrupt:
        jobs = ""
        if args.cluster == "slurm":
            jobs = "; Slurm's jobs go on, and scancel stops those in slurm/jobs.json there"
        console.print(
            Text(f"stopped; the same command goes on in {args.out}{jobs}"), soft_wrap=True
        )
        sys.exit(130)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main(tyro.cli(Args))
