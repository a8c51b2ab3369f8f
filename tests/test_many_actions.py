"""The bandits with many actions: what each action pays, and what the random and the best policy earn."""

import gymnasium as gym
import numpy as np
import pytest

from benchmark.reporting.thresholds import normalised

NAMES = [
    f"{kind}Actions{k}{states}-v0"
    for kind in ("Many", "Ordered", "Paired")
    for k in (18, 50)
    for states in ("", "x4")
]


def make(name: str):
    return gym.make(f"benchmark.envs:{name}")


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


def payoffs(name: str) -> np.ndarray:
    """(states, actions)."""
    env = make(name).unwrapped
    states, actions = range(env.num_states), range(env.num_actions)
    return np.array([[env.reward(state, action) for action in actions] for state in states])


def test_what_the_best_and_the_random_policy_earn_is_what_normalises(name):
    table = payoffs(name)
    assert normalised(f"benchmark.envs:{name}", 10 * table.max(axis=1).mean()) == 1
    assert normalised(f"benchmark.envs:{name}", 10 * table.mean()) == pytest.approx(0, abs=1e-4)


def test_best_actions(name):
    table = payoffs(name)
    best = (table == table.max()).sum(axis=1)
    assert (best == (2 if name.startswith("Paired") else 1)).all()
    assert len({*table.argmax(axis=1)}) == table.shape[1] // (2 if name.startswith("Paired") else 1)


def test_the_ring_closes():
    env = make("OrderedActions18-v0").unwrapped
    pay = [env.reward(0, action) for action in range(18)]
    assert pay[1] == pay[17] == pytest.approx(1 - 2 / 18)
    assert pay[9] == 0 and min(pay) == 0


def test_episodes_have_ten_steps_of_states_that_are_drawn_uniformly(name):
    env = make(name)
    counts = np.zeros(env.unwrapped.num_states)
    for episode in range(600):
        env.reset(seed=episode)
        ended, steps = False, 0
        while not ended:
            counts[env.unwrapped.state] += 1
            _, _, ended, truncated, _ = env.step(0)
            steps += 1
        assert steps == 10 and not truncated
    expected = counts.sum() / len(counts)
    assert ((counts - expected) ** 2 / expected).sum() < len(counts) + 5 * (2 * len(counts)) ** 0.5


@pytest.mark.parametrize("name", ["ManyActions18x4-v0", "PairedActions50x4-v0"])
def test_vectors_of_a_state_stay_the_same_and_lie_near_those_of_its_action(name):
    first, second = make(name).unwrapped, make(name).unwrapped
    np.testing.assert_array_equal(first.observations, second.observations)
    vectors = first.observations.reshape(-1, 4, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, rtol=1e-6)
    means = vectors.mean(axis=1)
    within = np.linalg.norm(vectors - means[:, None], axis=-1).mean()
    between = np.linalg.norm(means[:, None] - means[None], axis=-1)[~np.eye(len(means), dtype=bool)]
    assert within < 0.5 * between.mean()
    obs, _ = first.reset(seed=3)
    assert first.observation_space.contains(obs)
