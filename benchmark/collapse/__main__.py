"""Action collapse over training, measured and drawn.

    python -m benchmark.collapse --out collapse --feature-norm 2 --total-timesteps 200000

Trains a script with the learned head and with the frozen simplex ETF, the same flags for both (those that this program does
not know go to the script), and keeps the checkpoints on the way. These agents, and the untrained one (step 0), are then shown
the same states, labelled

* by their optimal action, where the environment tells it, as IdealCliffWalking-v0 does: by `optimal_action(state)` for each of
  its `CELLS` (flattened), by `ACTIONS`, their names, and by `label(action)`, as actions that mean the same share a label;
* else by the greedy action of the run's trained agent, on 2,000 states that this agent meets; agreement with these labels is
  1 for it by construction.

What is written says which. Runs stay below --runs; the same command again trains only those that were not finished.

Columns of measures.csv, a row per run and checkpoint: env_id, script, flags, labels ("optimal" or "greedy"), etf_head, seed,
global_step, agreement (share of the states whose greedy action has the state's label), trace_ratio (Tr Sigma_W / Tr Sigma_B),
and the `collapse/*` of the scripts without the prefix, centred on the mean of the means; empty where undefined or trivial.
The trace ratio is there because within_variability, Tr(Sigma_W pinv(Sigma_B)) / K', sees nothing outside the span of the mean
activations: it is small for an untrained network whose states are orthogonal to each other.

Pictures: measures.png (medians over seeds; thin: seeds), and of the first seed cosines.png (the head's rows and the mean
activations at the end), projection.png and projection.gif (activations in the space that the head's rows span, turned so
that the rows are nearest a fixed simplex).
"""

import csv
import hashlib
import itertools
import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, NamedTuple

import gymnasium as gym
import matplotlib
import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.lines import Line2D

from benchmark.algorithms import ALGORITHMS
from benchmark.collate import fail
from benchmark.readme.figure import HEADS

PANELS = {
    "agreement": "share of states whose\ngreedy action is the label",
    "within_variability": "within-action variability",
    "trace_ratio": "variance within actions /\nvariance between them",
    "self_duality": "distance between rows\nand mean activations",
    "means_equinorm": "mean activations: equinorm",
    "means_equiangularity": "mean activations:\nequiangularity",
    "means_maximal_angle": "mean activations:\nmaximal angle",
    "head_maximal_angle": "rows of the head:\nmaximal angle",
}
COLOURS = [
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#F0E442",
    "#000000",
]  # Okabe & Ito
MARKERS = "osD^vP*X"  # a second cue beside colour
CORNER = {
    "linestyle": "",
    "marker": "o",
    "markerfacecolor": "none",
    "markeredgecolor": "black",
    "zorder": 5,
}
LABELS = {"optimal": "optimal action", "greedy": "greedy action of the trained agent"}
VIEWS = ((20, 60), (70, 60))  # elevation and azimuth in degrees
NUM_STATES = 2000  # where the labels are greedy actions
OWN_FLAGS = {"--seed", "--etf-head", "--no-etf-head", "--runs-dir", "--resume"}


@dataclass
class Args:
    out: Path  # directory to write measures.csv and the pictures to
    env_id: str = "benchmark.envs:IdealCliffWalking-v0"  # any that the script can run
    script: Literal[*ALGORITHMS] = "ppo_acpg"
    seeds: int = 10  # runs of each head
    checkpoint_every: int = 4  # the script's own iterations between two looks at a run (take more for A2C's, of 40 steps)
    runs: Path = Path("runs/collapse")  # where the runs are made and kept
    workers: int = 2  # runs at a time


class States(NamedTuple):
    obs: Tensor  # (states, *observation), as the script's network takes them
    labels: Tensor  # (states,)
    meaning: Tensor  # (K,): the label that each action stands for
    names: tuple[str, ...]  # of the K actions
    source: str  # of the labels: "optimal" or "greedy"


class Look(NamedTuple):
    features: Tensor  # (states, d): activations
    labels: Tensor  # (states,)
    weight: Tensor  # (K, d): the head's rows


