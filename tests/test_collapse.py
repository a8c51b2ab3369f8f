"""The measures of action collapse against their formulas, Theorem 1's optimum and the paper-centred variant's known bias."""

import math

import numpy as np
import pytest
import torch

from ppo_acpg import collapse_metrics, simplex_etf


def optimum(
    shares: list[int], feature_dim: int = 16
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Theorem 1's activations for a state count per action, their actions, and the frame."""
    frame = 2 * simplex_etf(len(shares), feature_dim, torch.Generator().manual_seed(0))
    actions = torch.repeat_interleave(torch.arange(len(shares)), torch.tensor(shares))
    return 3 * frame[actions], actions, frame


@pytest.mark.parametrize("shares", [[5, 5, 5], [50, 1, 1, 7]])
def test_everything_is_zero_at_the_optimum(shares):
    metrics = collapse_metrics(*optimum(shares), "actions")
    assert metrics.pop("actions_seen") == len(shares)
    assert metrics.pop("feature_norm") == pytest.approx(6, rel=1e-6)
    assert len(metrics) == 8
    assert max(metrics.values()) < 1e-5


def test_centring_on_states_is_biased_by_imbalance():
    metrics = collapse_metrics(*optimum([7, 1, 1, 1]), "states")
    assert metrics["means_equinorm"] == pytest.approx(0.37, abs=0.005)
    assert metrics["means_equiangularity"] == pytest.approx(0.47, abs=0.005)
    assert metrics["means_maximal_angle"] == pytest.approx(0.47, abs=0.005)


@pytest.mark.parametrize("center", ["actions", "states"])
def test_against_the_formulas(center):
    rng = np.random.default_rng(0)
    K, d, n = 5, 9, 400
    weight, features, actions = (
        rng.normal(size=(K, d)),
        rng.normal(size=(n, d)),
        rng.integers(0, K, n),
    )
    features[:, 0] += actions
    metrics = collapse_metrics(
        torch.tensor(features), torch.tensor(actions), torch.tensor(weight), center
    )
    means = np.stack([features[actions == k].mean(axis=0) for k in range(K)])
    centred = means - (means if center == "actions" else features).mean(axis=0)
    deviations = features - means[actions]
    within, between = deviations.T @ deviations / n, centred.T @ centred / K
    scales, directions = np.linalg.eigh(between)
    top = slice(d - (K - 1), None)
    pinv = directions[:, top] / scales[top] @ directions[:, top].T
    expected = {
        "actions_seen": K,
        "feature_norm": np.linalg.norm(features, axis=1).mean(),
        "within_variability": np.trace(within @ pinv) / K,
        "self_duality": np.linalg.norm(
            weight / np.linalg.norm(weight) - centred / np.linalg.norm(centred)
        ),
    }
    for name, vectors in (("head", weight), ("means", centred)):
        norms = np.linalg.norm(vectors, axis=1)
        cosines = [
            vectors[i] @ vectors[j] / norms[i] / norms[j] for i in range(K) for j in range(i)
        ]
        expected[f"{name}_equinorm"] = norms.std() / norms.mean()
        expected[f"{name}_equiangularity"] = np.std(cosines)
        expected[f"{name}_maximal_angle"] = np.mean(np.abs(np.array(cosines) + 1 / (K - 1)))
    assert metrics == pytest.approx(expected, rel=1e-9)


def test_unseen_actions_leave_an_ideal_simplex_of_those_seen():
    features, actions, frame = optimum([4, 4, 4, 4])
    seen = actions != 2
    smaller = simplex_etf(3, 16, torch.Generator().manual_seed(1))
    features = smaller[torch.tensor([0, 1, 2, 2])[actions]][seen]
    metrics = collapse_metrics(features, actions[seen], frame, "actions")
    assert metrics["actions_seen"] == 3
    assert metrics["means_maximal_angle"] < 1e-6
    assert "self_duality" not in metrics


def test_two_actions_are_trivial_and_one_is_undefined():
    frame = simplex_etf(3, 8, torch.Generator())
    features = torch.randn(20, 8)
    actions = torch.arange(20) % 2
    assert not {
        name
        for name in collapse_metrics(features, actions, frame, "actions")
        if name.startswith("means")
    }
    one = collapse_metrics(features, torch.zeros(20, dtype=torch.long), frame, "actions")
    assert set(one) == {
        "head_equinorm",
        "head_equiangularity",
        "head_maximal_angle",
        "feature_norm",
        "actions_seen",
    }


@pytest.mark.parametrize("features", [torch.zeros(12, 8), torch.ones(12, 8)])
def test_degenerate_activations_give_no_nan(features):
    metrics = collapse_metrics(features, torch.arange(12) % 3, torch.zeros(3, 8), "actions")
    assert all(map(math.isfinite, metrics.values()))
    assert "within_variability" not in metrics
