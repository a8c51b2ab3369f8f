"""The directory that a command writes to."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmark.collate import fail
from benchmark.runner.execute import lock


@contextmanager
def claimed(flag: str, folder: Path) -> Iterator[None]:
    """Make the directory, and keep other commands out of it until the block ends. Exits with code 2
    if it can't be written to, or if another command has it."""
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
            yield
        finally:
            path.unlink()
