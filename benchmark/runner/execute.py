"""One run of benchmark.run: its command, its record, and how it is brought to its end, locally or
by a job of Slurm."""

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import itertools
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO

from pydantic import BaseModel

from benchmark import files
from benchmark.files import Damaged, Flags, Planned, Record, read_checkpoint, read_model
from benchmark.runner.plan import Refused, name_of

ROOT = Path(__file__).parents[2]
VARIANTS = json.loads((ROOT / "benchmark" / "seeds" / "scripts.json").read_text())
Job = tuple[Planned, ...]  # the runs of one process; seeds that follow each other
PACKAGES = ("torch", "gymnasium", "numpy", "envpool", "ale-py", "minatar")
# It ended by itself, its flags are wrong, or it was stopped by hand.
NOT_RETRIED = (0, 2, -signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGTERM)


def write_model(path: Path, model: BaseModel) -> None:
    """Write beside `path`, then rename: a kill or a full disk leaves the old file whole."""
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w") as file:
        file.write(model.model_dump_json(indent=1))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def folder_of(out: Path, run: Planned) -> Path:
    return out / "runs" / run.name


def read_record(out: Path, run: Planned) -> Record | None:
    """The run's record, None if it was never started. Raises Damaged."""
    try:
        return files.read_record(folder_of(out, run))
    except FileNotFoundError:
        return None


def checkpoint_of(out: Path, run: Planned, record: Record | None) -> Path | None:
    """The checkpoint in the directory that the run's script has made, if there is one."""
    if record is None or record.run_dir is None:
        return None
    path = folder_of(out, run) / record.run_dir / "checkpoint.pt"
    return path if path.is_file() else None


def is_finished(out: Path, run: Planned) -> bool:
    """Whether the run's record says so, and its checkpoint is still there."""
    try:
        record = read_record(out, run)
    except Damaged:
        return False
    if record is None or record.outcome != "finished":
        return False
    return checkpoint_of(out, run, record) is not None


def hash_of(programs: set[str]) -> str:
    """SHA-256 of the programs' bytes; of one that is missing there are none."""
    digest = hashlib.sha256()
    for program in sorted(programs):
        with contextlib.suppress(FileNotFoundError):
            digest.update(Path(program).read_bytes())
    return digest.hexdigest()


def programs_of(job: Job) -> frozenset[str]:
    """The program that trains the job, and the script of which it is a variant."""
    return frozenset({program_of(job), job[0].script})


def lock(file: IO) -> bool:
    """Lock the open file for as long as this process, or a child that inherits it, lives; False if
    another one does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def log_tail(out: Path, run: Planned) -> str:
    """The last 16 kB of the run's log."""
    try:
        with open(folder_of(out, run) / "log.txt", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 16_384))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def variant_of(script: str) -> str | None:
    """The path of the script's variant for many seeds; None if it has none. Raises Refused if the
    script was edited, and the variant maybe not."""
    path = Path(script).resolve()
    if path.parent != ROOT or path.name not in VARIANTS:
        return None
    variant = os.path.relpath(ROOT / "benchmark" / "seeds" / path.name)
    if hash_of({script}) != VARIANTS[path.name]:
        reason = f"{script} was edited, and {variant} is a variant of it as it was"
        raise Refused(f"--seeds-per-process: {reason}; leave this flag out")
    return variant


def program_of(job: Job) -> str:
    """What trains the job."""
    return variant_of(job[0].script) if len(job) > 1 else job[0].script


def command(out: Path, job: Job) -> list[str]:
    """What starts the job from the beginning."""
    first = job[0]
    flags = ["--env-id", first.env_id, "--seed", str(first.seed), *first.flags]
    folder = folder_of(out, first)
    if len(job) > 1:
        flags += ["--num-seeds", str(len(job))]
        folder = folder.with_name(name_of(first.env_id, first.group, first.arm, "{seed}"))
    return [sys.executable, program_of(job), *flags, "--runs-dir", str(folder)]


