"""What a command has measured so far, in a file beside the one that it writes at its end."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from benchmark.collate import fail
from benchmark.runner.execute import lock

Row = TypeVar("Row", bound=BaseModel)


class Part(Generic[Row]):
    """A first line that tells the command, then a row a line, both as JSON."""

    def __init__(self, file: IO[str], rows: list[Row]):
        self.file = file
        self.rows = rows

    def append(self, row: Row) -> None:
        """Keep a row. It is on the disk when this returns. Raises OSError."""
        self.rows.append(row)
        self.file.write(row.model_dump_json() + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())


@contextmanager
def open_part(out: Path, path: Path, command: dict, model: type[Row]) -> Iterator[Part[Row]]:
    """What an earlier, cut-off run of the same command left in `path`, locked until the block ends;
    then the file goes, unless an error ended the block. Exits with code 2, naming --out, if there
    can be no such file, if another process has it, or if it is another command's or damaged."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", errors="replace")
    except OSError as error:
        fail("out", out, error)
    with file:
        if not lock(file):
            fail("out", out, "another process measures for it")
        yield Part(file, read_rows(file, out, command, model))
        os.unlink(path)


def read_rows(file: IO[str], out: Path, command: dict, model: type[Row]) -> list[Row]:
    """The rows in the file, which is begun if there are none."""
    key = json.dumps(command)
    file.seek(0)
    lines = file.read().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):  # cut off while it was written
        lines.pop()
        file.truncate(len("".join(lines).encode()))
    if len(lines) < 2:
        file.truncate(0)
        file.write(key + "\n")
        file.flush()
        return []
    again = "remove it to measure anew"
    different = differences(lines[0], json.loads(key))
    if different:
        fail("out", out, f"{file.name} was measured with {different}; {again}")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            rows.append(model.model_validate_json(line))
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            fail("out", out, f"{file.name} is damaged in line {number} ({reason}); {again}")
    return rows


def differences(line: str, command: dict) -> str:
    """In what the command that a line tells differs from this one; empty if in nothing."""
    try:
        theirs = dict(json.loads(line))
    except (ValueError, TypeError):
        return "a command that cannot be read"
    names = [name for name, value in command.items() if theirs.get(name) != value]
    return ", ".join(f"{name} {theirs.get(name)}, not {command[name]}" for name in names)
