"""One run's directory -> its numbers, whose meaning benchmark/collate.py explains."""

import contextlib
import csv
import json
import math
from bisect import bisect_right
from pathlib import Path

import numpy as np
import torch

from benchmark.reporting.thresholds import normalised, threshold

MEASURES = (
    "best",
    "final",
    "last_tenth",
    "area",
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
)
COLLAPSE += (
    "means_equinorm",
    "means_equiangularity",
    "means_maximal_angle",
    "self_duality",
    "within_variability",
)
HEADER = ["global_step", "return", "length", "seconds"]


class Unfinished(Exception):
    """The run has not come to its end; nothing is wrong with its files."""


def parts_of_name(run: Path) -> list[str]:
    """Environment, script, head, seed and time, as the scripts name a run's directory; parts that it lacks are "". They are
    counted from the end, as an environment's id may hold "__" too."""
    return [*run.name.rsplit("__", 4), "", "", "", ""][:5]


def script_name(run: Path, checkpoint: dict) -> str:
    """The script of a run by its checkpoint; that of a peer by the directory's name. Raises ValueError if neither tells."""
    name = checkpoint.get("script", parts_of_name(run)[1])
    if not name:
        raise ValueError("neither checkpoint.pt nor the directory's name tells the script")
    return str(name)


def read_checkpoint(run: Path) -> dict:
    """The run's checkpoint. Raises Unfinished if there is none, ValueError if it is damaged."""
    if not (run / "checkpoint.pt").exists():
        raise Unfinished("no checkpoint")
    if parts_of_name(run)[1].startswith(
        ("sb3-", "cleanrl-")
    ):  # peers write another format, at the end only
        return {"global_step": math.inf}
    try:
        return torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(
            f"checkpoint.pt: {type(error).__name__}: {error}".split("\n")[0]
        ) from error


def read_json(path: Path) -> dict:
    """A JSON object. Raises ValueError if the file is damaged."""
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def read_episodes(run: Path) -> tuple[list[list[str]], np.ndarray]:
    """The lines of episodes.csv, as text and as numbers (episodes, 4). Raises ValueError if there is none, or damage."""
    try:
        with open(run / "episodes.csv", newline="") as file:
            header, *lines = list(csv.reader(file)) or [[]]
        numbers = np.array(lines, dtype=float)
    except (ValueError, csv.Error) as error:
        raise ValueError(f"episodes.csv: {error}") from error
    if (
        header != HEADER
        or numbers.shape != (len(lines), 4)
        or not len(lines)
        or not np.isfinite(numbers).all()
    ):
        raise ValueError("episodes.csv: not a table of finite numbers with a row per episode")
    if (np.diff(numbers[:, 0]) < 0).any():
        raise ValueError("episodes.csv: steps run backwards")
    return lines, numbers


def head_name(flags: dict) -> str:
    """As the scripts name the head in a run's directory."""
    if not flags.get("etf_head"):
        return "linear"
    frame = flags.get("head_frame", "simplex").replace("simplex", "etf")
    return f"{frame}-trainable" if flags.get("head_trainable") else frame


def group_of(run: Path) -> tuple[str, str, str]:
    """Script, environment and head of a run that cannot be measured: as its files tell, else its directory's name."""
    env_id, script, head, *_ = parts_of_name(run)
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
        flags = read_json(run / "args.json")
        env_id, head = str(flags["env_id"]), head_name(flags)
    with contextlib.suppress(Unfinished, OSError, ValueError, TypeError, AttributeError):
        script = script_name(run, read_checkpoint(run))
    return script, env_id, head


def trailing_means(returns: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Mean of the last 100 (or all, if fewer) of the first `ends` returns, for each of `ends`; NaN for none."""
    cumulated = np.concatenate([[0], returns.cumsum()])
    starts = np.maximum(ends - 100, 0)
    with np.errstate(invalid="ignore"):
        return (cumulated[ends] - cumulated[starts]) / (ends - starts)


def measure(run: Path) -> tuple[dict, list[dict], list[list[str]]]:
    """Row of runs.csv with all flags, rows of the curve, and episodes of one run. Raises Unfinished if it has not come to its
    end (by run.py's record, where there is one), and OSError, ValueError, KeyError, TypeError or AttributeError if its files
    are damaged."""
    record = run.parent / "record.json"
    if record.exists() and (outcome := read_json(record)["outcome"]) != "finished":
        raise Unfinished(outcome)
    flags = read_json(run / "args.json")
    checkpoint = read_checkpoint(run)
    script, total = script_name(run, checkpoint), flags["total_timesteps"]
    if checkpoint["global_step"] < total:
        raise Unfinished(f"stops at step {checkpoint['global_step']} of {total}")
    size, written = (
        (run / "episodes.csv").stat().st_size,
        checkpoint.get("log_sizes", {}).get("episodes.csv"),
    )
    if written is not None and size != written:
        raise ValueError(
            f"episodes.csv: holds {size} bytes, but {written} when the checkpoint was written"
        )
    lines, episodes = read_episodes(run)
    steps, returns = episodes[:, 0], episodes[:, 1]

    grid = np.linspace(total / 25, total, 25)
    curve = trailing_means(returns, np.searchsorted(steps, grid, side="right"))
    means = trailing_means(returns, np.arange(1, len(returns) + 1))
    goal, last_tenth = threshold(flags["env_id"]), returns[steps > 0.9 * total]
    solved = [] if goal is None else np.flatnonzero(means[99:] >= goal)
    history = [{"global_step": 0}, *checkpoint.get("collapse", [])]
    row = {
        "best": means[99:].max() if len(means) >= 100 else means[-1],
        "final": means[-1],
        "last_tenth": last_tenth.mean() if len(last_tenth) else math.nan,
        "area": np.nanmean(curve),
        "threshold": goal,
        "stop": steps[99 + solved[0]] if len(solved) else None,
        "normalised": normalised(flags["env_id"], means[-1]),
        "seconds": episodes[-1, 3],
        "steps_per_second": steps[-1] / episodes[-1, 3] if episodes[-1, 3] else None,
        **history[-1],
    }
    ignored = (
        {"head_std"} if flags.get("etf_head") else {"etf_scale", "head_frame", "head_trainable"}
    )
    flags = {key: value for key, value in flags.items() if key not in ignored}
    if flags.get("exp_name") == script:  # by default; it says nothing more
        flags["exp_name"] = ""
    measured = [entry["global_step"] for entry in history]
    points = [
        {"step": f"{step:.0f}", "value": f"{value:.6g}"}
        | cells(history[bisect_right(measured, step) - 1], COLLAPSE)
        for step, value in zip(grid, curve)
    ]
    keys = {"script": script, "head": head_name(flags), "seed": int(flags["seed"])}
    return {**flags, **keys, **cells(row, (*MEASURES, *COLLAPSE))}, points, lines


def cells(row: dict, columns: tuple[str, ...]) -> dict[str, str]:
    """These numbers of a row as text, "" for missing ones."""
    return {key: "" if row.get(key) is None else f"{row[key]:.6g}" for key in columns}