def next_command(out: Path, job: Job) -> list[str]:
    """What brings the job to its end from where it is."""
    for run in job:
        try:
            checkpoint = checkpoint_of(out, run, read_record(out, run))
        except Damaged:
            continue
        if checkpoint is not None:
            # a script imports an environment's module only if the command line names it
            flags = ["--resume", str(checkpoint), "--env-id", run.env_id]
            return [sys.executable, program_of(job), *flags]
    return command(out, job)


@functools.cache
def surroundings() -> dict:
    """What else a run depends on: versions, commit and machine."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    git = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or None
    except FileNotFoundError:
        commit = None
    machine = (
        f"{platform.node()}, {platform.machine()}, {os.cpu_count()} CPUs, {platform.platform()}"
    )
    return {"versions": versions, "commit": commit, "machine": machine}


def free_name(path: Path) -> Path:
    """The path, or the first of path.2, path.3 ... that is not taken."""
    names = (path.with_name(f"{path.name}.{n}") for n in itertools.count(2))
    return next(name for name in itertools.chain([path], names) if not name.exists())


def record_of_attempt(out: Path, run: Planned, job: Job, script_hash: str) -> Record:
    """The run's record as another attempt begins. One that is damaged is moved aside."""
    path = folder_of(out, run) / "record.json"
    try:
        former = read_record(out, run)
    except Damaged:
        os.replace(path, free_name(path.with_name("record.json.damaged")))
        former = None
    record = Record(
        **run.model_dump(),
        outcome="running",
        script_hash=script_hash,
        command=tuple(command(out, job)),
        beside=tuple(other.name for other in job) if len(job) > 1 else (),
        attempts=1,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        **surroundings(),
    )
    if former is None:
        return record
    kept = {
        "started": former.started,
        "attempts": former.attempts + 1,
        "seconds": former.seconds,
        "run_dir": former.run_dir,
    }
    return record.model_copy(update=kept)


def shortfall(run_dir: Path | None) -> str:
    """What a run that ended with exit code 0 lacks of being finished; empty if it is."""
    if run_dir is None or not (run_dir / "checkpoint.pt").is_file():
        return "ended with exit code 0 but without a checkpoint"
    try:
        total = read_model(run_dir / "args.json", Flags).total_timesteps
        step = read_checkpoint(run_dir / "checkpoint.pt").global_step
    except (Damaged, FileNotFoundError) as error:
        return str(error)
    return "" if step >= total else f"stops at step {step} of {total}"


def prepare_child(parent: int, ignored: tuple[signal.Signals, ...]) -> None:
    """In the child before it becomes the script: die with the runner, however that dies."""
    for signum in ignored:
        signal.signal(signum, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def stop(process: subprocess.Popen) -> None:
    """Interrupt the script and its own children, and kill them if they take more than 5 seconds."""
    for signum in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, signum)
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                continue