def load_script(name: str) -> SimpleNamespace:
    """The definitions of a script. Only it can rebuild its agents, so it is run for them, without training."""
    return SimpleNamespace(**runpy.run_path(f"{name}.py"))


def train(command: list[str], folder: Path) -> None:
    """Run a script to its end and keep those of its checkpoints that are seen in time in `folder`, unless that was done
    before. Raises CalledProcessError with the end of its log if it fails."""
    if (folder / "done").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [*command, "--runs-dir", str(folder)], stdout=log, stderr=subprocess.STDOUT
        )
    kept, running = 0, True
    try:
        while running:
            running = process.poll() is None
            for checkpoint in folder.glob("*/checkpoint.pt"):
                if (changed := checkpoint.stat().st_mtime_ns) != kept:
                    os.link(checkpoint, folder / f"{changed}.pt")
                    kept = changed
            time.sleep(0.02)
    finally:
        process.kill()
    if process.returncode:
        raise subprocess.CalledProcessError(
            process.returncode, command, stderr=(folder / "log").read_text()[-2000:]
        )
    (folder / "done").touch()


def load_checkpoints(folder: Path) -> list[dict]:
    """What `train` kept, in order, after an untrained agent. All were written whole, as scripts rename them into place."""
    rows = {}
    for path in folder.glob("*.pt"):
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        rows[state["global_step"]] = {key: state[key] for key in ("args", "global_step", "agent")}
    num_actions = len(state["agent"]["head.weight"])
    trained = sorted(rows.values(), key=lambda row: row["global_step"])
    return [
        row | {"num_actions": num_actions}
        for row in ({"args": state["args"], "global_step": 0}, *trained)
    ]


def restore(script: SimpleNamespace, checkpoint: dict, shape: tuple[int, ...]) -> torch.nn.Module:
    """A saved agent for observations of `shape`; the untrained one, as the script draws it, if its checkpoint holds none."""
    args = script.Args(**checkpoint["args"])
    torch.manual_seed(args.seed)
    agent = script.Agent(shape, checkpoint["num_actions"], args).requires_grad_(False)
    if "agent" in checkpoint:
        agent.load_state_dict(checkpoint["agent"])
    return agent


def label_states(script: SimpleNamespace, checkpoint: dict) -> States:
    """The states to look at, with labels, as the module's docstring says; `checkpoint` is the trained agent's."""
    args, num_actions = checkpoint["args"], checkpoint["num_actions"]
    try:
        walk = gym.make(args["env_id"]).unwrapped
    except gym.error.Error:  # envpool's tasks exist as vector environments only
        walk = None
    if hasattr(walk, "optimal_action"):
        obs = torch.from_numpy(
            np.stack([gym.spaces.flatten(walk.observation_space, cell) for cell in walk.CELLS])
        )
        labels = torch.tensor([walk.optimal_action(cell) for cell in walk.CELLS])
        meaning = torch.tensor([walk.label(action) for action in range(num_actions)])
        return States(obs, labels, meaning, walk.ACTIONS[:num_actions], "optimal")
    envs = script.make_envs(args["env_id"], 1)
    agent, generator = (
        restore(script, checkpoint, envs.single_observation_space.shape),
        torch.Generator(),
    )
    (obs, _), ended, frames = envs.reset(seed=args["seed"]), False, []
    while len(frames) < NUM_STATES:
        frame = torch.from_numpy(obs.copy())
        if not ended:  # else nothing is decided there, and the next step only resets
            frames.append(frame)
        action = torch.multinomial(
            agent(frame)[1].softmax(dim=1)[0], 1, generator=generator
        ).numpy()
        obs, _, terminated, truncated, _ = envs.step(action + envs.single_action_space.start)
        ended = bool(terminated[0] | truncated[0])
    envs.close()
    obs, names = torch.cat(frames), tuple(str(action) for action in range(num_actions))
    return States(obs, agent(obs)[1].argmax(dim=1), torch.arange(num_actions), names, "greedy")


