"""The directory that a command writes to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmark.collate import fail
from benchmark.runner.execute import lock


@contextmanager
def claimed(flag: str, folder: Path, files: tuple[str, ...] = ()) -> Iterator[None]:
    """Make the directory, and keep other commands out of it until the block ends. Exits with code 2
    if it, or one of these files in it, can't be written, or if another command has it."""
    path = folder / "lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")
    except OSError as error:
        fail(flag, folder, error)
    with file:
        if not lock(file) or not path.exists():  # the other one may just have ended
            fail(flag, folder, "another command is at work there")
        try:
            for name in files:
                check_file(flag, folder, name)
            yield
        finally:
            path.unlink()


def check_file(flag: str, folder: Path, name: str) -> None:
    """Exit with code 2 if the file cannot be replaced."""
    path = folder / name
    if path.is_dir():
        fail(flag, folder, f"{name} there is a directory")
    if path.exists() and not os.access(path, os.W_OK):
        fail(flag, folder, f"{name} there cannot be written to")
