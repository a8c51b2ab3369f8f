"""The files that programs of benchmark/ leave for each other, and what each of them must hold.

An experiment is a directory with a plan.json, a `Plan`, and runs/<name>/, one for each planned run.
There lie the run's record.json, a `Record`, its log.txt, and the directory that its script made,
whose files are the script's (README, "What a run leaves behind").

Whoever reads a file that another program, or a hand, may have written does so through `read_model`,
or through a function that raises `Damaged` like it: one damaged file is named and never stops the
rest.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    ValidationError,
    field_validator,
)

Model = TypeVar("Model", bound=BaseModel)


class Damaged(ValueError):
    """A file does not hold what it must; the text names the file and what is wrong, in one line."""


class Planned(BaseModel):
    """A run that somebody asked for."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    name: str = Field(pattern=r"^[^/\\\x00]+$")
    """of its directory below runs/; for people to read, nothing is taken from it"""
    group: str
    """arms are compared with each other within a group: a script's name with --heads, "arms" with --arms"""
    arm: str
    """what is compared: a head, or the name before the "=" of --arms"""
    script: str
    """path of the program, as it was given"""
    env_id: str
    seed: NonNegativeInt
    flags: tuple[str, ...]
    """all other flags of the script, those of the arm's head too"""


class Plan(BaseModel):
    """What an experiment consists of: plan.json."""

    model_config = ConfigDict(frozen=True)

    baseline: str
    """the arm that the others are compared with"""
    runs: tuple[Planned, ...]


class Record(Planned):
    """How a planned run went so far: record.json."""

    outcome: Literal["running", "finished", "failed"]
    reason: str = ""
    """why it failed, in words"""
    exit_code: int | None = None
    script_hash: str
    """SHA-256 of the script's bytes when the run was started first"""
    command: tuple[str, ...]
    run_dir: str | None = None
    """name of the directory that the script made, below the run's"""
    attempts: NonNegativeInt = 0
    seconds: NonNegativeFloat = 0.0
    started: str | None = None
    """UTC, ISO 8601"""
    versions: dict[str, str] = {}
    commit: str | None = None
    machine: str = ""


def read_model(path: Path, model: type[Model]) -> Model:
    """The file as that model. Raises FileNotFoundError, another OSError, or Damaged."""
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: ValidationError) -> Damaged:
    """What is wrong with the file first."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"])) or "the file"
    return Damaged(" ".join(f"{path}: {where}: {first['msg']}".split()))


LARGEST = 1e100  # of the numbers in a table: sums of larger ones may overflow
LONGEST = 2**63  # of steps


class Flags(BaseModel):
    """A run's flags: args.json. All others than these are kept too, whatever they are."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    env_id: str = Field(min_length=1)
    seed: int = Field(ge=0, lt=LONGEST)
    total_timesteps: int = Field(gt=0, lt=LONGEST)
    etf_head: bool | None = None
    """None where the script has no such flag"""
    head_frame: str = "simplex"
    head_trainable: bool = False
    script: str | None = Field(None, min_length=1)
    """no flag, but the name of a peer, whose checkpoint has a format of its own (benchmark/speed)"""


class Checkpoint(BaseModel):
    """What the benchmark reads of a script's checkpoint.pt."""

    model_config = ConfigDict(frozen=True, strict=True)

    script: str | None = Field(None, min_length=1)
    """name of the program, without .py"""
    args: Flags | None = None
    global_step: int = Field(ge=0, lt=LONGEST)
    seconds: NonNegativeFloat = float("inf")
    collapse: list[dict[str, float]] = []
    """measurements in their order, each with its global_step"""
    log_sizes: dict[str, NonNegativeInt] = {}
    """bytes of each log when the checkpoint was written"""

    @field_validator("collapse")
    @classmethod
    def in_order(cls, collapse: list[dict[str, float]]) -> list[dict[str, float]]:
        steps = [0.0, *(entry.get("global_step", np.nan) for entry in collapse)]
        if not (np.diff(steps) >= 0).all():
            raise ValueError("a global_step is missing or smaller than the one before")
        return collapse


def check_agrees(path: Path, held: BaseModel, wanted: BaseModel, names: Iterable[str]) -> None:
    """Raises Damaged if the file's model holds another value under one of the names."""
    for name in names:
        value = getattr(held, name)
        expected = getattr(wanted, name)
        if value != expected:
            raise Damaged(f"{path}: {name}: {value!r} where {expected!r} was run")


def read_plan(path: Path) -> Plan:
    """A plan.json. Raises FileNotFoundError, another OSError, or Damaged."""
    plan = read_model(path, Plan)
    names = set()
    for run in plan.runs:
        if run.name in names:
            raise Damaged(f"{path}: two runs are named {run.name}")
        if run.name in (".", ".."):
            raise Damaged(f"{path}: {run.name} cannot name a run's directory")
        names.add(run.name)
    return plan


def read_record(folder: Path) -> Record:
    """The record.json of a planned run's directory. Raises FileNotFoundError, another OSError, or
    Damaged, also where it is another run's."""
    path = folder / "record.json"
    record = read_model(path, Record)
    if record.name != folder.name:
        raise Damaged(f"{path}: is the record of {record.name}")
    if record.run_dir is not None and Path(record.run_dir).name != record.run_dir:
        raise Damaged(f"{path}: run_dir: {record.run_dir!r} cannot name a directory here")
    return record


def read_checkpoint(path: Path) -> Checkpoint:
    """A script's checkpoint.pt. Raises Damaged."""
    import torch  # takes a second, and who reads no checkpoint can do without

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return Checkpoint.model_validate(state)
    except ValidationError as error:
        raise damaged(path, error) from error
    except Exception as error:  # a damaged file can raise anything
        reason = str(error).strip().partition("\n")[0]
        raise Damaged(f"{path}: {type(error).__name__}: {reason}") from error


def read_table(path: Path, columns: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """The lines below the header of a CSV file of numbers, as text and as floats (lines, columns).
    All but returns are at least 0, and global_step never falls. Raises FileNotFoundError, another
    OSError, or Damaged."""
    try:
        return parse_table(path.read_text(encoding="utf-8"), columns)
    except ValueError as error:
        raise Damaged(f"{path}: {error}") from error


def parse_table(text: str, columns: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """What `read_table` returns. Raises ValueError."""
    header = ",".join(columns) + "\n"
    if not text.startswith(header):
        raise ValueError(f"the first line is not {header.strip()}")
    if not text.endswith("\n"):
        raise ValueError("the last line is cut off")
    lines = text.removeprefix(header).split("\n")[:-1]
    if "" in lines:
        raise ValueError("there is an empty line")
    if not lines:
        return [], np.empty((0, len(columns)))
    numbers = np.loadtxt(lines, delimiter=",", comments=None, ndmin=2)
    if numbers.shape != (len(lines), len(columns)):
        raise ValueError(f"the lines have {numbers.shape[1]} columns, the first {len(columns)}")
    if not (np.abs(numbers) < LARGEST).all():
        raise ValueError(f"a number is not finite, or beyond {LARGEST:g}")
    for name, values in zip(columns, numbers.T):
        if name != "return" and (values < 0).any():
            raise ValueError(f"a {name} is negative")
        if name == "global_step" and (np.diff(values) < 0).any():
            raise ValueError(f"a {name} is smaller than the one before")
    return lines, numbers
