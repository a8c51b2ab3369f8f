"""The ids of benchmark/envs.py: shapes, seeding, autoreset, and Atari's whole unclipped games."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from benchmark import envs as ids

CHANNELS = {"Asterix": 4, "Breakout": 4, "Freeway": 7, "Seaquest": 10, "SpaceInvaders": 6}


def play(envs: gym.vector.VectorEnv, seed: int | None, steps: int) -> list[np.ndarray]:
    """Observations and rewards of a fixed sequence of actions."""
    rng = np.random.default_rng(0)
    obs, _ = envs.reset(seed=seed)
    trace = [obs]
    for _ in range(steps):
        obs, rewards, *_ = envs.step(rng.integers(envs.single_action_space.n, size=envs.num_envs))
        trace += [obs, rewards]
    return trace


@pytest.mark.parametrize("env_id", ["MinAtar/Breakout-v1", "envpool/CartPole-v1", "envpool/FrozenLake-v1", "Atari/Pong-v5"])
def test_reset_honours_the_seed(env_id):
    envs = gym.make_vec(env_id, num_envs=3)
    first, again, other = (play(envs, seed, 60) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other))
    envs.close()


def test_a_reset_without_a_seed_goes_on():
    envs = gym.make_vec("envpool/CartPole-v1", num_envs=2)
    first, _ = envs.reset(seed=1)
    second, _ = envs.reset()
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("game", ids.MINATAR_GAMES)
def test_minatar_is_minatars_game_with_channels_first(game):
    from minatar import Environment

    env = gym.make(f"MinAtar/{game}-v1")
    obs, _ = env.reset(seed=3)
    original = Environment(ids.MINATAR_GAMES[game])
    original.seed(3)
    original.reset()
    actions = original.minimal_action_set()
    assert obs.shape == (CHANNELS[game], 10, 10) and obs.dtype == np.bool_ and env.action_space.n == len(actions)
    rng = np.random.default_rng(0)
    for _ in range(50):
        action = rng.integers(len(actions))
        obs, reward, terminated, _, _ = env.step(action)
        expected_reward, expected_end = original.act(actions[action])
        assert np.array_equal(obs, original.state().transpose(2, 0, 1))
        assert (reward, terminated) == (expected_reward, expected_end)
        if terminated:
            break


def test_minatar_frames_can_be_filmed():
    env = gym.make("MinAtar/Breakout-v1", render_mode="rgb_array")
    env.reset(seed=1)
    frame = env.render()
    assert frame.shape == (160, 160, 3) and frame.dtype == np.uint8 and frame.max() > 100


@pytest.mark.parametrize("env_id", ["CartPole-v1", "envpool/CartPole-v1"])
def test_the_last_observation_is_at_the_ended_row_and_the_next_row_only_resets(env_id):
    envs = gym.make_vec(env_id, num_envs=4)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    envs.reset(seed=1)
    ended, seen = np.zeros(4, bool), 0
    for _ in range(200):
        obs, rewards, terminated, _, _ = envs.step(np.zeros(4, np.int64))
        assert (np.abs(obs[terminated, 2]) > 0.2095).all()  # the pole has fallen by more than 12 degrees
        assert (np.abs(obs[ended]) <= 0.05).all() and (rewards[ended] == 0).all() and not terminated[ended].any()
        ended, seen = terminated, seen + terminated.sum()
    assert seen > 20


def test_atari_plays_whole_unclipped_games():
    envs = gym.make_vec("Atari/SpaceInvaders-v5", num_envs=2)
    rng = np.random.default_rng(0)
    obs, info = envs.reset(seed=1)
    assert obs.shape == (2, 4, 84, 84) and obs.dtype == np.uint8 and info["lives"].tolist() == [3, 3]
    assert envs.single_action_space.n == 6
    lives, rewards_seen, games = info["lives"], set(), 0
    while games < 2:
        _, rewards, terminated, truncated, info = envs.step(rng.integers(6, size=2))
        rewards_seen |= set(rewards.tolist())
        assert not truncated.any()
        assert (info["lives"][terminated] == 0).all()  # a life lost does not end the episode
        assert not terminated[(info["lives"] < lives) & (info["lives"] > 0)].any()
        lives, games = info["lives"], games + terminated.sum()
    assert {5.0, 10.0} <= rewards_seen


def test_every_envpool_task_has_an_id():
    from envpool import list_all_envs

    assert {f"envpool/{task.replace('/', '-')}" for task in list_all_envs()} <= set(gym.registry)
    assert "Atari/Enduro-v5" in gym.registry and "Atari/CartPole-v1" not in gym.registry
