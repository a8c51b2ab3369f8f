"""Which runs share a process: with --seeds-per-process seeds of an arm on an environment, where the
script has a variant for many seeds."""

from collections import defaultdict
from pathlib import Path

from benchmark.files import Damaged, Planned
from benchmark.runner.execute import Job, checkpoint_of, read_record, variant_of
from benchmark.runner.plan import task_of


def companions(out: Path, run: Planned) -> Job | None:
    """The runs that the run goes on with, itself among them, as they began together; None if it
    begins anew. After a failure it goes on alone, as one seed may fail them all."""
    try:
        record = read_record(out, run)
    except Damaged:
        return None
    if checkpoint_of(out, run, record) is None:
        return None
    if record.outcome == "failed":
        return (run,)
    job = []
    for name in record.beside:
        try:
            other = read_record(out, run.model_copy(update={"name": name}))
        except Damaged:  # it goes on, too, but nobody knows how
            continue
        if other is not None:
            job.append(other.planned())
    return tuple(job) or (run,)


def jobs_of(
    out: Path, left: list[Planned], anew: set[Planned], seeds_per_process: int
) -> list[Job]:
    """All runs that are `left`, and with those that go on, and not `anew`, what they began with, by
    processes."""
    jobs = []
    fresh = defaultdict(list)
    known = set()
    for run in left:
        if run.name in known:
            continue
        job = None if run in anew else companions(out, run)
        if job is None:
            fresh[run.group, run.arm, task_of(run)].append(run)
        else:
            jobs.append(job)
            known.update(other.name for other in job)
    for runs in fresh.values():
        runs = [run for run in runs if run.name not in known]
        size = 1
        if seeds_per_process > 1 and runs and variant_of(runs[0].script):
            size = seeds_per_process
        while runs:
            job = [runs.pop(0)]
            while runs and len(job) < size and runs[0].seed == job[-1].seed + 1:
                job.append(runs.pop(0))
            jobs.append(tuple(job))
    order = {run.name: number for number, run in enumerate(left)}
    return sorted(jobs, key=lambda job: min(order.get(run.name, len(order)) for run in job))
