"""The pictures of action collapse, and the projections that they show."""

import itertools
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch import Tensor

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.lines import Line2D

from benchmark.collapse.measures import Look, split, why_missing
from benchmark.png import png
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
COLOURS = [  # Okabe & Ito
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#F0E442",
    "#000000",
]
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


# Projections
def simplex_coordinates(weight: Tensor) -> Tensor:
    """Orthonormal basis (d, K - 1) of the space of the head's centred rows, in which they are
    nearest a fixed simplex: for a frame they are its vertices (orthogonal Procrustes problem)."""
    K = len(weight)
    ones_then_axes = torch.cat([torch.ones(K, 1), torch.eye(K, K - 1)], dim=1).double()
    simplex = torch.linalg.qr(ones_then_axes).Q[:, 1:]  # (K, K - 1)
    centred = (weight - weight.mean(dim=0)).double()
    U, _, Vh = torch.linalg.svd(centred.T @ simplex, full_matrices=False)
    return U @ Vh


def best_view(seen: Look) -> Tensor:
    """(K - 1, D): what to show of the coordinates that `simplex_coordinates` gives. All; but where
    these are more than three, the three directions in which the mean activations differ most; and
    for K = 2 a second one that is always 0."""
    dimensions = len(seen.weight) - 1
    if dimensions <= 3:
        return torch.eye(dimensions, max(2, dimensions), dtype=torch.float64)
    _, means, _ = split(seen.features, seen.labels)
    return torch.linalg.svd(means @ simplex_coordinates(seen.weight)).Vh[:3].T


