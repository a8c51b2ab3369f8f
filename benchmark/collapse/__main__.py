"""Action collapse over training, measured and drawn.

    python -m benchmark.collapse --out collapse --feature-norm 2 --total-timesteps 200000

Trains a script with the learned head and with the frozen simplex ETF, the same flags for both
(those that this program does not know go to the script), and keeps the checkpoints on the way.
These agents, and the untrained one (step 0), are then shown the same states, labelled

* by their optimal action, where the environment tells it, as IdealCliffWalking-v0 does: by
  `optimal_action(state)` for each of its `CELLS` (flattened), by `ACTIONS`, their names, and by
  `label(action)`, as actions that mean the same share a label;
* else by the greedy action of the run's trained agent, on 2,000 states that this agent meets;
  agreement with these labels is 1 for it by construction.

What is written says which. Runs stay below --runs, in a directory for each script, as its text now
is, and its flags. The same command again trains only what is left of them, a run that was cut off
from its last checkpoint.

Columns of measures.csv, a row per run and checkpoint: env_id, script, flags, labels ("optimal" or
"greedy"), etf_head, seed, global_step, agreement (share of the states whose greedy action has the
state's label), trace_ratio (Tr Sigma_W / Tr Sigma_B), and the `collapse/*` of the scripts without
the prefix, centred on the mean of the means; empty where undefined or trivial. The trace ratio is
there because within_variability, Tr(Sigma_W pinv(Sigma_B)) / K', sees nothing outside the span of
the mean activations: it is small for an untrained network whose states are orthogonal to each
other.

Pictures: measures.png (medians over seeds; thin: seeds), and of the first seed cosines.png (the
head's rows and the mean activations at the end), projection.png and projection.gif (activations in
the space that the head's rows span, turned so that the rows are nearest a fixed simplex).
page.html shows these and the measures of the first seed, to turn and to play, in one file that
needs nothing else.
"""

import contextlib
import csv
import hashlib
import io
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple

import numpy as np
import torch
import tyro
from tqdm import tqdm

from benchmark.algorithms import ALGORITHMS
from benchmark.collapse.folder import claimed
from benchmark.collapse.measures import (
    Look,
    label_states,
    load_checkpoints,
    measure,
    restore,
    why_missing,
)
from benchmark.collapse.page import write_page
from benchmark.collapse.pictures import (
    LABELS,
    PANELS,
    animate,
    draw_cosines,
    draw_measures,
    draw_projection,
)
from benchmark.collate import fail, replacing, say
from benchmark.files import Damaged
from benchmark.readme.figure import HEADS
from benchmark.runner.check import load, one_line
from benchmark.runner.execute import prepare_child, stop

FILES = (
    "measures.csv",
    "measures.png",
    "cosines.png",
    "projection.png",
    "projection.gif",
    "page.html",
)
MOST = {"seeds": 10_000, "checkpoint_every": 10**9, "workers": 1024}  # of these; the least is 1
OWN_FLAGS = {"--seed", "--etf-head", "--no-etf-head", "--runs-dir", "--resume"}


@dataclass
class Args:
    out: Path  # directory to write measures.csv, the pictures and page.html to
    env_id: str = "benchmark.envs:IdealCliffWalking-v0"  # any that the script can run
    script: Literal[*ALGORITHMS] = "ppo_acpg"
    seeds: int = 10  # runs of each head
    checkpoint_every: int = 4  # iterations between two looks at a run (A2C's have 40 steps: more)
    runs: Path = Path("runs/collapse")  # where the runs are made and kept
    workers: int = 2  # runs at a time


class Planned(NamedTuple):
    """A run that is to be made, and looked at."""

    command: list[str]  # without --runs-dir
    folder: Path


class Measured(NamedTuple):
    """What was found in all runs."""

    rows: list[dict]  # of measures.csv
    history: dict[str, list[tuple[int, Look]]]  # of the first seed, a head's looks with their steps
    names: tuple[str, ...]  # of the actions
    cells: tuple[str, ...]  # names of the states


