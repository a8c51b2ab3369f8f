"""The ideal cliff walk: what is optimal, by value iteration, and which condition each variant breaks."""

from collections import Counter
from fractions import Fraction

import gymnasium as gym
import numpy as np
import pytest

CELLS = range(8)
NAMES = ["Ideal", "Unbalanced", "Uneven", "Unexplored", "Semantic"]


def make(name: str):
    return gym.make(f"benchmark.envs:{name}CliffWalking-v0").unwrapped


def action_values(env, gamma: float) -> np.ndarray:
    """(8, K): value iteration to its fixed point."""
    values = np.zeros(12)
    for _ in range(200):
        outcomes = [
            [env.transition(state, action) for action in range(env.action_space.n)]
            for state in CELLS
        ]
        q = np.array(
            [[r + gamma * (not end) * values[after] for after, r, end in row] for row in outcomes]
        )
        values[:8] = q.max(axis=1)
    return q


def visits(env) -> np.ndarray:
    """(8,): expected visits of each cell in an episode under the optimal policy, undiscounted, exactly."""
    count = [Fraction(0)] * 12
    for state, probability in zip(env.OUTER, env.starts):
        ended = False
        while not ended:
            count[state] += Fraction(probability).limit_denominator(100)
            state, _, ended = env.transition(state, env.optimal_action(state))
    return np.array([float(visit) for visit in count[:8]])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gamma", [0.5, 0.99])
def test_the_table_is_the_unique_optimum(name, gamma):
    env = make(name)
    q = action_values(env, gamma)
    for state in CELLS:
        best = {env.label(action) for action in np.flatnonzero(q[state] > q[state].max() - 1e-9)}
        assert best == {env.optimal_action(state)}


@pytest.mark.parametrize("name", NAMES)
def test_each_variant_breaks_one_condition(name):
    env = make(name)
    frequency, sizes = visits(env), Counter(env.optimal_action(state) for state in CELLS)
    explored = frequency > 0
    balanced = sorted(sizes.values()) == [2, 2, 2, 2]
    assert explored.all() == (name != "Unexplored")
    assert (np.ptp(frequency[explored]) < 1e-12) == (name != "Uneven")
    assert balanced == (name != "Unbalanced")
    assert env.action_space.n == (5 if name == "Semantic" else 4)
    among_explored = Counter(env.optimal_action(state) for state in CELLS if explored[state])
    assert (len(set(among_explored.values())) == 1) == (name != "Unbalanced")


def test_steps_walls_exits_and_the_time_limit():
    env = gym.make("benchmark.envs:IdealCliffWalking-v0")
    starts = Counter(env.reset(seed=1)[0] if n == 0 else env.reset()[0] for n in range(4000))
    assert set(starts) == {0, 3, 4, 7}
    assert all(abs(count - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5 for count in starts.values())
    env.unwrapped.state = 0
    assert env.step(0)[:3] == (0, -1.0, False) and env.step(2)[:3] == (0, -1.0, False)  # walls
    assert env.step(1)[:3] == (4, -1.0, False) and env.step(3)[:3] == (5, -1.0, False)
    assert env.step(0)[:3] == (1, -1.0, False) and env.step(0)[:3] == (8, 0.0, True)
    env.reset()
    ends = [env.step(2 if env.unwrapped.state % 4 == 0 else 3) for _ in range(50)]
    assert [truncated for *_, truncated, _ in ends] == [False] * 49 + [True]


def test_the_synonym_does_the_same():
    env = make("Semantic")
    assert all(env.transition(state, 4) == env.transition(state, 0) for state in CELLS)


def test_the_picture():
    env = gym.make("benchmark.envs:IdealCliffWalking-v0", render_mode="rgb_array")
    env.reset(seed=1)
    frame = env.render()
    assert frame.shape == (256, 256, 3) and frame.dtype == np.uint8
    orange = (frame == (230, 159, 0)).all(axis=2)
    row, column = divmod(env.unwrapped.state, 4)
    assert orange.sum() == 64 * 64 and orange[64 * (row + 1) + 5, 64 * column + 5]
    green = (frame == (0, 158, 115)).all(axis=2)
    assert green.sum() == 4 * 16 * 64
    assert green[64 + 5, 64 + 32] and green[3 * 64 - 5, 64 + 32]  # at the edges


def test_the_picture_shows_the_exits_where_they_are():
    """In the unbalanced walk one leads from a lower cell upwards, where there is another cell."""
    env = gym.make("benchmark.envs:UnbalancedCliffWalking-v0", render_mode="rgb_array").unwrapped
    env.reset(seed=1)
    for cell, action in env.exits.items():
        env.state = cell
        env.state, reward, terminated = env.transition(cell, action)
        assert (reward, terminated) == (0, True)
        frame = env.render()
        row, column = divmod(cell, 4)
        side = 64 * (row + 1) + (5 if action == 0 else 59)
        orange = (frame == env.WALKER).all(axis=2)
        assert orange.sum() == 16 * 64 and orange[side, 64 * column + 32]
