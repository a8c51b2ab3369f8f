"""The ids of benchmark/envs.py: shapes, seeding, autoreset, and Atari's whole unclipped games."""

from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from benchmark import envs as ids
from benchmark.reporting.thresholds import normalised

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


@pytest.mark.parametrize(
    "env_id",
    [
        "MinAtar/Breakout-v1",
        "envpool/CartPole-v1",
        "envpool/FrozenLake-v1",
        "Atari/Pong-v5",
        "DiscreteCarRacing-v0",
    ],
)
def test_reset_honours_the_seed(env_id):
    envs = gym.make_vec(env_id, num_envs=3)
    first, again, other = (play(envs, seed, 60) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other))
    envs.close()


SEEDED = [
    *(
        f"MinAtar/{game}-v1"
        for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
    ),
    *(f"{walk}CliffWalking-v0" for walk in ("Ideal", "Uneven", "Unexplored", "Semantic")),
    *("envpool/Acrobot-v1", "envpool/CartPole-v1", "Atari/Breakout-v5", "DiscreteCarRacing-v0"),
]


@pytest.mark.parametrize("env_id", SEEDED)
def test_a_seed_fixes_an_episode_whatever_came_before(env_id):
    envs = gym.make_vec(f"benchmark.envs:{env_id}", num_envs=2)
    rng = np.random.default_rng(0)
    n = int(envs.single_action_space.n)
    planned = rng.integers(n, size=(150, 2))
    seen = []
    for before in (0, 7, 60):
        envs.reset(seed=99)
        for _ in range(before):
            envs.step(rng.integers(1, n, size=2))
        obs, _ = envs.reset(seed=5)
        seen.append([obs, *(np.copy(x) for a in planned for x in envs.step(a)[:4])])
    for others in seen[1:]:
        assert all(np.array_equal(first, other) for first, other in zip(seen[0], others))


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
    assert (
        obs.shape == (CHANNELS[game], 10, 10)
        and obs.dtype == np.bool_
        and env.action_space.n == len(actions)
    )
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
        assert (
            np.abs(obs[terminated, 2]) > 0.2095
        ).all()  # the pole has fallen by more than 12 degrees
        assert (
            (np.abs(obs[ended]) <= 0.05).all()
            and (rewards[ended] == 0).all()
            and not terminated[ended].any()
        )
        ended, seen = terminated, seen + terminated.sum()
    assert seen > 20


def test_atari_plays_whole_unclipped_games():
    envs = gym.make_vec("Atari/SpaceInvaders-v5", num_envs=2)
    rng = np.random.default_rng(0)
    obs, info = envs.reset(seed=1)
    assert (
        obs.shape == (2, 4, 84, 84) and obs.dtype == np.uint8 and info["lives"].tolist() == [3, 3]
    )
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


def drive(actions, seed: int, **kwargs):
    """Frames, rewards and ends of a fixed drive in DiscreteCarRacing-v0."""
    envs = gym.make_vec("DiscreteCarRacing-v0", num_envs=1, **kwargs)
    frames, rewards, ends = [envs.reset(seed=seed)[0][0]], [], []
    for action in actions:
        obs, reward, terminated, truncated, _ = envs.step(np.array([action]))
        frames.append(obs[0])
        rewards.append(reward[0])
        ends.append((terminated[0], truncated[0]))
    envs.close()
    return np.array(frames), np.array(rewards), ends


def test_cliff_walking_is_cut_off_and_its_optimum_is_what_normalises():
    name = "benchmark.envs:CliffWalking200-v1"
    env = gym.make(name)
    env.reset(seed=1)
    up, right, down = 0, 1, 2
    steps = [env.step(action) for action in (up, *[right] * 11, down)]
    assert sum(reward for _, reward, *_ in steps) == -13 and steps[-1][2]
    assert normalised(name, -13) == 1
    env.reset()
    ends = [env.step(up)[2:4] for _ in range(200)]
    assert ends == [(False, False)] * 199 + [(False, True)]