def sync(folder: Path) -> None:
    """What a record calls finished must outlast a power cut."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path) as file:
                os.fsync(file.fileno())


class Execution:
    """How a command's jobs are executed: all but the jobs themselves."""

    def __init__(
        self,
        out: Path,
        hashes: dict[frozenset[str], str],
        timeout: float | None = None,
        ignored: tuple[signal.Signals, ...] = (),
    ):
        """`hashes` of jobs' programs when the command began; `timeout` of an attempt in minutes;
        `ignored` signals do not reach a script."""
        self.out = out
        self.hashes = hashes
        self.timeout = timeout
        self.ignored = ignored

    def run(self, job: Job, device: str | None = None) -> Iterator[None]:
        """Bring a job to its end, retrying it once, and yield until then; if closed before, stops
        its program. Sees only that CUDA device, if one is named. While another process executes one
        of its runs, even the script of a killed runner, only waits for it."""
        with contextlib.ExitStack() as stack:
            locks = []
            for run in job:
                folder = folder_of(self.out, run)
                folder.mkdir(parents=True, exist_ok=True)
                locks.append(stack.enter_context(open(folder / "lock", "w")))
            while not all(lock(file) for file in locks):
                yield
            for _ in range(2):
                if all(is_finished(self.out, run) for run in job):
                    return
                exit_code = yield from self.attempt(job, locks, device)
                if exit_code is None or exit_code in NOT_RETRIED:
                    return

    def attempt(
        self, job: Job, locks: list[IO], device: str | None
    ) -> Generator[None, None, int | None]:
        """Start the job's program, or continue it from its checkpoints, and yield until it ends; if
        closed before, stops it. Returns its exit code, None if it was stopped for its time or never
        started."""
        out = self.out
        programs = programs_of(job)
        words = next_command(out, job)
        resumes = "--resume" in words
        records = {}
        there = {}
        for run in job:
            if is_finished(out, run):
                continue
            records[run] = record_of_attempt(out, run, job, self.hashes[programs])
            if not resumes:  # it makes another directory
                records[run] = records[run].model_copy(update={"run_dir": None})
            there[run] = set() if resumes else set(folder_of(out, run).iterdir())
        if hash_of(programs) != self.hashes[programs]:
            reason = f"{' or '.join(sorted(programs))} was edited since"
            self.end(records, {"outcome": "failed", "reason": reason})
            return None
        self.end(records, {})

        start = time.monotonic()
        process = self.start(words, job, locks, device)
        timed_out = False
        try:
            while process.poll() is None and not timed_out:
                self.note_directories(records, there)
                seconds = time.monotonic() - start
                timed_out = self.timeout is not None and seconds > 60 * self.timeout
                yield
        finally:
            stop(process)

        self.note_directories(records, there)
        seconds = time.monotonic() - start
        for run, record in records.items():
            run_dir = folder_of(out, run) / record.run_dir if record.run_dir else None
            changes = {"seconds": round(record.seconds + seconds / len(records), 2)}
            if timed_out:
                changes["reason"] = f"took longer than --run-timeout {self.timeout:g} minutes"
            else:
                changes["exit_code"] = process.returncode
                changes["reason"] = shortfall(run_dir)
                if process.returncode != 0:
                    changes["reason"] = f"exit code {process.returncode}"
            changes["outcome"] = "failed" if changes["reason"] else "finished"
            if run_dir:
                sync(run_dir)
            self.end({run: record}, changes)
        return None if timed_out else process.returncode

    def note_directories(self, records: dict[Planned, Record], there: dict[Planned, set]) -> None:
        """Write down which directories the program has made for the runs."""
        for run, record in records.items():
            if record.run_dir is None:
                run_dir = made_since(folder_of(self.out, run), there[run])
                if run_dir is not None:
                    records[run] = record.model_copy(update={"run_dir": run_dir.name})
                    self.end({run: records[run]}, {})

    def start(
        self, words: list[str], job: Job, locks: list[IO], device: str | None
    ) -> subprocess.Popen:
        """Start the program, which appends to the first run's log, where the others' logs lead, and
        holds the locks for as long as it lives."""
        log_file = folder_of(self.out, job[0]) / "log.txt"
        for run in job[1:]:
            with contextlib.suppress(FileExistsError):
                (folder_of(self.out, run) / "log.txt").symlink_to(f"../{job[0].name}/log.txt")
        prepare = functools.partial(prepare_child, os.getpid(), self.ignored)
        environment = dict(os.environ)
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        with open(log_file, "a") as log:
            print("$", shlex.join(words), file=log, flush=True)
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[file.fileno() for file in locks],
                env=environment,
                # Safe as this program has one thread; and the signal comes when the thread ends
                # that forked.
                preexec_fn=prepare if sys.platform == "linux" else None,
            )

    def end(self, records: dict[Planned, Record], changes: dict) -> None:
        """Write the records with these changes."""
        for run, record in records.items():
            path = folder_of(self.out, run) / "record.json"
            write_model(path, record.model_copy(update=changes))


def made_since(folder: Path, there: set[Path]) -> Path | None:
    """The directory that a script has made and named its flags in, beside what was there."""
    for path in sorted(set(folder.iterdir()) - there):
        if (path / "args.json").exists():
            return path
    return None


def set_aside(out: Path, run: Planned) -> bool:
    """Move all files of a run out of runs/, to replaced/. False if it is being executed."""
    folder = folder_of(out, run)
    with open(folder / "lock", "w") as lock_file:
        if not lock(lock_file):
            return False
        (out / "replaced").mkdir(exist_ok=True)
        os.replace(folder, free_name(out / "replaced" / run.name))
    return True
