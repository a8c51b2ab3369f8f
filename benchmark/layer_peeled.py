"""Theorem 1 of arXiv 2509.02737 as an experiment, with minority collapse (Fang et al. 2021, arXiv
2101.12699) beside it.

    python -m benchmark.layer_peeled --out benchmark/results/layer_peeled

takes ten seconds. In the layer-peeled model the network before the head is so strong that the
activation h of every state is a free variable in the ball |h|^2 <= E_H. What remains is to minimise
the mean over states of the cross-entropy -log softmax(W h)_k with the state's optimal action k. Half
of the K actions are optimal in R times as many states as the other half.

Frozen head: W is a simplex ETF with rows of norm sqrt(E_W). The problem falls apart into one problem
per state that does not know how many other states there are, so R cannot matter. Each is convex;
projected gradient descent has to find the theorem's h = sqrt(E_H / E_W) w_k, and so inner products
sqrt(E_H E_W) (K / (K - 1) [k = j] - 1 / (K - 1)).
Learned head: W is free too, with mean |w_k|^2 <= E_W. The frequent actions take the room of the rare
ones, whose rows approach one another.

Columns of theorem.csv: num_actions, ratio, error (largest deviation of an inner product from the
theorem's). Of angles.csv: num_actions, ratio, head, seed, angle (smallest between two rows of the
rarer actions, in degrees). angles.png draws them; frames.png the simplex ETFs of two, three and four
actions.
"""

import csv
import itertools
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
import tyro
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot, pad

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmark.collapse.folder import claimed
from benchmark.collapse.pictures import VIEWS, simplex_coordinates
from benchmark.collate import fail, replacing, say
from benchmark.png import png

FILES = ("theorem.csv", "angles.csv", "angles.png", "frames.png")
COLOURS = {4: "#0072B2", 6: "#E69F00", 8: "#009E73"}  # Okabe & Ito's


@dataclass
class Args:
    out: Path  # directory to write tables and pictures to
    theorem_actions: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)  # K of the theorem's check
    theorem_ratios: tuple[int, ...] = (1, 10, 100)  # R of the theorem's check
    angle_ratios: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # R of the figure
    seeds: int = 3  # random starts of the learned head
    feature_dim: int = 16  # d
    sqrt_e_h: float = 2.0  # sqrt(E_H)
    sqrt_e_w: float = 2.0  # sqrt(E_W)


LIMITS = {  # the least and the largest value of a flag
    "theorem_actions": (2, 1000),
    "theorem_ratios": (1, 10_000),
    "angle_ratios": (1, 1_000_000),
    "seeds": (1, 1000),
    "feature_dim": (1, 10_000),
    "sqrt_e_h": (0.01, 100),
    "sqrt_e_w": (0.01, 100),
}
LARGEST = 10_000_000  # of the numbers that activations are made of


def check_flags(args: Args) -> None:
    """Exit with code 2 if a flag's value cannot work."""
    for flag, (least, most) in LIMITS.items():
        given = getattr(args, flag)
        values = given if isinstance(given, tuple) else (given,)
        name = flag.replace("_", "-")
        if not values:
            fail(name, "", "names none")
        for value in values:
            if not least <= value <= most:
                fail(name, value, f"must lie in [{least}, {most}]")
    actions = max(args.theorem_actions)
    ratio = max(args.theorem_ratios)
    if actions**2 * ratio > LARGEST:
        fail("theorem-ratios", ratio, f"are too many states for {actions} actions")


def simplex_etf(num_actions: int) -> Tensor:
    """Rows of norm 1 with pairwise cosine -1 / (K - 1), (K, K), float64 (arXiv 2509.02737, Eq. 3)."""
    K = num_actions
    return math.sqrt(K / (K - 1)) * (torch.eye(K, dtype=torch.float64) - 1 / K)


def state_labels(num_actions: int, ratio: int) -> Tensor:
    """Optimal actions of the states: `ratio` states for each of the first half of the actions, one
    for each of the others."""
    counts = [ratio if k < num_actions / 2 else 1 for k in range(num_actions)]
    return torch.arange(num_actions).repeat_interleave(torch.tensor(counts))


