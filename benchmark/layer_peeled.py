"""Theorem 1 of arXiv 2509.02737 as an experiment, with minority collapse (Fang et al. 2021, arXiv 2101.12699) beside it.

    python -m benchmark.layer_peeled --out benchmark/results/layer_peeled

In the layer-peeled model the network before the head is so strong that the activation h of every state is a free variable in
the ball |h|^2 <= E_H. What remains is to minimise the mean over states of the cross-entropy -log softmax(W h)_k with the
state's optimal action k. Half of the K actions are optimal in R times as many states as the other half.

Frozen head: W is a simplex ETF with rows of norm sqrt(E_W). The problem falls apart into one problem per state that does not
know how many other states there are, so R cannot matter. Each is convex; projected gradient descent has to find the theorem's
h = sqrt(E_H / E_W) w_k, and so inner products sqrt(E_H E_W) (K / (K - 1) [k = j] - 1 / (K - 1)).
Learned head: W is free too, with mean |w_k|^2 <= E_W. The frequent actions take the room of the rare ones, whose rows approach
one another.

Columns of theorem.csv: num_actions, ratio, error (largest deviation of an inner product from the theorem's). Of angles.csv:
num_actions, ratio, head, seed, angle (smallest between two rows of the rarer actions, in degrees). angles.png draws them;
frames.png the simplex ETFs of two, three and four actions.
"""

import csv
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
import tyro
from torch import Tensor

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmark.collapse.pictures import VIEWS, simplex_coordinates

COLOURS = {4: "#0072B2", 6: "#E69F00", 8: "#009E73"}  # Okabe & Ito's


@dataclass
class Args:
    out: Path  # directory to write theorem.csv, angles.csv, angles.png and frames.png to
    theorem_actions: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)  # K of the theorem's check
    theorem_ratios: tuple[int, ...] = (1, 10, 100)  # R of the theorem's check
    angle_ratios: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # R of the figure
    seeds: int = 3  # random starts of the learned head
    feature_dim: int = 16  # d
    sqrt_e_h: float = 2.0  # sqrt(E_H)
    sqrt_e_w: float = 2.0  # sqrt(E_W)


def simplex_etf(num_actions: int) -> Tensor:
    """Rows of norm 1 with pairwise cosine -1 / (K - 1), (K, K), float64 (arXiv 2509.02737, Eq. 3)."""
    K = num_actions
    return math.sqrt(K / (K - 1)) * (torch.eye(K, dtype=torch.float64) - 1 / K)


def state_labels(num_actions: int, ratio: int) -> Tensor:
    """Optimal actions of the states: `ratio` states for each of the first half of the actions, one for each of the others."""
    counts = [ratio if k < num_actions / 2 else 1 for k in range(num_actions)]
    return torch.arange(num_actions).repeat_interleave(torch.tensor(counts))


def project(x: Tensor, radius: float) -> Tensor:
    """Rows of x (rows, d) moved to the nearest point of the ball."""
    return x * (radius / x.norm(dim=1, keepdim=True).clamp_min(radius))


def solve_frozen(
    weight: Tensor, labels: Tensor, radius: float, generator: torch.Generator
) -> Tensor:
    """Activations (states, d) that minimise the loss for the head's rows `weight` (K, d), by projected gradient descent. Where
    the loss is flat its curvature shrinks with its gradient, so the step may grow as the gradient falls."""
    h = project(
        torch.randn(len(labels), weight.shape[1], generator=generator, dtype=torch.float64), radius
    )
    targets, longest = torch.nn.functional.one_hot(labels, len(weight)), weight.norm(dim=1).max()
    for _ in range(10_000):
        gradient = ((h @ weight.T).softmax(dim=1) - targets) @ weight
        moved = project(h - gradient / (2 * longest * gradient.norm(dim=1, keepdim=True)), radius)
        change, h = (moved - h).abs().max(), moved
        if change < 1e-12:
            return h
    raise RuntimeError(f"no convergence: the last step changed an activation by {change:.1g}")


def solve_learned(num_actions: int, ratio: int, args: Args, generator: torch.Generator) -> Tensor:
    """Rows (K, d) of a head learned together with the activations. States of an action share their activation, as for any W
    the best one is unique. Both constraints are active at the optimum, so the variables are directions, and L-BFGS needs no
    projection."""
    shape, counts = (
        (num_actions, args.feature_dim),
        torch.bincount(state_labels(num_actions, ratio)),
    )
    raw = [
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(2)
    ]
    shares, actions = counts / counts.sum(), torch.arange(num_actions)

    def head_and_activations() -> tuple[Tensor, Tensor]:
        weight, h = raw
        weight = args.sqrt_e_w * math.sqrt(num_actions) * weight / weight.norm()
        return weight, args.sqrt_e_h * h / h.norm(dim=1, keepdim=True)

    def closure() -> Tensor:
        optimizer.zero_grad()
        weight, h = head_and_activations()
        loss = (
            torch.nn.functional.cross_entropy(h @ weight.T, actions, reduction="none")
            @ shares.double()
        )
        loss.backward()
        return loss

    optimizer = torch.optim.LBFGS(
        raw,
        max_iter=2_000,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )
    optimizer.step(closure)
    return head_and_activations()[0].detach()


