"""One run of benchmark.run: its command, its record, and how it is brought to its end, locally or by
a job of Slurm."""

import ctypes
import fcntl
import functools
import hashlib
import itertools
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
    return path if path.exists() else None


def is_finished(out: Path, run: Planned) -> bool:
    """Whether the run's record says so, and its checkpoint is still there."""
    try:
        record = read_record(out, run)
    except Damaged:
        return False
    if record is None or record.outcome != "finished":
        return False
    return checkpoint_of(out, run, record) is not None


def hash_of(script: str) -> str:
    """SHA-256 of the script's bytes; empty if there is no such file any more."""
    try:
        return hashlib.sha256(Path(script).read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def lock(file: IO) -> bool:
    """Lock the open file for as long as this process, or a child that inherits it, lives; False if
    another one does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def log_tail(out: Path, run: Planned) -> str:
    """The last 4 kB of the run's log."""
    try:
        with open(folder_of(out, run) / "log.txt", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def command(out: Path, run: Planned) -> list[str]:
    """What starts the run from the beginning."""
    flags = ["--env-id", run.env_id, "--seed", str(run.seed), *run.flags]
    return [sys.executable, run.script, *flags, "--runs-dir", str(folder_of(out, run))]


def next_command(out: Path, run: Planned, record: Record | None) -> list[str]:
    """What brings the run to its end from where it is."""
    checkpoint = checkpoint_of(out, run, record)
    if checkpoint is None:
        return command(out, run)
    # a script imports an environment's module only if the command line names it
    return [sys.executable, run.script, "--resume", str(checkpoint), "--env-id", run.env_id]


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


def record_of_attempt(out: Path, run: Planned, script_hash: str) -> Record:
    """The run's record as another attempt begins. One that is damaged is moved aside."""
    path = folder_of(out, run) / "record.json"
    try:
        record = read_record(out, run)
    except Damaged:
        os.replace(path, free_name(path.with_name("record.json.damaged")))
        record = None
    if record is None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record = Record(
            **run.model_dump(),
            outcome="running",
            script_hash=script_hash,
            command=tuple(command(out, run)),
            started=now,
        )
    changes = {"outcome": "running", "reason": "", "exit_code": None}
    return record.model_copy(update=changes | surroundings() | {"attempts": record.attempts + 1})


def shortfall(run_dir: Path | None) -> str:
    """What a run that ended with exit code 0 lacks of being finished; empty if it is."""
    if run_dir is None or not (run_dir / "checkpoint.pt").exists():
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
    """How a command's runs are executed: all but the runs themselves."""

    def __init__(
        self,
        out: Path,
        hashes: dict[str, str],
        timeout: float | None = None,
        ignored: tuple[signal.Signals, ...] = (),
    ):
        """`hashes` of the scripts when the command began; `timeout` of an attempt in minutes;
        `ignored` signals do not reach a script."""
        self.out = out
        self.hashes = hashes
        self.timeout = timeout
        self.ignored = ignored

    def run(self, run: Planned, device: str | None = None) -> Iterator[None]:
        """Bring a run to its end, retrying it once, and yield until then; if closed before, stops
        its script. Sees only that CUDA device, if one is named. While another process executes the
        run, even the script of a killed runner, only waits for it."""
        folder = folder_of(self.out, run)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as lock_file:
            while not lock(lock_file):
                yield
            if is_finished(self.out, run):
                return
            record = yield from self.attempt(run, lock_file, device)
            retry = record.exit_code is not None and record.exit_code not in NOT_RETRIED
            if retry:
                yield from self.attempt(run, lock_file, device)

    def attempt(
        self, run: Planned, lock_file: IO, device: str | None
    ) -> Generator[None, None, Record]:
        """Start the run's script, or continue it from its checkpoint, and yield until it ends; if
        closed before, stops it. Returns the record that it has written."""
        out, folder = self.out, folder_of(self.out, run)
        path = folder / "record.json"
        record = record_of_attempt(out, run, self.hashes[run.script])
        if hash_of(run.script) != record.script_hash:
            reason = f"{run.script} was edited since"
            return self.end(path, record, {"outcome": "failed", "reason": reason})
        write_model(path, record)

        words = next_command(out, run, record)
        resumes = "--resume" in words
        there = set(folder.iterdir())
        start = time.monotonic()
        process = self.start(words, folder / "log.txt", lock_file, device)
        run_dir = folder / record.run_dir if resumes else None
        timed_out = False
        try:
            while process.poll() is None and not timed_out:
                if run_dir is None:
                    run_dir = made_since(folder, there)
                    if run_dir is not None:
                        record = record.model_copy(update={"run_dir": run_dir.name})
                        write_model(path, record)
                seconds = time.monotonic() - start
                timed_out = self.timeout is not None and seconds > 60 * self.timeout
                yield
        finally:
            stop(process)

        run_dir = run_dir or made_since(folder, there)
        changes = {
            "run_dir": run_dir.name if run_dir else None,
            "seconds": round(record.seconds + time.monotonic() - start, 2),
        }
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
        return self.end(path, record, changes)

    def start(
        self, words: list[str], log_file: Path, lock_file: IO, device: str | None
    ) -> subprocess.Popen:
        """Start the script, which appends to the log and holds the lock for as long as it lives."""
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
                pass_fds=[lock_file.fileno()],
                env=environment,
                # Safe as this program has one thread; and the signal comes when the thread ends
                # that forked.
                preexec_fn=prepare if sys.platform == "linux" else None,
            )

    def end(self, path: Path, record: Record, changes: dict) -> Record:
        """Write the record with these changes."""
        record = record.model_copy(update=changes)
        write_model(path, record)
        return record


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
