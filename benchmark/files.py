"""The files that programs of benchmark/ leave for each other, and what each of them must hold.

An experiment is a directory with a plan.json, a `Plan`, and runs/<name>/, one for each planned run.
There lie the run's record.json, a `Record`, its log.txt, and the directory that its script made,
whose files are the script's (README, "What a run leaves behind").

Whoever reads a file that another program, or a hand, may have written does so through `read_model`,
or through a function that raises `Damaged` like it: one damaged file is named and never stops the
rest.
"""

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, ValidationError

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
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise Damaged(f"{path}: {where}: {first['msg']}") from error
