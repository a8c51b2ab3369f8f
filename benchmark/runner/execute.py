"""One run of benchmark.run: its command, its record, and how it is brought to its end, locally or by a job of Slurm."""

import ctypes
import fcntl
import functools
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, NamedTuple

HEADS = {
    "linear": "",
    "etf": "--etf-head",
    "random": "--etf-head --head-frame random",
    "orthogonal": "--etf-head --head-frame orthogonal",
    "etf-trainable": "--etf-head --head-trainable",
    "random-trainable": "--etf-head --head-frame random --head-trainable",
    "orthogonal-trainable": "--etf-head --head-frame orthogonal --head-trainable",
}
PACKAGES = ("torch", "gymnasium", "numpy", "envpool", "ale-py", "minatar")
NOT_RETRIED = (2, -signal.SIGINT, -signal.SIGTERM)  # wrong flags, or stopped by hand


class Run(NamedTuple):
    name: str  # of its directory
    env_id: str
    script: str
    head: str
    seed: int
    flags: tuple[str, ...]  # --total-timesteps and --flags, equal for all heads and seeds


def write_json(path: Path, data: object) -> None:
    """Write beside `path`, then rename: a kill or a full disk leaves the old file whole."""
    with open(path.with_suffix(".tmp"), "w") as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path.with_suffix(".tmp"), path)


def read_record(out: Path, run: Run) -> dict:
    """The run's record, empty if there is none that can be read: then the run counts as not finished."""
    try:
        return json.loads((out / "runs" / run.name / "record.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}


def is_finished(out: Path, run: Run) -> bool:
    """Whether the run's record says so."""
    return read_record(out, run).get("outcome") == "finished"


def lock(file: IO) -> bool:
    """Lock the open file for as long as this process, or a child that inherits it, lives; False if another one does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def log_tail(out: Path, run: Run) -> str:
    """The last 4 kB of the run's log."""
    try:
        with open(out / "runs" / run.name / "log.txt", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def command(out: Path, run: Run) -> list[str]:
    """What starts the run from the beginning."""
    flags = ["--env-id", run.env_id, "--seed", str(run.seed), *HEADS[run.head].split(), *run.flags]
    return [sys.executable, f"{run.script}.py", *flags, "--runs-dir", str(out / "runs" / run.name)]


def next_command(out: Path, run: Run) -> list[str]:
    """What brings the run to its end from where it is."""
    checkpoint = next((out / "runs" / run.name).glob("*/checkpoint.pt"), None)
    if checkpoint is None:
        return command(out, run)
    # a script imports an environment's module only if the command line names it
    flags = ["--resume", str(checkpoint), "--env-id", run.env_id]
    return [sys.executable, f"{run.script}.py", *flags]


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


def attempt(
    out: Path, run: Run, lock_file: IO, ignored: tuple[signal.Signals, ...]
) -> Generator[None, None, int]:
    """Start the run's script, or continue it from its checkpoint, and yield until it ends; if closed before, stops it. Returns
    its exit code."""
    folder, record = out / "runs" / run.name, read_record(out, run)
    record = {
        **run._asdict(),
        "command": command(out, run),
        "attempts": 0,
        "seconds": 0.0,
        "started": None,
    } | record
    record |= {
        "outcome": "running",
        "exit_code": None,
        "attempts": record["attempts"] + 1,
        **surroundings(),
    }
    record["started"] = record["started"] or datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / "record.json", record)
    for half_made in (
        path for path in folder.iterdir() if path.is_dir() and not (path / "checkpoint.pt").exists()
    ):
        shutil.rmtree(half_made)
    words, start = next_command(out, run), time.monotonic()
    with open(folder / "log.txt", "a") as log:
        print("$", shlex.join(words), file=log, flush=True)
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lock_file.fileno()],
            # Safe as this program has one thread; and the signal comes when the thread ends that forked.
            preexec_fn=functools.partial(prepare_child, os.getpid(), ignored)
            if sys.platform == "linux"
            else None,
        )
    try:
        while process.poll() is None:
            yield
    finally:
        stop(process)
    for path in filter(
        Path.is_file, folder.rglob("*")
    ):  # what the record calls finished must outlast a power cut
        with open(path) as file:
            os.fsync(file.fileno())
    record |= {
        "exit_code": process.returncode,
        "seconds": round(record["seconds"] + time.monotonic() - start, 2),
    }
    write_json(
        folder / "record.json", record | {"outcome": "failed" if process.returncode else "finished"}
    )
    return process.returncode


def execute(out: Path, run: Run, ignored: tuple[signal.Signals, ...] = ()) -> Iterator[None]:
    """Bring a run to its end, retrying it once, and yield until then; if closed before, stops its script. `ignored` signals do
    not reach the script. While another process executes the run, even the script of a killed runner, only waits for it."""
    (out / "runs" / run.name).mkdir(parents=True, exist_ok=True)
    with open(out / "runs" / run.name / "lock", "w") as lock_file:
        while not lock(lock_file):
            yield
        if is_finished(out, run):
            return
        if (yield from attempt(out, run, lock_file, ignored)) not in (0, *NOT_RETRIED):
            yield from attempt(out, run, lock_file, ignored)
