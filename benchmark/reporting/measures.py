"""One run's directory -> its numbers, whose meaning benchmark/collate.py explains."""

import contextlib
import math
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmark.files import (
    Checkpoint,
    Damaged,
    Flags,
    check_agrees,
    read_checkpoint,
    read_model,
    read_table,
)
from benchmark.reporting.thresholds import normalised, threshold

MEASURES = (
    "best",
    "final",
    "last_tenth",
    "area",
    "greedy",
    "threshold",
    "stop",
    "normalised",
    "seconds",
    "steps_per_second",
)
COLLAPSE = (
    "actions_seen",
    "feature_norm",
    "head_equinorm",
    "head_equiangularity",
    "head_maximal_angle",
    "means_equinorm",
    "means_equiangularity",
    "means_maximal_angle",
    "self_duality",
    "within_variability",
)
KEYS = ("run", "group", "script", "env_id", "arm", "baseline", "head", "seed")
COLUMNS = {*KEYS, "step", "value", *MEASURES, *COLLAPSE}  # that are no flags
EPISODES = ("global_step", "return", "length", "seconds")  # columns of episodes.csv
EVALUATION = ("global_step", "return", "length")  # columns of evaluation.csv
WINDOW = 100  # episodes in a mean
POINTS = 25  # of a curve


class Unfinished(Exception):
    """The run has not come to its end; nothing is wrong with its files."""


class Measured(NamedTuple):
    """A finished run."""

    row: dict[str, object]
    """flags, script, head, MEASURES and COLLAPSE"""
    curve: np.ndarray
    """(POINTS, 2 + len(COLLAPSE)): step, value and COLLAPSE; NaN where undefined"""
    lines: list[str]
    """episodes.csv without its header"""


def text(number: float | None) -> str:
    """The number as it stands in a table: "" where it is undefined."""
    if number is None or not math.isfinite(number):
        return ""
    return f"{number:.6g}"


def head_name(flags: Flags) -> str:
    """The head in one word; "" where the script has no --etf-head."""
    if flags.etf_head is None:
        return ""
    if not flags.etf_head:
        return "linear"
    frame = flags.head_frame.replace("simplex", "etf")
    return f"{frame}-trainable" if flags.head_trainable else frame


def flag_columns(flags: Flags, script: str) -> dict[str, object]:
    """The flags by the names of their columns, without those that the run's head ignores."""
    values = flags.model_dump(exclude_unset=True, exclude={"script"})
    ignored = {"head_std"} if flags.etf_head else {"etf_scale", "head_frame", "head_trainable"}
    columns = {}
    for name, value in values.items():
        if name in ignored:
            continue
        if name in COLUMNS - {"env_id", "seed"}:
            name = f"--{name}"
        columns[name] = value
    if columns.get("exp_name") == script:  # the default, which says nothing more
        columns["exp_name"] = ""
    return columns


def read_flags(run: Path) -> Flags:
    """The run's args.json. Raises OSError or Damaged."""
    return read_model(run / "args.json", Flags)


def read_last_checkpoint(run: Path, flags: Flags) -> Checkpoint:
    """The run's checkpoint. Raises Unfinished if there is none, or Damaged."""
    path = run / "checkpoint.pt"
    if not path.exists():
        raise Unfinished("no checkpoint")
    if flags.script is not None:  # a peer writes its own format, and that at its end only
        return Checkpoint(script=flags.script, global_step=sys.maxsize)
    return read_checkpoint(path)


def check_end(run: Path, flags: Flags, checkpoint: Checkpoint) -> None:
    """Raises Unfinished if the checkpoint is not the run's last, and Damaged if flags that matter
    here are not those of the checkpoint."""
    if checkpoint.global_step < flags.total_timesteps:
        raise Unfinished(f"stops at step {checkpoint.global_step} of {flags.total_timesteps}")
    if checkpoint.args is not None:
        check_agrees(run / "args.json", flags, checkpoint.args, Flags.model_fields)


def read_episodes(run: Path, checkpoint: Checkpoint) -> tuple[list[str], np.ndarray]:
    """The lines of episodes.csv as text, and as numbers (episodes, 4). Raises OSError or Damaged,
    also where the table does not fit the checkpoint."""
    path = run / "episodes.csv"
    lines, episodes = read_table(path, EPISODES)
    size = path.stat().st_size
    counted = checkpoint.log_sizes.get(path.name, size)
    if size != counted:
        raise Damaged(f"{path}: has {size} bytes, but had {counted} at the checkpoint")
    steps, _, _, seconds = episodes[-1:].sum(axis=0)
    if steps > checkpoint.global_step or seconds > checkpoint.seconds + 0.01:
        raise Damaged(f"{path}: ends after the checkpoint")
    return lines, episodes


