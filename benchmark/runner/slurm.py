"""What `python -m benchmark.run --cluster slurm` does other than locally: the runs become jobs of Slurm, through submitit.

A job executes its run as a local worker would, under the run's lock, and leaves at once if it finds it finished. So a job that
was submitted twice does no harm.
"""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import submitit

from benchmark.run import Args, fail
from benchmark.runner.execute import Run, execute, write_json

POLL = 5.0  # seconds between looks at the queue
SLURM_SIGNALS = (
    signal.SIGTERM,
    signal.SIGUSR2,
)  # sent to every process of a job; what follows is for submitit to decide


class Job(submitit.helpers.Checkpointable):
    """A run as a job. Being checkpointable, it is requeued by submitit when it is preempted or its time is up."""

    def __call__(self, out: Path, run: tuple) -> None:
        with closing(execute(out, Run(*run), SLURM_SIGNALS)) as steps:
            for _ in steps:
                time.sleep(0.2)


def submit(out: Path, runs: list[Run], args: Args) -> dict[str, str]:
    """Submit the runs as one job array. Returns the job of each run by its name."""
    executor = submitit.AutoExecutor(
        out / "slurm", cluster="slurm", slurm_max_num_timeout=1000
    )  # each gets further
    resources = {
        "slurm_partition": args.partition,
        "mem_gb": args.memory,
        "gpus_per_node": args.gpus or None,
    }
    executor.update_parameters(
        name="acpg",
        timeout_min=args.time,
        cpus_per_task=args.cpus,
        slurm_array_parallelism=args.workers,
        slurm_additional_parameters={"requeue": True},
        **{name: value for name, value in resources.items() if value is not None},
    )
    try:
        jobs = executor.map_array(Job(), [out] * len(runs), [tuple(run) for run in runs])
    except submitit.core.utils.FailedJobError as error:
        fail(f"--cluster slurm: {error}")
    return {run.name: job.job_id for run, job in zip(runs, jobs)}


def queue() -> dict[str, str] | None:
    """The user's jobs that wait or run: state by id. None if Slurm does not answer."""
    done = subprocess.run(
        ["squeue", "--me", "--noheader", "--array", "--format=%i %T"],
        capture_output=True,
        text=True,
    )
    return None if done.returncode else dict(line.split() for line in done.stdout.splitlines())


def work(out: Path, runs: list[Run], args: Args) -> Iterator[tuple[list[Run], list[Run]]]:
    """Submit the runs that have no job yet, and wait for all. Yields the running and the ended ones."""
    file, states, running, ended = out / "slurm" / "jobs.json", queue(), [], []
    if states is None:
        fail("--cluster slurm: squeue gets no answer")
    try:
        jobs = json.loads(file.read_text()) if file.exists() else {}
    except ValueError as error:
        fail(
            f"--out {out}: {file} is damaged ({error}); remove it if none of its jobs is left in the queue"
        )
    if missing := [run for run in runs if jobs.get(run.name) not in states]:
        jobs |= submit(out, missing, args)
        write_json(file, jobs)
    while len(ended) < len(runs):
        if (states := queue()) is not None:
            ended += [run for run in runs if run not in ended and jobs[run.name] not in states]
            running = [run for run in runs if states.get(jobs[run.name]) == "RUNNING"]
        yield running, ended
        time.sleep(POLL)