def project(x: Tensor, radius: float) -> Tensor:
    """Rows of x (rows, d) moved to the nearest point of the ball."""
    return x * (radius / x.norm(dim=1, keepdim=True).clamp_min(radius))


def solve_frozen(
    weight: Tensor, labels: Tensor, radius: float, generator: torch.Generator
) -> Tensor:
    """Activations (states, d) that minimise the loss for the head's rows `weight` (K, d), by
    projected gradient descent. Where the loss is flat its curvature shrinks with its gradient, so
    the step may grow as the gradient falls. Raises RuntimeError if it does not converge."""
    shape = (len(labels), weight.shape[1])
    h = project(torch.randn(shape, generator=generator, dtype=torch.float64), radius)
    targets = one_hot(labels, len(weight))
    longest = weight.norm(dim=1).max()
    for _ in range(10_000):
        gradient = ((h @ weight.T).softmax(dim=1) - targets) @ weight
        step = gradient / (2 * longest * gradient.norm(dim=1, keepdim=True))
        moved = project(h - step, radius)
        change = (moved - h).abs().max()
        h = moved
        if change < 1e-12:
            return h
    raise RuntimeError(f"no convergence: the last step changed an activation by {change:.1g}")


def solve_learned(num_actions: int, ratio: int, args: Args, generator: torch.Generator) -> Tensor:
    """Rows (K, d) of a head learned together with the activations. States of an action share their
    activation, as for any W the best one is unique. Both constraints are active at the optimum, so
    the variables are directions, and L-BFGS needs no projection."""
    actions = torch.arange(num_actions)
    counts = torch.bincount(state_labels(num_actions, ratio))
    shares = (counts / counts.sum()).double()
    shape = (num_actions, args.feature_dim)
    raw_weight = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    raw_h = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [raw_weight, raw_h],
        max_iter=2_000,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def scaled_weight() -> Tensor:
        return args.sqrt_e_w * math.sqrt(num_actions) * raw_weight / raw_weight.norm()

    def closure() -> Tensor:
        optimizer.zero_grad()
        h = args.sqrt_e_h * raw_h / raw_h.norm(dim=1, keepdim=True)
        losses = cross_entropy(h @ scaled_weight().T, actions, reduction="none")
        loss = losses @ shares
        loss.backward()
        return loss

    optimizer.step(closure)
    return scaled_weight().detach()


def smallest_minority_angle(weight: Tensor) -> float:
    """Smallest angle in degrees between two of the rows of the rarer actions, the second half of
    weight (K, d)."""
    rows = normalize(weight[math.ceil(len(weight) / 2) :])
    pairs = torch.triu_indices(len(rows), len(rows), offset=1)
    cosines = (rows @ rows.T)[*pairs]
    return math.degrees(math.acos(min(1.0, cosines.max().item())))


def theorem_error(num_actions: int, ratio: int, args: Args) -> float:
    """Largest deviation of h_s . w_j from the theorem's value, for a frozen head and activations
    from a random start."""
    K = num_actions
    weight = args.sqrt_e_w * simplex_etf(K)
    labels = state_labels(K, ratio)
    h = solve_frozen(weight, labels, args.sqrt_e_h, torch.Generator().manual_seed(0))
    scale = args.sqrt_e_h * args.sqrt_e_w
    expected = scale * (K / (K - 1) * one_hot(labels, K).double() - 1 / (K - 1))
    return (h @ weight.T - expected).abs().max().item()


def check_theorem(args: Args) -> list[dict]:
    """The rows of theorem.csv."""
    rows = []
    for K, ratio in itertools.product(args.theorem_actions, args.theorem_ratios):
        error = theorem_error(K, ratio, args)
        rows.append({"num_actions": K, "ratio": ratio, "error": f"{error:.3g}"})
    return rows