def smallest_minority_angle(weight: Tensor) -> float:
    """Smallest angle in degrees between two of the rows of the rarer actions, the second half of weight (K, d)."""
    rows = torch.nn.functional.normalize(weight[math.ceil(len(weight) / 2) :])
    cosines = (rows @ rows.T)[*torch.triu_indices(len(rows), len(rows), offset=1)]
    return math.degrees(math.acos(min(1.0, cosines.max().item())))


def theorem_error(num_actions: int, ratio: int, args: Args) -> float:
    """Largest deviation of h_s . w_j from the theorem's value, for a frozen head and activations from a random start."""
    weight, labels = args.sqrt_e_w * simplex_etf(num_actions), state_labels(num_actions, ratio)
    h = solve_frozen(weight, labels, args.sqrt_e_h, torch.Generator().manual_seed(0))
    K, scale = num_actions, args.sqrt_e_h * args.sqrt_e_w
    expected = scale * (K / (K - 1) * torch.nn.functional.one_hot(labels, K).double() - 1 / (K - 1))
    return (h @ weight.T - expected).abs().max().item()


def draw(rows: list[dict], out: Path) -> None:
    """Minority angle against R, for both heads."""
    figure, axis = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for num_actions in dict.fromkeys(row["num_actions"] for row in rows):
        for head, style in (("frozen", "--"), ("learned", "-")):
            points = [
                (row["ratio"], row["angle"])
                for row in rows
                if (row["num_actions"], row["head"]) == (num_actions, head)
            ]
            ratios = sorted({ratio for ratio, _ in points})
            medians = [
                np.median([angle for ratio, angle in points if ratio == at]) for at in ratios
            ]
            label = f"K = {num_actions}, {'frozen ETF' if head == 'frozen' else 'learned head'}"
            axis.plot(
                ratios,
                medians,
                style,
                color=COLOURS[num_actions],
                marker="o" if head == "learned" else None,
                label=label,
            )
    axis.set(
        xscale="log",
        xlabel="imbalance ratio R (states per frequent action / states per rare action)",
    )
    axis.set(ylabel="smallest angle between\nrows of rare actions (degrees)", ylim=(0, None))
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
    figure.savefig(out, dpi=140)


def draw_frames(out: Path) -> None:
    """The simplex ETFs of 2, 3 and 4 actions in the K - 1 dimensions that they need."""
    figure = plt.figure(figsize=(9, 3.2), layout="constrained")
    for k, num_actions in enumerate((2, 3, 4)):
        rows = simplex_etf(num_actions)
        corners = torch.nn.functional.pad(
            rows @ simplex_coordinates(rows), (0, max(0, 3 - num_actions))
        ).numpy()
        axis = figure.add_subplot(1, 3, k + 1, projection="3d" if num_actions == 4 else None)
        for a, b in itertools.combinations(corners, 2):
            axis.plot(*zip(a, b), color="grey", linewidth=0.7)
        for row, colour in zip(corners, ("#0072B2", "#D55E00", "#009E73", "#CC79A7")):
            axis.plot(*zip(0 * row, row), color=colour, linewidth=2.5, marker="o", markevery=[1])
        cosine = -1 / (num_actions - 1)
        axis.set_title(
            f"K = {num_actions}: cosine {cosine:.3g}, {math.degrees(math.acos(cosine)):.1f} degrees",
            fontsize=10,
        )
        axis.set_axis_off()
        axis.set(**{f"{dimension}lim": (-1.1, 1.1) for dimension in "xyz"[: corners.shape[1]]})
        axis.set_aspect("equal")
        if num_actions == 4:
            axis.view_init(*VIEWS[0])
            axis.set_box_aspect((1, 1, 1), zoom=1.3)
    figure.savefig(out, dpi=120)
    plt.close(figure)


def main(args: Args) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    theorem = [
        {"num_actions": K, "ratio": ratio, "error": f"{theorem_error(K, ratio, args):.3g}"}
        for K in args.theorem_actions
        for ratio in args.theorem_ratios
    ]
    print(f"largest error of an inner product: {max(float(row['error']) for row in theorem):.2g}")
    angles = []
    for K in COLOURS:
        for ratio in args.angle_ratios:
            angles.append({"num_actions": K, "ratio": ratio, "head": "frozen", "seed": 0})
            angles[-1]["angle"] = smallest_minority_angle(simplex_etf(K))
            for seed in range(args.seeds):
                weight = solve_learned(K, ratio, args, torch.Generator().manual_seed(seed))
                angles.append({"num_actions": K, "ratio": ratio, "head": "learned", "seed": seed})
                angles[-1]["angle"] = smallest_minority_angle(weight)
            print(f"K = {K}, R = {ratio}: learned {angles[-1]['angle']:.1f} degrees", flush=True)
    draw(angles, args.out / "angles.png")
    draw_frames(args.out / "frames.png")
    angles = [row | {"angle": f"{row['angle']:.4f}"} for row in angles]
    for name, rows in (("theorem.csv", theorem), ("angles.csv", angles)):
        with open(args.out / name, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main(tyro.cli(Args))