def test_car_racing_is_gymnasiums_but_for_the_track():
    """The same drive: the dashboard (speed, wheels' slip, steering, gyroscope) is the same, and so is what a step costs."""
    actions = [3] * 20 + [1] * 8 + [3] * 10 + [2] * 10 + [4] * 5 + [0] * 5
    env = gym.wrappers.GrayscaleObservation(gym.make("CarRacing-v3", continuous=False))
    expected, costs = [env.reset(seed=3)[0]], []
    for action in actions:
        obs, cost, *_ = env.step(action)
        expected.append(obs)
        costs.append(cost)
    frames, rewards, _ = drive(actions, seed=3)
    single = gym.make_vec("DiscreteCarRacing-v0", num_envs=1)
    assert single.single_action_space.n == env.action_space.n == 5
    assert frames.shape[1:] == (4, 96, 96) and frames.dtype == np.uint8
    dashboard = (
        slice(84, 96),
        slice(20, 96),
    )  # to the left of it stands the score, which depends on the track
    differences = [
        np.abs(frame[-1][dashboard].astype(int) - other[dashboard]).mean()
        for frame, other in zip(frames, expected, strict=True)
    ]
    assert np.median(differences) < 4 and max(differences) < 12
    wrong, _, _ = drive([0] * 20 + [2] * 8, seed=3)
    assert (
        np.abs(wrong[28][-1][dashboard].astype(int) - expected[28][dashboard]).mean() > 12
    )  # the other way
    # A step costs 0.1; each of the track's N tiles pays 1000 / N, about 3, and the first step takes two of them.
    for paid in (np.array(costs), rewards):
        assert (
            np.isclose(paid, -0.1, atol=1e-3).mean() > 0.5
            and (paid > -0.11).all()
            and 2 < paid.max() < 12
        )


def test_car_racing_stacks_frames_and_resets():
    frames, rewards, ends = drive([0] * 1003, seed=1)
    assert all(np.array_equal(frame[:-1], before[1:]) for before, frame in pairwise(frames[:1001]))
    assert all(np.array_equal(frames[0][0], frames[0][k]) for k in range(4))
    assert [end for end in ends if any(end)] == [(False, True)] and ends[999] == (
        False,
        True,
    )  # as Gymnasium's 1000 steps
    assert rewards[1000] == 0 and all(
        np.array_equal(frames[1001][0], frames[1001][k]) for k in range(4)
    )


def test_car_racing_repeats_actions_until_the_end():
    actions = [3] * 15
    frames, rewards, _ = drive(np.repeat(actions, 4), seed=2)
    repeated, sums, _ = drive(actions, seed=2, action_repeat=4)
    np.testing.assert_allclose(sums, rewards.reshape(-1, 4).sum(axis=1), rtol=1e-5)
    assert np.array_equal(repeated[1:, -1], frames[4::4, -1])
    frames, rewards, ends = drive([0] * 340, seed=1, action_repeat=3)
    assert [k for k, end in enumerate(ends) if any(end)] == [
        333
    ]  # 1000 steps of the game: 333 times 3, and 1 more
    assert (
        rewards[333] == pytest.approx(-0.1, abs=1e-5) and rewards[334] == 0
    )  # then it only resets, once
    assert all(np.array_equal(frames[335][0], frames[335][k]) for k in range(4))


def test_car_racing_ends_off_the_field():
    _, rewards, ends = drive([3] * 600, seed=1)
    over = ends.index((True, False))
    assert rewards[over] == -100 and rewards[over + 1] == 0


def test_car_racing_environments_do_not_disturb_each_other():
    """One of two drives off the field and resets; the other goes on as it does alone, and each gets its own actions."""
    envs = gym.make_vec("DiscreteCarRacing-v0", num_envs=2, action_repeat=3)
    alone = gym.make_vec("DiscreteCarRacing-v0", num_envs=2, action_repeat=3)
    first, _ = envs.reset(seed=1)
    other, _ = alone.reset(seed=1)
    ended = 0
    for k in range(200):
        first, rewards, terminated, _, _ = envs.step(np.array([k % 5, 3]))
        other, expected, _, _, _ = alone.step(np.array([k % 5, 0]))
        assert np.array_equal(first[0], other[0]) and rewards[0] == expected[0]
        ended += terminated[1]
    assert ended and not np.array_equal(first[1], other[1])
    with pytest.raises(ValueError, match="action_repeat"):
        gym.make_vec("DiscreteCarRacing-v0", num_envs=1, action_repeat=0)