def measure_angles(args: Args) -> list[dict]:
    """The rows of angles.csv, with unrounded angles."""
    rows = []

    def add(head: str, seed: int, weight: Tensor) -> None:
        keys = {"num_actions": K, "ratio": ratio, "head": head, "seed": seed}
        rows.append(keys | {"angle": smallest_minority_angle(weight)})

    for K, ratio in itertools.product(COLOURS, args.angle_ratios):
        add("frozen", 0, simplex_etf(K))
        for seed in range(args.seeds):
            generator = torch.Generator().manual_seed(seed)
            add("learned", seed, solve_learned(K, ratio, args, generator))
        angle = rows[-1]["angle"]
        say(f"K = {K}, R = {ratio}: learned {angle:.1f} degrees", sys.stdout)
    return rows


def draw_angles(rows: list[dict], out: Path) -> None:
    """Minority angle against R, medians over seeds, for both heads."""
    figure, axis = plt.subplots(figsize=(6.4, 4), layout="constrained")
    heads = {"frozen": ("frozen ETF", "--", None), "learned": ("learned head", "-", "o")}
    for K, head in itertools.product(COLOURS, heads):
        name, style, marker = heads[head]
        mine = [row for row in rows if (row["num_actions"], row["head"]) == (K, head)]
        ratios = sorted({row["ratio"] for row in mine})
        medians = []
        for ratio in ratios:
            medians.append(np.median([row["angle"] for row in mine if row["ratio"] == ratio]))
        label = f"K = {K}, {name}"
        axis.plot(ratios, medians, style, color=COLOURS[K], marker=marker, label=label)
    axis.set(
        xscale="log",
        xlabel="imbalance ratio R (states per frequent action / states per rare action)",
        ylabel="smallest angle between\nrows of rare actions (degrees)",
        ylim=(0, None),
    )
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
    out.write_bytes(png(figure, dpi=140))


def draw_frames(out: Path) -> None:
    """The simplex ETFs of 2, 3 and 4 actions in the K - 1 dimensions that they need."""
    figure = plt.figure(figsize=(9, 3.2), layout="constrained")
    for place, K in enumerate((2, 3, 4), start=1):
        projection = "3d" if K == 4 else None
        draw_frame(figure.add_subplot(1, 3, place, projection=projection), K)
    out.write_bytes(png(figure, dpi=120))


def draw_frame(axis: plt.Axes, num_actions: int) -> None:
    rows = simplex_etf(num_actions)
    corners = pad(rows @ simplex_coordinates(rows), (0, max(0, 3 - num_actions))).numpy()
    for a, b in itertools.combinations(corners, 2):
        axis.plot(*zip(a, b), color="grey", linewidth=0.7)
    for row, colour in zip(corners, ("#0072B2", "#D55E00", "#009E73", "#CC79A7")):
        axis.plot(*zip(0 * row, row), color=colour, linewidth=2.5, marker="o", markevery=[1])
    cosine = -1 / (num_actions - 1)
    degrees = math.degrees(math.acos(cosine))
    axis.set_title(f"K = {num_actions}: cosine {cosine:.3g}, {degrees:.1f} degrees", fontsize=10)
    axis.set_axis_off()
    axis.set(**{f"{dimension}lim": (-1.1, 1.1) for dimension in "xyz"[: corners.shape[1]]})
    axis.set_aspect("equal")
    if num_actions == 4:
        axis.view_init(*VIEWS[0])
        axis.set_box_aspect((1, 1, 1), zoom=1.3)


def write(path: Path, rows: Iterable[dict]) -> None:
    rows = [*rows]
    with replacing(path) as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(args: Args) -> None:
    check_flags(args)
    try:
        with claimed("out", args.out, FILES):
            theorem = check_theorem(args)
            largest = max(float(row["error"]) for row in theorem)
            say(f"largest error of an inner product: {largest:.2g}", sys.stdout)
            write(args.out / "theorem.csv", theorem)
            angles = measure_angles(args)
            rounded = (row | {"angle": f"{row['angle']:.4f}"} for row in angles)
            write(args.out / "angles.csv", rounded)
            draw_angles(angles, args.out / "angles.png")
            draw_frames(args.out / "frames.png")
    except KeyboardInterrupt:
        say("stopped", sys.stderr)
        sys.exit(130)
    except (OSError, RuntimeError) as error:
        sys.exit(f"error: --out {args.out}: {error}")


if __name__ == "__main__":
    main(tyro.cli(Args))
