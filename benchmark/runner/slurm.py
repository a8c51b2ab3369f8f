"""What `python -m benchmark.run --cluster slurm` does other than locally: the runs become jobs of
Slurm, through submitit.

A job executes its run as a local worker would, under the run's lock, and leaves at once if it finds
it finished. So a job that was submitted twice does no harm.
"""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import submitit
from pydantic import TypeAdapter, ValidationError

from benchmark.files import Planned
from benchmark.runner.execute import Execution
from benchmark.runner.plan import Refused
from benchmark.runner.progress import State

if TYPE_CHECKING:
    from benchmark.run import Args

POLL = 5.0  # seconds between looks at the queue
# Sent to every process of a job; what follows is for submitit to decide.
SLURM_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


class Job(submitit.helpers.Checkpointable):
    """A run as a job. Being checkpointable, it is requeued by submitit when it is preempted or its
    time is up."""

    def __call__(self, execution: Execution, run: Planned) -> None:
        with closing(execution.run(run)) as steps:
            for _ in steps:
                time.sleep(0.2)


def max_array_size() -> int:
    """The largest number of tasks of a job array, 1001 (Slurm's default) if Slurm does not say."""
    done = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True)
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    return max(1, int(found[1])) if found else 1001


def submit_array(
    execution: Execution, runs: list[Planned], args: "Args", after: str | None
) -> dict[str, str]:
    """Submit the runs as one job array, to begin after the job `after`. Returns the job of each run
    by its name. Raises Refused, and leaves nothing behind, if Slurm doesn't take it."""
    folder = execution.out / "slurm"
    there = set(folder.iterdir())
    resources = {
        "slurm_partition": args.partition,
        "mem_gb": args.memory,
        "gpus_per_node": args.gpus or None,
        "slurm_dependency": f"afterany:{after}" if after else None,
    }
    try:
        # Each attempt gets further, so it may be requeued often.
        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=1000)
        executor.update_parameters(
            name="acpg",
            timeout_min=args.time,
            cpus_per_task=args.cpus,
            slurm_array_parallelism=args.workers,
            slurm_additional_parameters={"requeue": True},
            **{name: value for name, value in resources.items() if value is not None},
        )
        jobs = executor.map_array(Job(), [execution] * len(runs), runs)
    except (submitit.core.utils.FailedJobError, RuntimeError, FileNotFoundError) as error:
        for path in set(folder.iterdir()) - there:
            path.unlink()
        raise Refused(f"--cluster slurm: {error}") from error
    return {run.name: job.job_id for run, job in zip(runs, jobs)}


def queue() -> dict[str, str] | None:
    """The user's jobs that wait or run: state by id. None if Slurm does not answer."""
    words = ["squeue", "--me", "--noheader", "--array", "--format=%i %T"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        return None
    return dict(line.split() for line in done.stdout.splitlines())


def read_jobs(out: Path) -> dict[str, str]:
    """The last job of each run. Raises Refused if the file cannot be read."""
    file = out / "slurm" / "jobs.json"
    try:
        return TypeAdapter(dict[str, str]).validate_json(file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        advice = "remove it if none of its jobs is left in the queue"
        raise Refused(f"--out {out}: {file} is damaged; {advice}") from error


def write_jobs(out: Path, jobs: dict[str, str]) -> None:
    temporary = out / "slurm" / "jobs.tmp"
    temporary.write_text(json.dumps(jobs, indent=1))
    temporary.replace(out / "slurm" / "jobs.json")


def submit(
    execution: Execution, runs: list[Planned], args: "Args"
) -> tuple[list[Planned], str | None]:
    """Submit the runs that have no job in the queue, as arrays of the size that Slurm takes, each
    after the one before. Returns those that have a job now, and why the others have none."""
    out = execution.out
    states = queue()
    if states is None:
        raise Refused("--cluster slurm: squeue gets no answer")
    jobs = read_jobs(out)
    accepted = [run for run in runs if jobs.get(run.name) in states]
    known = set(accepted)
    missing = [run for run in runs if run not in known]
    folder = out / "slurm"
    is_new = not folder.exists()
    folder.mkdir(exist_ok=True)
    size = max_array_size()
    after = None
    for begin in range(0, len(missing), size):
        array = missing[begin : begin + size]
        try:
            submitted = submit_array(execution, array, args, after)
        except Refused as refusal:
            if is_new and begin == 0:
                folder.rmdir()
            return accepted, refusal.args[0]
        after = submitted[array[0].name].split("_")[0]
        jobs |= submitted
        write_jobs(out, jobs)
        accepted += array
    return accepted, None


def wait(out: Path, runs: list[Planned]) -> Iterator[State]:
    """Wait for the jobs of the runs. Yields the running and the ended ones."""
    jobs = read_jobs(out)
    waiting = list(runs)
    ended = []
    while waiting:
        states = queue()
        running = []
        if states is not None:
            ended += [run for run in waiting if jobs[run.name] not in states]
            waiting = [run for run in waiting if jobs[run.name] in states]
            running = [run for run in waiting if states[jobs[run.name]] == "RUNNING"]
        yield running, ended
        if waiting:
            time.sleep(POLL)
