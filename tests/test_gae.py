"""Advantages against brute-force sums over whole episodes."""

import math

import numpy as np
import pytest
import torch

from ppo_acpg import gae

GAMMA, LAMBDA = 0.9, 0.8


def brute_force(rewards, values, terminated, ended, valid):
    """Each advantage as its own sum of (gamma lambda)^l delta_{t+l}, walking to the episode's end."""
    advantages = np.zeros_like(rewards)
    for t, i in np.argwhere(valid):
        weight = 1.0
        for step in range(t, len(rewards)):
            bootstrap = 0.0 if terminated[step, i] else GAMMA * values[step + 1, i]
            advantages[t, i] += weight * (rewards[step, i] + bootstrap - values[step, i])
            weight *= GAMMA * LAMBDA
            if ended[step, i]:
                break
    return advantages


def episodes() -> dict[str, np.ndarray]:
    """Three environments: one terminates in the middle, one is truncated twice, one ends on the last row."""
    rng = np.random.default_rng(0)
    terminated, truncated = np.zeros((2, 8, 3), dtype=bool)
    terminated[3, 0] = truncated[1, 1] = truncated[6, 1] = terminated[7, 2] = True
    ended = terminated | truncated
    valid = np.concatenate([np.array([[True, True, False]]), ~ended[:-1]])
    rewards, values = (
        rng.normal(size=(8, 3)).astype(np.float32),
        rng.normal(size=(9, 3)).astype(np.float32),
    )
    return {
        "rewards": rewards,
        "values": values,
        "terminated": terminated,
        "ended": ended,
        "valid": valid,
    }


def test_against_brute_force():
    case = episodes()
    tensors = {name: torch.tensor(array) for name, array in case.items()}
    np.testing.assert_allclose(
        gae(**tensors, gamma=GAMMA, gae_lambda=LAMBDA), brute_force(**case), atol=1e-6
    )


def test_lambda_one_is_the_discounted_return():
    rewards = torch.ones(10, 1)
    ended = torch.zeros(10, 1, dtype=torch.bool)
    ended[-1] = True
    advantages = gae(
        rewards, torch.zeros(11, 1), ended, ended, torch.ones_like(ended), gamma=0.9, gae_lambda=1.0
    )
    assert advantages[0].item() == pytest.approx(6.513, abs=1e-3)


def test_nan_in_an_invalid_row_or_after_a_termination_stays_there():
    case = {name: torch.tensor(array) for name, array in episodes().items()}
    clean = gae(**case, gamma=GAMMA, gae_lambda=LAMBDA)
    case["rewards"][~case["valid"]] = math.nan
    case["values"][4, 0] = case["values"][8, 2] = (
        math.nan
    )  # after a termination: never bootstrapped from
    torch.testing.assert_close(gae(**case, gamma=GAMMA, gae_lambda=LAMBDA), clean)