def project(seen: Look, view: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Centred activations (states, D), and the directions of the head's centred rows (K, D) at the
    mean length of the mean activations, both in the space of these rows, as `view` (K - 1, D) shows
    it."""
    centre, means, _ = split(seen.features, seen.labels)
    basis = simplex_coordinates(seen.weight)
    centred = (seen.weight - seen.weight.mean(dim=0)).double()
    directions = torch.nn.functional.normalize(centred @ basis, dim=1)
    corners = directions * (means @ basis).norm(dim=1).mean()
    points = (seen.features - centre) @ basis
    return (points @ view).numpy(), (corners @ view).numpy()


def extent(looks: list[Look], view: Tensor) -> float:
    """How far from the origin a picture of these has to reach."""
    return 1.1 * max(abs(points).max() for seen in looks for points in project(seen, view))


def moments(history: dict[str, list[tuple[int, Look]]], count: int) -> list[float]:
    """Steps to show: 0 and so many more, of which most are at the beginning, where most happens."""
    ends = [looks[k][0] for looks in history.values() for k in (1, -1)]
    return [0, *np.geomspace(min(ends), max(ends), count)]


# measures.png
def draw_measures(rows: list[dict], out: Path) -> None:
    """Every measure over training, a colour per head: the median over seeds, thick, and the seeds,
    thin."""
    figure, axes = plt.subplots(2, 4, figsize=(12, 5.6), layout="constrained", sharex=True)
    for axis, (column, title) in zip(axes.flat, PANELS.items()):
        draw_measure(axis, rows, column)
        axis.set_title(title, fontsize=10)
    axes[0, 0].legend(fontsize=8, loc="lower right")
    for axis in axes[1]:
        axis.set_xlabel("environment steps (thousands)")
    task = rows[0]["env_id"].split(":")[-1]
    figure.suptitle(f"{task}; label: {LABELS[rows[0]['labels']]}", fontsize=11)
    out.write_bytes(png(figure, dpi=120))


def draw_measure(axis: plt.Axes, rows: list[dict], column: str) -> None:
    grid = np.linspace(0, max(row["global_step"] for row in rows), 101)
    thousands = grid / 1000
    for head, (name, colour) in HEADS.items():
        mine = [row for row in rows if str(row["etf_head"]) == head]
        curves = curves_of_seeds(mine, column, grid)
        if not curves:
            continue
        axis.plot(thousands, np.transpose(curves), color=colour, linewidth=0.6, alpha=0.35)
        median = np.nanmedian(curves, axis=0)
        label = f"{name}, seeds: {len(curves)}"
        axis.plot(thousands, median, color=colour, linewidth=2.2, label=label)
    if not axis.lines:
        axis.text(0.5, 0.5, why_missing(column, rows), ha="center", transform=axis.transAxes)
    ideal = 1.0 if column == "agreement" else 0.0
    axis.axhline(ideal, color="black", linestyle="--", linewidth=1, label="ideal")
    axis.grid(alpha=0.25)
    if column == "agreement":
        axis.set_ylim(0, 1.05)
    else:
        axis.set_yscale("symlog", linthresh=0.01, linscale=0.5)
        axis.set_ylim(bottom=-0.001)


def curves_of_seeds(rows: list[dict], column: str, grid: np.ndarray) -> list[np.ndarray]:
    """A measure at the steps of `grid`, NaN before its first value, for each seed where it is
    defined at all. The rows of a seed follow each other."""
    curves = []
    for _, run in itertools.groupby(rows, key=lambda row: row["seed"]):
        defined = [row for row in run if column in row]
        if defined:
            steps = [row["global_step"] for row in defined]
            values = [row[column] for row in defined]
            curves.append(np.interp(grid, steps, values, left=np.nan))
    return curves


# cosines.png
def draw_cosines(looks: dict[str, Look], names: tuple[str, ...], title: str, out: Path) -> None:
    """Pairwise cosines of the rows of each head, and of the centred mean activations."""
    figure, axes = plt.subplots(2, 2, figsize=(7.4, 7), layout="constrained")
    for (head, seen), (left, right) in zip(looks.items(), axes):
        _, means, _ = split(seen.features, seen.labels)
        seen_names = [names[label] for label in seen.labels.unique().tolist()]
        draw_matrix(left, seen.weight, names)
        image = draw_matrix(right, means, seen_names if len(means) < len(names) else names)
        note = ", trivial for two" if len(means) == 2 else ""
        left.set_title(
            f"{HEADS[head][0]}: rows of the head{ideal_cosine(seen.weight)}", fontsize=10
        )
        text = f"{HEADS[head][0]}: mean activations{ideal_cosine(means, note)}"
        right.set_title(text, fontsize=10)
    figure.colorbar(image, ax=axes, label="cosine", shrink=0.6)
    figure.suptitle(title, fontsize=11)
    out.write_bytes(png(figure, dpi=110))


def ideal_cosine(vectors: Tensor, note: str = "") -> str:
    """What the cosines of these are in a simplex; of one, nothing."""
    return f"\n(ideal {-1 / (len(vectors) - 1):.2f}{note})" if len(vectors) > 1 else ""


def draw_matrix(axis: plt.Axes, vectors: Tensor, names: tuple[str, ...] | list[str]):
    """Cosines of vectors (K, d), written into their cells if they are few. Returns the image."""
    unit = torch.nn.functional.normalize(vectors, dim=1)
    cosines = (unit @ unit.T).numpy()
    image = axis.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1)
    axis.set_xticks(range(len(names)), names)
    axis.set_yticks(range(len(names)), names)
    if len(vectors) <= 8:
        for (i, j), cosine in np.ndenumerate(cosines):
            colour = "white" if abs(cosine) > 0.6 else "black"
            axis.text(j, i, f"{cosine:.2f}", ha="center", va="center", color=colour)
    return image


# projection.png and projection.gif
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
    size = 6 if len(points) < 50 else 2
    for label in seen.labels.unique().tolist():
        axis.plot(*points[seen.labels == label].T, markersize=size, **style(label))
    dimensions = points.shape[1]
    for number, name in enumerate("xyz"[:dimensions], start=1):
        axis.set(**{f"{name}lim": (-limit, limit), f"{name}label": f"coordinate {number}"})
        axis.locator_params(axis=name, nbins=5)
    axis.tick_params(labelsize=7)
    axis.set_aspect("equal")
    if dimensions == 3:
        axis.set_box_aspect((1, 1, 1), zoom=0.9)


def add_axes(
    figure: plt.Figure, heads: list[str], rows: int, dimensions: int
) -> dict[str, list[plt.Axes]]:
    """A column of axes for each head; of three dimensions, each row shows another side."""
    projection = "3d" if dimensions == 3 else None
    axes = {head: [] for head in heads}
    for k, (row, head) in enumerate(itertools.product(range(rows), heads)):
        axis = figure.add_subplot(rows, len(heads), k + 1, projection=projection)
        axes[head].append(axis)
        if dimensions == 3:
            axis.view_init(*VIEWS[row])
    return axes


def add_legend(figure: plt.Figure, looks: list[Look], names: tuple[str, ...]) -> None:
    """Every label that occurs in one of the looks, and what the corners are, below all axes."""
    labels = sorted({label for seen in looks for label in seen.labels.tolist()})
    handles = [Line2D([], [], label=names[label], **style(label)) for label in labels]
    handles.append(Line2D([], [], label="rows of the head, scaled", **CORNER))
    columns = min(len(handles), 7)
    place = "outside lower center"
    figure.legend(handles=handles, title="label", loc=place, ncols=columns, fontsize=9)


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
    out.write_bytes(png(figure, dpi=110))


def animate(
    history: dict[str, list[tuple[int, Look]]], names: tuple[str, ...], title: str, out: Path
) -> None:
    """The same over training; `history` gives each head's looks with their steps. Most frames show
    the beginning."""
    last = {head: looks[-1][1] for head, looks in history.items()}
    views = {head: best_view(seen) for head, seen in last.items()}
    limit = max(extent([seen for _, seen in looks], views[head]) for head, looks in history.items())
    dimensions = next(iter(views.values())).shape[1]
    steps = moments(history, 40)
    figure = plt.figure(figsize=(8, 4.9), layout="constrained")
    axes = add_axes(figure, [*history], 1, dimensions)
    elevation, azimuth = VIEWS[0]

    def show(frame: int) -> None:
        for head, (axis,) in axes.items():
            step, seen = min(history[head], key=lambda looked: abs(looked[0] - steps[frame]))
            axis.clear()
            draw_space(axis, seen, views[head], limit)
            axis.set_title(f"{HEADS[head][0]}, step {step:,}", fontsize=10)
            if dimensions == 3:
                axis.view_init(elevation, azimuth + 2 * frame - 40)

    add_legend(figure, [*last.values()], names)
    figure.suptitle(title, fontsize=11)
    FuncAnimation(figure, show, frames=len(steps)).save(out, writer=PillowWriter(fps=6), dpi=70)
    plt.close(figure)