def plan(args: Args, flags: list[str]) -> list[Planned]:
    """All runs. The name of the directory that holds them tells their flags and the text of their
    script apart from others."""
    flags = ["--env-id", args.env_id, "--checkpoint-every", str(args.checkpoint_every), *flags]
    script = Path(f"{args.script}.py")
    digest = hashlib.sha1(json.dumps(flags).encode() + script.read_bytes()).hexdigest()[:8]
    task = "".join(letter if letter.isalnum() else "-" for letter in args.env_id)
    folder = args.runs / f"{task}-{args.script}-{digest}"
    planned = []
    for seed, head in itertools.product(range(1, args.seeds + 1), ("no-etf-head", "etf-head")):
        command = [sys.executable, str(script), f"--{head}", "--seed", str(seed), *flags]
        planned.append(Planned(command, folder / f"{head}-{seed}"))
    return planned


def check_flags(args: Args, flags: list[str]) -> None:
    """Exit with code 2 if a flag's value cannot work, or is not for the command line to set."""
    for flag, most in MOST.items():
        value = getattr(args, flag)
        if not 1 <= value <= most:
            fail(flag.replace("_", "-"), value, f"must lie in [1, {most}]")
    for flag in flags:
        name = flag.split("=")[0].replace("_", "-")
        if name in OWN_FLAGS:
            fail(name[2:], "", "is for benchmark.collapse to set")


def check_command(script: ModuleType, command: list[str]) -> None:
    """Do what the script does before it trains. Exits with code 2 if it says that a flag cannot
    work."""
    sys.argv = command[1:]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            args, _ = script.read_command_line()
            script.check_flags(args)
            envs = script.make_envs(args.env_id, args.num_envs)
            script.check_combinations(args, envs)
            script.make_agent(envs, args)
            envs.close()
    except SystemExit:
        say(f"error: {one_line(said.getvalue())}", sys.stderr)
        sys.exit(2)


# Training
def next_command(run: Planned) -> list[str]:
    """What brings the run to its end from where it is. Removes what a script left that was cut off
    before its first checkpoint."""
    checkpoints = [*run.folder.glob("*/checkpoint.pt")]
    if checkpoints:
        env_id = run.command[run.command.index("--env-id") + 1]  # so that its module is imported
        return [*run.command[:2], "--resume", str(checkpoints[0]), "--env-id", env_id]
    for path in run.folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    return [*run.command, "--runs-dir", str(run.folder)]


def train(run: Planned) -> Iterator[None]:
    """Bring a run to its end, and yield until then; if closed before, stop its script, which dies
    with this program too. Those of its checkpoints that are seen in time stay in the folder, by
    their time. Raises CalledProcessError with the end of its log if it fails."""
    if (run.folder / "done").exists():
        return
    run.folder.mkdir(parents=True, exist_ok=True)
    command = next_command(run)
    linux = sys.platform == "linux"
    with open(run.folder / "log", "a") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(prepare_child, os.getpid(), ()) if linux else None,
        )
    try:
        running = True
        while running:
            running = process.poll() is None
            keep_checkpoints(run.folder)
            yield
    finally:
        stop(process)
    if process.returncode:
        end = (run.folder / "log").read_text(errors="replace")[-2000:]
        raise subprocess.CalledProcessError(process.returncode, command, stderr=end)
    (run.folder / "done").touch()


def keep_checkpoints(folder: Path) -> None:
    """Keep the checkpoint as it now is. The script writes the next one beside it and renames."""
    for checkpoint in folder.glob("*/checkpoint.pt"):
        kept = folder / f"{checkpoint.stat().st_mtime_ns}.pt"
        if not kept.exists():
            os.link(checkpoint, kept)


def train_all(planned: list[Planned], workers: int) -> None:
    """Bring all runs to their ends, that many at a time. Raises as `train` does."""
    waiting = deque(planned)
    running = []
    bar = tqdm(total=len(planned), disable=not sys.stdout.isatty())
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(train(waiting.popleft()))
            for steps in [*running]:
                if next(steps, "ended") == "ended":
                    running.remove(steps)
                    bar.update()
            time.sleep(0.02)
    finally:
        for steps in running:
            steps.close()
        bar.close()