def split(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In float64: the mean (d,) of the mean activations of the labels that occur, these means (K', d) less that mean, and the
    activations (states, d) less their label's."""
    names, index = labels.unique(return_inverse=True)
    means = torch.stack([features[index == k].double().mean(dim=0) for k in range(len(names))])
    return means.mean(dim=0), means - means.mean(dim=0), features.double() - means[index]


def measure(
    script: SimpleNamespace, agent: torch.nn.Module, states: States
) -> tuple[Look, dict[str, float]]:
    """What an agent makes of the states, and the measures of measures.csv."""
    features, logits, *_ = agent(states.obs)
    _, means, deviations = split(features, states.labels)
    row = {
        "agreement": (states.meaning[logits.argmax(dim=1)] == states.labels).double().mean().item()
    }
    row |= script.collapse_metrics(features, states.labels, agent.head.weight, "actions")
    if "within_variability" in row:
        row["trace_ratio"] = (
            deviations.square().sum(dim=1).mean() / means.square().sum(dim=1).mean()
        ).item()
    return Look(features, states.labels, agent.head.weight), row


def simplex_coordinates(weight: Tensor) -> Tensor:
    """Orthonormal basis (d, K - 1) of the space of the head's centred rows, in which they are nearest a fixed simplex: for a
    frame they are its vertices (orthogonal Procrustes problem)."""
    K = len(weight)
    basis = torch.linalg.qr(torch.cat([torch.ones(K, 1), torch.eye(K, K - 1)], dim=1).double()).Q[
        :, 1:
    ]
    U, _, Vh = torch.linalg.svd(
        (weight - weight.mean(dim=0)).double().T @ basis, full_matrices=False
    )
    return U @ Vh


def best_view(seen: Look) -> Tensor:
    """(K - 1, D): what to show of the coordinates that `simplex_coordinates` gives. All; but where these are more than three,
    the three directions in which the mean activations differ most; and for K = 2 a second one that is always 0."""
    dimensions = len(seen.weight) - 1
    if dimensions <= 3:
        return torch.eye(dimensions, max(2, dimensions), dtype=torch.float64)
    means = split(seen.features, seen.labels)[1] @ simplex_coordinates(seen.weight)
    return torch.linalg.svd(means).Vh[:3].T


def project(seen: Look, view: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Centred activations (states, D), and the directions of the head's centred rows (K, D) at the mean length of the mean
    activations, both in the space of these rows, as `view` (K - 1, D) shows it."""
    centre, means, _ = split(seen.features, seen.labels)
    basis = simplex_coordinates(seen.weight)
    rows = torch.nn.functional.normalize(
        (seen.weight - seen.weight.mean(dim=0)).double() @ basis, dim=1
    )
    corners = rows * (means @ basis).norm(dim=1).mean()
    return ((seen.features - centre) @ basis @ view).numpy(), (corners @ view).numpy()


def extent(looks: list[Look], view: Tensor) -> float:
    """How far from the origin a picture of these has to reach."""
    return 1.1 * max(abs(points).max() for seen in looks for points in project(seen, view))


def why_missing(column: str, rows: list[dict]) -> str:
    """Why a measure is in none of these rows."""
    trivial = column.startswith("means_") and {row["actions_seen"] for row in rows} == {2}
    return "trivial for two actions" if trivial else "undefined"


def draw_measures(rows: list[dict], out: Path) -> None:
    """Every measure over training, a colour per head: the median over seeds, thick, and the seeds, thin."""
    figure, axes = plt.subplots(2, 4, figsize=(12, 5.6), layout="constrained", sharex=True)
    grid = np.linspace(0, max(row["global_step"] for row in rows), 101)
    for axis, (column, title) in zip(axes.flat, PANELS.items()):
        for head, (name, colour) in HEADS.items():
            curves = []
            mine = (row for row in rows if str(row["etf_head"]) == head)
            for _, run in itertools.groupby(mine, key=lambda row: row["seed"]):
                points = [(row["global_step"], row[column]) for row in run if column in row]
                curves += [np.interp(grid, *zip(*points), left=np.nan)] if points else []
            if curves:
                axis.plot(
                    grid / 1000, np.transpose(curves), color=colour, linewidth=0.6, alpha=0.35
                )
                thick = {
                    "color": colour,
                    "linewidth": 2.2,
                    "label": f"{name}, seeds: {len(curves)}",
                }
                axis.plot(grid / 1000, np.nanmedian(curves, axis=0), **thick)
        if not axis.lines:
            axis.text(0.5, 0.5, why_missing(column, rows), ha="center", transform=axis.transAxes)
        axis.axhline(
            float(column == "agreement"), color="black", linestyle="--", linewidth=1, label="ideal"
        )
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.25)
        if column == "agreement":
            axis.set_ylim(0, 1.05)
        else:
            axis.set_yscale("symlog", linthresh=0.01, linscale=0.5)
            axis.set_ylim(bottom=-0.001)
    axes[0, 0].legend(fontsize=8, loc="lower right")
    for axis in axes[1]:
        axis.set_xlabel("environment steps (thousands)")
    figure.suptitle(
        f"{rows[0]['env_id'].split(':')[-1]}; label: {LABELS[rows[0]['labels']]}", fontsize=11
    )
    figure.savefig(out, dpi=120)
    plt.close(figure)


def draw_cosines(looks: dict[str, Look], names: tuple[str, ...], title: str, out: Path) -> None:
    """Pairwise cosines of the head's rows, and of the centred mean activations; `looks` gives a head's activations, labels and
    rows."""
    figure, axes = plt.subplots(2, 2, figsize=(7.4, 7), layout="constrained")
    for (head, seen), pair in zip(looks.items(), axes):
        matrices = {
            "rows of the head": seen.weight,
            "mean activations": split(seen.features, seen.labels)[1],
        }
        for axis, (name, vectors) in zip(pair, matrices.items()):
            unit = torch.nn.functional.normalize(vectors, dim=1)
            cosines = (unit @ unit.T).numpy()
            image = axis.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1)
            trivial = (
                ", trivial for two" if len(vectors) == 2 and vectors is not seen.weight else ""
            )
            ideal = f"\n(ideal {-1 / (len(vectors) - 1):.2f}{trivial})" if len(vectors) > 1 else ""
            axis.set_title(f"{HEADS[head][0]}: {name}{ideal}", fontsize=10)
            ticks = (
                names
                if len(vectors) == len(names)
                else [names[label] for label in seen.labels.unique().tolist()]
            )
            axis.set_xticks(range(len(ticks)), ticks)
            axis.set_yticks(range(len(ticks)), ticks)
            if len(vectors) <= 8:
                for (i, j), cosine in np.ndenumerate(cosines):
                    axis.text(
                        j,
                        i,
                        f"{cosine:.2f}",
                        ha="center",
                        va="center",
                        color="white" if abs(cosine) > 0.6 else "black",
                    )
    figure.colorbar(image, ax=axes, label="cosine", shrink=0.6)
    figure.suptitle(title, fontsize=11)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def style(label: int) -> dict:
    """Colour and marker of a label."""
    return {
        "color": COLOURS[label % 8],
        "marker": MARKERS[(label + label // 8) % 8],
        "linestyle": "",
    }


def draw_space(axis: plt.Axes, seen: Look, view: Tensor, limit: float) -> None:
    """Activations as points, and the head's rows as corners."""
    points, corners = project(seen, view)
    for a, b in itertools.combinations(corners, 2):
        axis.plot(*zip(a, b), color="grey", linewidth=0.7, alpha=0.7)
    axis.plot(*corners.T, markersize=11, **CORNER)
    for label in seen.labels.unique().tolist():
        axis.plot(
            *points[seen.labels == label].T, markersize=6 if len(points) < 50 else 2, **style(label)
        )
    for dimension in "xyz"[: points.shape[1]]:
        axis.set(
            **{
                f"{dimension}lim": (-limit, limit),
                f"{dimension}label": f"coordinate {'xyz'.index(dimension) + 1}",
            }
        )
        axis.locator_params(axis=dimension, nbins=5)
    axis.tick_params(labelsize=7)
    axis.set_aspect("equal")
    if points.shape[1] == 3:
        axis.set_box_aspect((1, 1, 1), zoom=0.9)


def add_axes(
    figure: plt.Figure, heads: list[str], rows: int, dimensions: int
) -> dict[str, list[plt.Axes]]:
    """A column of axes for each head; of three dimensions, each row shows another side."""
    axes = {head: [] for head in heads}
    for k, (row, head) in enumerate(itertools.product(range(rows), heads)):
        axes[head].append(
            figure.add_subplot(
                rows, len(heads), k + 1, projection="3d" if dimensions == 3 else None
            )
        )
        if dimensions == 3:
            axes[head][-1].view_init(*VIEWS[row])
    return axes


def add_legend(figure: plt.Figure, looks: list[Look], names: tuple[str, ...]) -> None:
    """Every label that occurs in one of the looks, and what the corners are, below all axes."""
    labels = sorted({label for seen in looks for label in seen.labels.tolist()})
    handles = [Line2D([], [], label=names[label], **style(label)) for label in labels]
    handles += [Line2D([], [], label="rows of the head, scaled", **CORNER)]
    figure.legend(
        handles=handles,
        title="label",
        loc="outside lower center",
        ncols=min(len(handles), 7),
        fontsize=9,
    )


def draw_projection(looks: dict[str, Look], names: tuple[str, ...], title: str, out: Path) -> None:
    """The trained agents' activations, seen from two sides if they need three dimensions."""
    views = {head: best_view(seen) for head, seen in looks.items()}
    limit = max(extent([seen], views[head]) for head, seen in looks.items())
    dimensions = next(iter(views.values())).shape[1]
    rows = 2 if dimensions == 3 else 1
    figure = plt.figure(figsize=(9, 4.3 * rows + 0.4), layout="constrained")
    for head, axes in add_axes(figure, [*looks], rows, dimensions).items():
        for axis in axes:
            draw_space(axis, looks[head], views[head], limit)
        axes[0].set_title(HEADS[head][0], fontsize=11)
    add_legend(figure, [*looks.values()], names)
    figure.suptitle(title, fontsize=11)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def animate(
    history: dict[str, list[tuple[int, Look]]], names: tuple[str, ...], title: str, out: Path
) -> None:
    """The same over training; `history` gives each head's looks with their steps. Most frames show the beginning."""
    views = {head: best_view(looks[-1][1]) for head, looks in history.items()}
    limit = max(extent([seen for _, seen in looks], views[head]) for head, looks in history.items())
    dimensions = next(iter(views.values())).shape[1]
    ends = [looks[k][0] for looks in history.values() for k in (1, -1)]
    steps = [0, *np.geomspace(min(ends), max(ends), 40)]
    figure = plt.figure(figsize=(8, 4.9), layout="constrained")
    axes = add_axes(figure, [*history], 1, dimensions)

    def show(frame: int) -> None:
        for head, (axis,) in axes.items():
            step, seen = min(history[head], key=lambda looked: abs(looked[0] - steps[frame]))
            axis.clear()
            draw_space(axis, seen, views[head], limit)
            axis.set_title(f"{HEADS[head][0]}, step {step:,}", fontsize=10)
            if dimensions == 3:
                axis.view_init(VIEWS[0][0], VIEWS[0][1] + 2 * frame - 40)

    add_legend(figure, [looks[-1][1] for looks in history.values()], names)
    figure.suptitle(title, fontsize=11)
    FuncAnimation(figure, show, frames=len(steps)).save(out, writer=PillowWriter(fps=6), dpi=70)
    plt.close(figure)


def table(rows: list[dict]) -> str:
    """Markdown: medians over the seeds of what untrained and trained agents show, and how many agree with every label."""
    columns = [*PANELS][1:]
    lines = [
        f"| head | greedy action = label everywhere | {' | '.join(columns)} |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for (head, (name, _)), (moment, k) in itertools.product(
        HEADS.items(), (("untrained", 0), ("trained", -1))
    ):
        mine = [row for row in rows if str(row["etf_head"]) == head]
        chosen = [list(run)[k] for _, run in itertools.groupby(mine, key=lambda row: row["seed"])]
        cells = [
            f"{name}, {moment}",
            f"{sum(row['agreement'] == 1 for row in chosen)} of {len(chosen)}",
        ]
        for column in columns:
            values = [row[column] for row in chosen if column in row]
            some = f" (of {len(values)})" if len(values) < len(chosen) else ""
            cells.append(
                f"{np.median(values):.2g}{some}" if values else why_missing(column, chosen)
            )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def commands(args: Args, flags: list[str]) -> Iterator[tuple[list[str], Path]]:
    """The command and the folder of each run. The folder's name tells its flags apart from others'."""
    flags = ["--env-id", args.env_id, "--checkpoint-every", str(args.checkpoint_every), *flags]
    digest = hashlib.sha1(json.dumps(flags).encode()).hexdigest()[:8]
    name = "".join(c if c.isalnum() else "-" for c in args.env_id)
    for seed, head in itertools.product(range(1, args.seeds + 1), ("no-etf-head", "etf-head")):
        command = [sys.executable, f"{args.script}.py", f"--{head}", "--seed", str(seed), *flags]
        yield command, args.runs / f"{name}-{args.script}-{digest}" / f"{head}-{seed}"


def main(args: Args, flags: list[str]) -> None:
    for flag in ("seeds", "checkpoint_every", "workers"):
        if getattr(args, flag) < 1:
            fail(flag.replace("_", "-"), getattr(args, flag), "must be at least 1")
    for flag in flags:
        if (name := flag.split("=")[0].replace("_", "-")) in OWN_FLAGS:
            fail(name[2:], "", "is for benchmark.collapse to set")
    planned = [*commands(args, flags)]
    print(f"{len(planned)} runs in {planned[0][1].parent}", flush=True)
    try:
        with ThreadPoolExecutor(args.workers) as pool:
            for _ in tqdm(
                pool.map(lambda run: train(*run), planned),
                total=len(planned),
                disable=not sys.stdout.isatty(),
            ):
                pass
    except subprocess.CalledProcessError as error:
        print(
            f"{error.stderr}\nexit code {error.returncode}: {shlex.join(error.cmd)}",
            file=sys.stderr,
        )
        sys.exit(2 if error.returncode == 2 else 1)

    script, rows, history = load_script(args.script), [], {}
    torch.set_num_threads(1)
    for _, folder in sorted(planned, key=lambda run: run[1]):
        checkpoints = load_checkpoints(folder)
        states, run_args = label_states(script, checkpoints[-1]), checkpoints[0]["args"]
        run = {
            "env_id": args.env_id,
            "script": args.script,
            "flags": shlex.join(flags),
            "labels": states.source,
        }
        run |= {"etf_head": run_args["etf_head"], "seed": run_args["seed"]}
        looks = []
        for checkpoint in checkpoints:
            seen, measures = measure(
                script, restore(script, checkpoint, tuple(states.obs.shape[1:])), states
            )
            rows.append(run | {"global_step": checkpoint["global_step"]} | measures)
            looks.append((checkpoint["global_step"], seen))
        if run["seed"] == 1:
            history[str(run["etf_head"])] = looks
    history = {head: history[head] for head in HEADS}
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "measures.csv", "w", newline="") as file:
        writer = csv.DictWriter(
            file, [*dict.fromkeys(key for row in rows for key in row)], lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(
            {key: f"{x:.6g}" if isinstance(x, float) else x for key, x in row.items()}
            for row in rows
        )
    title = f"{args.env_id.split(':')[-1]}, seed 1; label: {LABELS[rows[0]['labels']]}"
    last = {head: looks[-1][1] for head, looks in history.items()}
    draw_measures(rows, args.out / "measures.png")
    draw_cosines(last, states.names, title, args.out / "cosines.png")
    draw_projection(last, states.names, title, args.out / "projection.png")
    animate(history, states.names, title, args.out / "projection.gif")
    print(f"labels: {LABELS[rows[0]['labels']]}\n{table(rows)}")


if __name__ == "__main__":
    main(*tyro.cli(Args, return_unknown_args=True))