def greedy_return(run: Path, checkpoint: Checkpoint) -> float | None:
    """Mean return of evaluation.csv, if there is one. Raises Unfinished if it is of another step
    than the checkpoint, and OSError or Damaged."""
    path = run / "evaluation.csv"
    if not path.exists():
        return None
    _, episodes = read_table(path, EVALUATION)
    if not len(episodes):
        raise Damaged(f"{path}: has no episode")
    step = episodes[-1, 0]
    if step != checkpoint.global_step:
        raise Unfinished(f"evaluation.csv is of step {step:.0f}, not {checkpoint.global_step}")
    return episodes[:, 1].mean()


def trailing_means(returns: np.ndarray) -> np.ndarray:
    """(n,): at each of n returns the mean of the last WINDOW, or of all up to there if fewer."""
    start = returns[: WINDOW - 1]
    means = start.cumsum() / np.arange(1, len(start) + 1)
    if len(returns) < WINDOW:
        return means
    windows = np.lib.stride_tricks.sliding_window_view(returns, WINDOW)
    return np.concatenate([means, windows.mean(axis=1)])


def value_at(points: np.ndarray, steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(points, ...): the last of the values, which belong to `steps`, at or before each point; NaN
    where there is none."""
    nothing = np.full((1, *values.shape[1:]), np.nan)
    last = np.searchsorted(steps, points, side="right") - 1
    return np.concatenate([values, nothing])[last]


def collapse_history(checkpoint: Checkpoint) -> tuple[np.ndarray, np.ndarray]:
    """The steps of all measurements of collapse (n,), and the COLLAPSE of each (n, measures); NaN
    where undefined."""
    steps = [entry["global_step"] for entry in checkpoint.collapse]
    values = np.full((len(steps), len(COLLAPSE)), np.nan)
    for row, entry in zip(values, checkpoint.collapse):
        row[:] = [entry.get(name, np.nan) for name in COLLAPSE]
    return np.array(steps), values


def measures_of(flags: Flags, episodes: np.ndarray, curve: np.ndarray) -> dict[str, float | None]:
    """MEASURES but for `greedy`, None or absent where undefined, as all are without an episode.
    `episodes` are (episodes, 4), `curve` (POINTS,)."""
    if not len(episodes):
        return {}
    steps, returns, _, seconds = episodes.T
    means = trailing_means(returns)
    full = means[WINDOW - 1 :]  # fewer episodes prove nothing
    late = returns[steps > 0.9 * flags.total_timesteps]
    begun = curve[np.isfinite(curve)]
    goal = threshold(flags.env_id)
    stop = None
    if goal is not None and (full >= goal).any():
        stop = steps[WINDOW - 1 + np.argmax(full >= goal)]
    return {
        "best": full.max() if len(full) else means[-1],
        "final": means[-1],
        "last_tenth": late.mean() if len(late) else None,
        "area": begun.mean() if len(begun) else None,
        "threshold": goal,
        "stop": stop,
        "normalised": normalised(flags.env_id, means[-1]),
        "seconds": seconds[-1],
        "steps_per_second": steps[-1] / seconds[-1] if seconds[-1] else None,
    }


def measure(run: Path) -> Measured:
    """The numbers of one run. Raises Unfinished if it has not come to its end, and OSError or
    Damaged if one of its files is missing or damaged."""
    flags = read_flags(run)
    checkpoint = read_last_checkpoint(run, flags)
    check_end(run, flags, checkpoint)
    lines, episodes = read_episodes(run, checkpoint)
    script = checkpoint.script or ""

    points = np.linspace(flags.total_timesteps / POINTS, flags.total_timesteps, POINTS)
    values = value_at(points, episodes[:, 0], trailing_means(episodes[:, 1]))
    measured_at, history = collapse_history(checkpoint)
    collapse = value_at(points, measured_at, history)

    measures = measures_of(flags, episodes, values)
    measures["greedy"] = greedy_return(run, checkpoint)
    measures |= dict(zip(COLLAPSE, value_at(np.inf, measured_at, history)))
    row = flag_columns(flags, script)
    row |= {"script": script, "head": head_name(flags)}
    row |= {name: text(measures.get(name)) for name in (*MEASURES, *COLLAPSE)}
    return Measured(row, np.column_stack([points, values, collapse]), lines)


def identify(run: Path) -> tuple[str, str, str]:
    """Script, environment and head of a run that cannot be measured, each "" where its files do not
    tell."""
    script, env_id, head = "", "", ""
    with contextlib.suppress(OSError, Damaged, Unfinished):
        flags = read_flags(run)
        env_id = flags.env_id
        head = head_name(flags)
        script = read_last_checkpoint(run, flags).script or ""
    return script, env_id, head