# Measuring
def measure_all(
    planned: list[Planned], script: ModuleType, args: Args, flags: list[str]
) -> Measured:
    """Look at all checkpoints that were kept. Raises Damaged if one cannot be read."""
    rows = []
    history = {}
    for run in sorted(planned, key=lambda run: run.folder):
        checkpoints = load_checkpoints(run.folder)
        states = label_states(script, checkpoints[-1])
        run_args = checkpoints[0]["args"]
        keys = {
            "env_id": args.env_id,
            "script": args.script,
            "flags": shlex.join(flags),
            "labels": states.source,
            "etf_head": run_args["etf_head"],
            "seed": run_args["seed"],
        }
        looks = []
        for checkpoint in checkpoints:
            agent = restore(script, checkpoint, tuple(states.obs.shape[1:]))
            seen, measures = measure(script, agent, states)
            step = checkpoint["global_step"]
            rows.append(keys | {"global_step": step} | measures)
            looks.append((step, seen))
        if keys["seed"] == 1:
            history[str(keys["etf_head"])] = looks
    in_order = {head: history[head] for head in HEADS}
    return Measured(rows, in_order, states.names, states.cells)


def write_measures(rows: list[dict], path: Path) -> None:
    """Numbers have six digits."""
    columns = dict.fromkeys(key for row in rows for key in row)
    with replacing(path) as file:
        writer = csv.DictWriter(file, [*columns], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: rounded(value) for key, value in row.items()})


def rounded(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def draw(measured: Measured, out: Path) -> None:
    """All pictures, and the page."""
    first = measured.rows[0]
    task = first["env_id"].split(":")[-1]
    title = f"{task}, seed 1; label: {LABELS[first['labels']]}"
    last = {head: looks[-1][1] for head, looks in measured.history.items()}
    draw_measures(measured.rows, out / "measures.png")
    draw_cosines(last, measured.names, title, out / "cosines.png")
    draw_projection(last, measured.names, title, out / "projection.png")
    animate(measured.history, measured.names, title, out / "projection.gif")
    write_page(*measured, out / "page.html")


def table(rows: list[dict]) -> str:
    """Markdown: medians over the seeds of what untrained and trained agents show, and how many agree
    with every label."""
    columns = [column for column in PANELS if column != "agreement"]
    header = ["head", "greedy action = label everywhere", *columns]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for head, (name, _) in HEADS.items():
        mine = [row for row in rows if str(row["etf_head"]) == head]
        seeds = [[*run] for _, run in itertools.groupby(mine, key=lambda row: row["seed"])]
        for moment, k in (("untrained", 0), ("trained", -1)):
            chosen = [run[k] for run in seeds]
            agreeing = sum(row["agreement"] == 1 for row in chosen)
            cells = [f"{name}, {moment}", f"{agreeing} of {len(chosen)}"]
            cells += [median_cell(chosen, column) for column in columns]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def median_cell(rows: list[dict], column: str) -> str:
    """The median of a measure, and of how many rows where it is not in all; or why it is in none."""
    values = [row[column] for row in rows if column in row]
    if not values:
        return why_missing(column, rows)
    some = f" (of {len(values)})" if len(values) < len(rows) else ""
    return f"{np.median(values):.2g}{some}"


def main(args: Args, flags: list[str]) -> None:
    check_flags(args, flags)
    script = load(f"{args.script}.py")  # only a script can rebuild its agents
    planned = plan(args, flags)
    for run in planned[:2]:  # both heads
        check_command(script, run.command)
    torch.set_num_threads(1)
    folder = planned[0].folder.parent
    try:
        with claimed("out", args.out, FILES), claimed("runs", folder):
            say(f"{len(planned)} runs in {folder}", sys.stdout)
            train_all(planned, args.workers)
            measured = measure_all(planned, script, args, flags)
            write_measures(measured.rows, args.out / "measures.csv")
            draw(measured, args.out)
    except KeyboardInterrupt:
        say("stopped; the same command goes on", sys.stderr)
        sys.exit(130)
    except subprocess.CalledProcessError as error:
        command = shlex.join(error.cmd)
        say(f"{error.stderr}\nexit code {error.returncode}: {command}", sys.stderr)
        sys.exit(2 if error.returncode == 2 else 1)
    except Damaged as error:
        fail("runs", args.runs, f"{error}; remove its directory to train that run again")
    except OSError as error:
        sys.exit(f"error: {error}; the same command goes on")
    source = LABELS[measured.rows[0]["labels"]]
    say(f"labels: {source}\n{table(measured.rows)}", sys.stdout)


if __name__ == "__main__":
    main(*tyro.cli(Args, return_unknown_args=True))
