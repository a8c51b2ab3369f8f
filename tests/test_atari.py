"""ppo_atari_acpg.py: both back-ends against a plain ALE environment, lives, and whole runs."""

import contextlib
import math
import signal
import textwrap
from pathlib import Path

import ale_py
import gymnasium as gym
import numpy as np
import pytest
import torch

import ppo_atari_acpg as script
from tests import test_form as form
from tests import test_shared as shared
from tests.conftest import Run
from tests.test_life import deterministic, finished, refuses, start, wait_for
from tests.test_refusals import refused

BACKENDS = ["envpool", "ale"]
SHAPE = (4, 84, 84)
SMALL = ("--num-envs", 2, "--num-steps", 8, "--num-threads", 1, "--collapse-every", 1)
SMALL += ("--eval-episodes", 0)
gym.register_envs(ale_py)


def make(backend: str, game: str, num_envs: int, **flags):
    env_id = {"envpool": f"{game}-v5", "ale": f"ALE/{game}-v5"}[backend]
    args = script.Args(backend=backend, env_id=env_id, num_envs=num_envs, **flags)
    return script.make_envs(args, num_envs)


def area_weights(size: int, to: int) -> np.ndarray:
    """(to, size): each row averages its share of the old pixels."""
    edges, pixels = np.arange(to + 1) * size / to, np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return overlap.clip(0) * to / size


class PlainGame:
    """A single Gymnasium environment without preprocessing, frame by frame."""

    def __init__(self, game: str):
        self.env = gym.make(
            f"ALE/{game}-v5", frameskip=1, repeat_action_probability=0.0, obs_type="grayscale"
        )
        self.ale = self.env.unwrapped.ale

    def start(self, noops: int, fire_first: bool) -> None:
        self.env.reset(seed=0)
        fire = self.env.unwrapped.get_action_meanings().index("FIRE")
        for action in [fire] + [0] * noops if fire_first else [0] * noops + [fire]:
            self.env.step(action)

    def step(self, action: int) -> tuple[np.ndarray, float, bool]:
        """Four frames of one action: the last two joined and resized, the reward, and whether the game is over."""
        reward, frames, terminated = 0.0, [], False
        for _ in range(4):
            if not terminated:
                frame, value, terminated, _, _ = self.env.step(action)
                frames, reward = [*frames, frame], reward + value
        frame = np.max(frames[-2:], axis=0).astype(float)
        return area_weights(210, 84) @ frame @ area_weights(160, 84).T, reward, terminated


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("game", "count"), [("Breakout", 2), ("SpaceInvaders", 1)])
def test_whole_games_are_those_of_a_plain_environment(backend, game, count):
    """Rewards, lives, frames and the score; only the random number of no-ops has to be found out. envpool presses FIRE after
    them, ale-py before."""
    envs = make(backend, game, 1)
    plain, rng, scores = PlainGame(game), np.random.default_rng(0), []
    obs, _ = envs.reset(seed=1)
    assert obs.shape == (1, 4, 84, 84) and obs.dtype == np.uint8 and obs.max() > 100
    assert envs.single_action_space.n == plain.env.action_space.n
    for _ in range(count):
        actions, trace = rng.integers(envs.single_action_space.n, size=4000), []
        for action in actions:
            obs, rewards, terminated, truncated, info = envs.step(np.array([action]))
            trace.append((obs[0], rewards[0], info["lives"][0], terminated[0]))
            if terminated[0] or truncated[0]:
                break
        assert terminated[0] and not truncated[0]
        scores.append(sum(reward for _, reward, _, _ in trace))
        assert any(replays(plain, noops, backend == "ale", actions, trace) for noops in range(31))
        obs, rewards, terminated, truncated, _ = envs.step(np.array([1]))  # only resets
        assert rewards[0] == 0 and not terminated[0] and not truncated[0]
    assert sum(scores) > 0
    envs.close()


def replays(plain: PlainGame, noops: int, fire_first: bool, actions, trace) -> bool:
    """Whether the plain game after so many no-ops gives the same trace. Frames may differ by what rounding does, and the last
    one, which the end of the game may cut short, is not compared."""
    plain.start(noops, fire_first)
    for action, (obs, reward, lives, terminated) in zip(actions, trace):
        frame, plain_reward, plain_terminated = plain.step(action)
        same = (
            plain_reward == reward and plain_terminated == terminated and plain.ale.lives() == lives
        )
        if not same or (not terminated and np.abs(frame - obs[-1]).max() > 1.5):
            return False
    return True


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_stack_holds_the_last_four_frames(backend):
    envs = make(backend, "Breakout", 2)
    before, _ = envs.reset(seed=1)
    assert np.array_equal(
        before[:, :-1], before[:, 1:] if backend == "envpool" else np.zeros_like(before[:, 1:])
    )
    for _ in range(10):
        obs, *_ = envs.step(np.array([2, 3]))
        assert np.array_equal(obs[:, :-1], before[:, 1:])
        before = obs.copy()
    envs.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_seeds(backend):
    """Those of a reset, also where a back-end takes its seed when it is made."""
    traces = []
    envs = make(backend, "SpaceInvaders", 2)
    for seed in (5, 5, 6):
        envs.reset(seed=seed)
        rng = np.random.default_rng(0)
        traces.append(np.stack([envs.step(rng.integers(6, size=2))[0].copy() for _ in range(40)]))
    envs.close()
    assert np.array_equal(traces[0], traces[1]) and not np.array_equal(traces[0], traces[2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_of_another_length_are_the_environment_s_mistake(backend, monkeypatch):
    envs = make(backend, "Pong", 2)
    envs.reset(seed=1)
    obs, *others = envs.step(np.array([0, 0]))
    monkeypatch.setattr(envs.env, "step", lambda _: (obs[:1], *others), raising=False)
    with pytest.raises(script.EnvironmentFailed, match=r"Pong-v5: its .* ended with ValueError"):
        envs.step(np.array([0, 0]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sticky_actions", [0.0, 1.0])
def test_sticky_actions_and_all_eighteen(backend, sticky_actions):
    """With actions that always stick, the agent's choice does not matter."""
    frames = []
    for choice in (3, 4):  # right and left, Pong's up and down
        envs = make(backend, "Pong", 1, sticky_actions=sticky_actions, full_action_space=True)
        assert envs.single_action_space.n == 18
        envs.reset(seed=1)
        frames.append([envs.step(np.array([choice]))[0].copy() for _ in range(40)][-1])
        envs.close()
    assert np.array_equal(*frames) == (sticky_actions == 1)


class Lives(gym.vector.VectorEnv):
    """Two games of three lives and nine steps, one life lost every three; scores are -2, 0, 7, …; the first is cut off after
    step 5. Next-step autoreset."""

    num_envs, single_action_space = 2, gym.spaces.Discrete(3)

    def __init__(self):
        self.reset()

    def reset(self, **kwargs):
        self.clock, self.over = np.zeros(2, int), np.zeros(2, bool)
        return self.frames(), {"lives": np.array([3, 3])}

    def step(self, actions):
        self.clock = np.where(self.over, 0, self.clock + 1)
        reward = np.where(self.over, 0.0, np.array([7.0, -2.0, 0.0])[self.clock % 3])
        terminated, truncated = self.clock == 9, (self.clock == 5) & (np.arange(2) == 0)
        self.over = terminated | truncated
        return self.frames(), reward, terminated, truncated, {"lives": 3 - self.clock // 3}

    def frames(self):
        return np.broadcast_to(self.clock[:, None, None, None], (2, *SHAPE)).astype(np.uint8)


def make_agent(num_steps: int = 12, num_actions: int = 3, **flags):
    torch.manual_seed(0)
    flags = {"num_envs": 2, "num_steps": num_steps, "hidden_size": 16} | flags
    args = script.Args(**flags)
    return script.Agent(SHAPE, num_actions, args), args


def collect_lives(num_steps: int = 12, steps_left: float = math.inf, **flags):
    """An agent, its arguments, its rollout from the start on, the episodes, and where it stands."""
    agent, args = make_agent(num_steps, **flags)
    envs = Lives()
    state = script.EnvState(envs.frames(), np.array([3, 3]))
    return agent, args, *script.collect(envs, agent, state, args, steps_left), state


def network(agent, obs):
    """Logits and values of frames (rows, envs, *frame)."""
    with torch.inference_mode():
        features, logits = agent(obs.flatten(0, 1))
        values = agent.value(obs.flatten(0, 1), features)
    return logits.unflatten(0, obs.shape[:2]), values.unflatten(0, obs.shape[:2])


def test_a_life_lost_is_terminal_for_learning_only():
    agent, _, rollout, episodes, state = collect_lives()
    ones = np.ones((12, 2), bool)
    terminated, ended, valid = ~ones, ~ones, ones.copy()
    # lives lost after three steps and six, the game after nine
    terminated[[2, 5, 8], 1] = terminated[[2, 8], 0] = True
    ended[terminated] = ended[[4, 10], 0] = True
    valid[[5, 11], 0] = valid[9, 1] = False  # the rows after the game was cut off, or over
    assert np.array_equal(rollout.terminated, terminated)
    assert np.array_equal(rollout.ended, ended)
    assert np.array_equal(rollout.valid, valid)
    assert rollout.rewards[:3, 1].tolist() == [-1, 0, 1] and rollout.rewards.abs().max() == 1
    assert episodes == [(10, 3.0, 5), (17, 15.0, 9), (20, 3.0, 5)]  # whole games, unclipped
    assert state.over.tolist() == [False, False] and state.lives.tolist() == [3, 3]
    assert state.returns.tolist() == [0, -2] and state.lengths.tolist() == [0, 2]
    frames = rollout.obs[:, :, 0, 0, 0]
    assert frames[:3].tolist() == [[0, 0], [1, 1], [2, 2]] and frames[5, 0] == 5
    logits, values = network(agent, rollout.obs)
    torch.testing.assert_close(rollout.logits, logits[:-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rollout.values, values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("num_steps", "first_row"), [(5, "valid"), (2, "terminated")])
def test_the_next_rollout_goes_on_where_the_last_one_ended(num_steps, first_row):
    """The first game is cut off in the fifth row, the last of five; both lose a life in the third, the second in the sixth."""
    agent, args = make_agent(num_steps)
    envs = Lives()
    state = script.EnvState(envs.frames(), np.array([3, 3]))
    script.collect(envs, agent, state, args)
    rollout, _ = script.collect(envs, agent, state, args)
    assert rollout.obs[0, :, 0, 0, 0].tolist() == [num_steps] * 2
    assert rollout.valid[0].tolist() == [first_row != "valid", True]
    assert rollout.terminated[0].tolist() == [first_row == "terminated", True]


def test_a_game_that_shows_no_lives_before_it_ends_loses_its_last_one_once():
    class Flicker(Lives):
        def step(self, actions):
            *result, info = super().step(actions)
            info["lives"] = np.where(self.clock >= 7, 0, info["lives"])
            return *result, info

    agent, args = make_agent(9)
    envs = Flicker()
    state = script.EnvState(envs.frames(), np.array([3, 3]))
    rollout, _ = script.collect(envs, agent, state, args)
    assert np.flatnonzero(rollout.terminated[:, 1]).tolist() == [2, 5, 8]


def test_no_step_is_taken_once_none_is_left():
    """Each of seven steps of both games gives two rows, but for the sixth, in which one only resets."""
    agent, args, rollout, _, state = collect_lives(steps_left=12)
    taken = 7
    assert rollout.valid.sum() == 13 and not rollout.valid[taken:].any()
    assert all(not column[taken:].any() for column in rollout[2:])
    assert not rollout.values[taken + 1 :].any() and not rollout.obs[taken + 1 :].any()
    _, values = network(agent, rollout.obs[: taken + 1])
    torch.testing.assert_close(rollout.values[: taken + 1], values, rtol=1e-4, atol=1e-5)
    assert torch.equal(state.obs, rollout.obs[taken])
    _, _, whole, *_ = collect_lives()
    expected = script.make_batch(whole._replace(valid=rollout.valid), args)
    found = script.make_batch(rollout, args)
    for one, other in zip(found, expected):
        torch.testing.assert_close(one[found.valid], other[found.valid], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("total", [112, 121])
def test_a_run_learns_from_no_more_steps_than_it_was_told(launch, monkeypatch, total):
    """Though some rows only reset. Both games step, so one more may be taken."""
    monkeypatch.setattr(script, "make_envs", lambda *_: Lives())
    monkeypatch.setattr(
        Lives, "single_observation_space", gym.spaces.Box(0, 255, SHAPE, np.uint8), raising=False
    )
    learned = []
    make_batch = script.make_batch

    def record(*args):
        batch = make_batch(*args)
        learned.append(int(batch.valid.sum()))
        return batch

    monkeypatch.setattr(script, "make_batch", record)
    flags = ("--hidden-size", 16, "--num-minibatches", 2, "--update-epochs", 1)
    run = launch(script, "--total-timesteps", total, *SMALL, *flags)
    assert sum(learned) == run.checkpoint["global_step"]
    assert total <= run.checkpoint["global_step"] < total + 2
    assert max(learned) < 16  # as each rollout has such rows


def test_actions_follow_the_policy_mixed_with_chance():
    """Frequencies over 1000 actions of a network that ignores its input: within 5 standard deviations."""
    logits = torch.tensor([0.0, 1.0, 2.0])

    class Fixed(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, obs):
            return torch.zeros(2, 16), logits.expand(2, 3)

        def value(self, obs, features):
            return torch.zeros(2)

    torch.manual_seed(0)
    for epsilon in (0.0, 0.5, 1.0):
        args, envs = script.Args(num_envs=2, num_steps=500, epsilon=epsilon), Lives()
        state = script.EnvState(envs.frames(), np.array([3, 3]))
        rollout, _ = script.collect(envs, Fixed(), state, args)
        expected = script.behaviour_log_probs(logits.log_softmax(-1), epsilon).exp()
        frequencies = torch.bincount(rollout.actions.flatten(), minlength=3) / 1000
        deviations = (expected * (1 - expected) / 1000).sqrt()
        assert ((frequencies - expected).abs() < 5 * deviations).all()


def test_nothing_of_an_invalid_row_reaches_the_loss():
    agent, args, rollout, *_ = collect_lives()
    results = []
    for filler in (0.0, math.nan):
        rewards, logits = rollout.rewards.clone(), rollout.logits.clone()
        rewards[~rollout.valid] = logits[~rollout.valid] = filler
        planted = rollout._replace(rewards=rewards, logits=logits)
        gradient, parts = script.loss_gradient(agent, script.make_batch(planted, args), args)
        results.append([gradient, *parts.values()])
    assert all(torch.equal(clean, planted) for clean, planted in zip(*results))


def test_the_batch_is_the_rollout():
    _, args, rollout, *_ = collect_lives(epsilon=0.2, gae_lambda=0.0)
    batch = script.make_batch(rollout, args)
    valid = batch.valid
    probs = 0.8 * rollout.logits.softmax(-1).flatten(0, 1) + 0.2 / 3
    expected = probs[torch.arange(24), rollout.actions.flatten()].log()
    torch.testing.assert_close(batch.log_probs[valid], expected[valid])
    bootstrap = 0.99 * rollout.values[1:] * ~rollout.terminated
    expected = (rollout.rewards + bootstrap - rollout.values[:-1]).flatten()
    torch.testing.assert_close(batch.advantages[valid], expected[valid])
    torch.testing.assert_close(batch.returns[valid], (batch.advantages + batch.values)[valid])
    assert valid.sum() == 21 and not any(
        column[~valid].any()
        for column in (batch.obs, batch.log_probs, batch.values, batch.advantages, batch.returns)
    )


@pytest.mark.parametrize(
    "flags",
    [{}, {"amp": True}, {"channels_last": False}, {"feature_norm": 1.0}, {"feature_dim": 4}],
)
def test_a_frozen_head_stays_while_the_rest_learns(flags):
    flags |= {"etf_head": True, "num_minibatches": 2, "update_epochs": 1}
    agent, args, rollout, *_ = collect_lives(**flags)
    before = {name: tensor.clone() for name, tensor in agent.state_dict().items()}
    theta = script.flatten_parameters(agent)
    optimizer = script.Adam(theta, args.learning_rate, args.adam_eps)
    batch = script.make_batch(rollout, args)
    losses = script.update(agent, theta, script.loss_gradient, optimizer, batch, args)
    assert all(map(math.isfinite, losses.values()))
    changed = {
        name for name, tensor in agent.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == set(before) - {"head.weight"}
    features, logits = agent(rollout.obs[0])
    values = agent.value(rollout.obs[0], features)
    assert {features.dtype, logits.dtype, values.dtype} == {torch.float32}
    torch.testing.assert_close(logits, features @ agent.head.weight.T)
    assert features.shape == (2, args.feature_dim or 16)
    assert (agent.critic is None) == (args.feature_dim is None)
    if args.feature_norm:
        assert (features.norm(dim=1) <= 1 + 1e-5).all()


def test_half_precision_and_memory_format_change_rounding_only():
    """The convolutions work in the format of their images, whatever that of their weights."""
    outputs = []
    for flags in ({}, {"channels_last": False}, {"amp": True}):
        agent, args = make_agent(num_actions=4, hidden_size=512, **flags)
        script.flatten_parameters(agent)
        formats = []

        def record(layer, inputs, output, formats=formats):
            formats.append(output.is_contiguous(memory_format=torch.channels_last))

        for layer in agent.actor.layers[:5:2]:
            layer.register_forward_hook(record)
        generator = torch.Generator().manual_seed(1)
        obs = torch.randint(0, 256, (8, *SHAPE), dtype=torch.uint8, generator=generator)
        outputs.append(agent(obs)[0])
        assert formats == [args.channels_last] * 3
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-4)
    assert 1e-6 < (outputs[2] - outputs[0]).abs().mean() < 0.02


@pytest.mark.parametrize("flags", [{}, {"amp": True}])
def test_the_compiled_gradient_is_the_same(flags):
    agent, args, rollout, *_ = collect_lives(etf_head=True, **flags)
    batch = script.make_batch(rollout, args)
    script.flatten_parameters(agent)
    compiled = torch.compile(script.loss_gradient, fullgraph=True)
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        expected, parts = script.loss_gradient(agent, batch, args)
        gradient, compiled_parts = compiled(agent, batch, args)
    tolerance = {"rtol": 0.05, "atol": 1e-3} if args.amp else {"rtol": 1e-3, "atol": 1e-5}
    torch.testing.assert_close(gradient, expected, **tolerance)
    torch.testing.assert_close(compiled_parts, parts, **tolerance)


def test_tensors_stay_with_the_agent(monkeypatch):
    """The nearest thing to CUDA on a machine without it: a forgotten transfer fails on meta too."""
    nonzero = "torch.fx.experimental._config.meta_nonzero_assume_all_nonzero"
    monkeypatch.setattr(nonzero, True, raising=False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # none there
    agent, args, rollout, *_ = collect_lives()
    agent.to("meta")
    batch = script.make_batch(script.Rollout(*(tensor.to("meta") for tensor in rollout)), args)
    gradient, _ = script.loss_gradient(agent, batch, args)
    assert gradient.device.type == "meta"


def test_heads_share_all_else_and_all_that_is_drawn_later():
    drawn = []
    for flags in (
        {},
        {"etf_head": True},
        {"etf_head": True, "head_frame": "random"},
        {"etf_head": True, "head_trainable": True},
    ):
        agent, *_ = collect_lives(**flags)
        drawn.append((agent.state_dict(), torch.randperm(24)))
    first, order = drawn[0]
    for state, other_order in drawn[1:]:
        assert torch.equal(order, other_order)
        same = {name for name in state if torch.equal(state[name], first[name])}
        assert same == {*first} - {"head.weight", "head.bias"}


def test_heads_share_the_action_noise(monkeypatch):
    """With logits of 0, both heads take the same actions."""
    actions = []
    for etf_head in (False, True):
        agent, args = make_agent(etf_head=etf_head)
        monkeypatch.setattr(agent.head, "forward", lambda features: torch.zeros(len(features), 3))
        envs = Lives()
        state = script.EnvState(envs.frames(), np.array([3, 3]))
        rollout, _ = script.collect(envs, agent, state, args)
        actions.append(rollout.actions)
    assert torch.equal(*actions) and len(actions[0].unique()) == 3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("head", ["--no-etf-head", "--etf-head"])
def test_a_run_leaves_logs_and_resumes(launch, backend, head):
    run = launch(script, "--backend", backend, head, "--total-timesteps", 600, *SMALL)
    game = {"envpool": "Breakout-v5", "ale": "ALE-Breakout-v5"}[backend]
    kind = "etf" if head == "--etf-head" else "linear"
    assert run.path.name.startswith(f"{game}__ppo_atari_acpg__{kind}__1__")
    assert run.episodes and run.args["env_id"] == game.replace(
        "-", "/", 1 if backend == "ale" else 0
    )
    scalars = run.scalars
    assert {"charts/SPS", "charts/episodic_return", "losses/value_loss"} <= scalars.keys()
    assert {"losses/explained_variance", "collapse/feature_norm"} <= scalars.keys()
    stages = ("environment", "inference", "learning", "collapse")
    assert {f"seconds/{stage}" for stage in stages} <= scalars.keys()
    assert all(math.isfinite(value) for points in scalars.values() for _, value in points)
    end = run.checkpoint
    assert 600 <= end["global_step"] <= 601
    launch(script, "--resume", run.path / "checkpoint.pt", "--total-timesteps", 900)
    after = run.checkpoint
    assert after["iteration"] > end["iteration"] and 900 <= after["global_step"] <= 901
    rates = run.scalars["charts/learning_rate"]
    steps = [step for step, _ in rates]
    assert steps == sorted(set(steps)) and len(steps) == after["iteration"]
    next_rate = dict(rates)[min(step for step in steps if step > end["global_step"])]
    expected = run.args["learning_rate"] * (1 - end["global_step"] / 900)
    assert next_rate == pytest.approx(expected, rel=1e-6)
    taken, more = end["optimizer"]["steps"], after["optimizer"]["steps"]
    assert more / taken == pytest.approx(after["iteration"] / end["iteration"], rel=0.02)
    steps = [episode["global_step"] for episode in run.episodes]
    assert steps == sorted(steps) and steps[-1] <= after["global_step"]


def test_resuming_a_finished_run_changes_nothing(launch):
    run = launch(script, "--total-timesteps", 64, *SMALL)
    before = deterministic(run)
    launch(script, "--resume", run.path / "checkpoint.pt")
    assert deterministic(run) == before


def test_collapse_is_measured_on_valid_rows(launch, monkeypatch):
    rows, measure = [], script.collapse_metrics
    monkeypatch.setattr(
        script, "collapse_metrics", lambda *args: rows.append(len(args[0])) or measure(*args)
    )
    run = launch(script, "--total-timesteps", 600, *SMALL)
    assert sum(rows) == run.checkpoint["global_step"] and 0 < min(rows) < max(rows) == 16


@pytest.mark.parametrize("backend", BACKENDS)
def test_same_seed_same_run(launch, backend):
    first, again = (
        launch(script, "--total-timesteps", 300, *SMALL, "--backend", backend) for _ in range(2)
    )
    traces = [deterministic(run) for run in (first, again)]
    for scalars, *_ in traces:
        for tag in [tag for tag in scalars if tag.startswith("seconds/")]:
            del scalars[tag]
    assert traces[0] == traces[1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_ends_with_whole_greedy_games_of_the_agent_that_was_saved(launch, backend):
    """Pong's, which end by themselves: the first to 21 points, after 19 seconds at least."""
    env_id = {"envpool": "Pong-v5", "ale": "ALE/Pong-v5"}[backend]
    flags = (*SMALL, "--eval-episodes", 2, "--backend", backend, "--env-id", env_id)
    run = launch(script, "--total-timesteps", 64, *flags)
    rows = run.evaluation
    assert [row["global_step"] for row in rows] == [run.checkpoint["global_step"]] * 2
    assert all(-21 <= row["return"] <= 21 and row["length"] > 19 * 15 for row in rows)
    mean = np.mean([row["return"] for row in rows])
    assert run.scalars["eval/episodic_return"] == [(64, pytest.approx(mean))]
    args = script.Args(**run.args)
    envs = script.make_envs(args, 2)
    agent = script.make_agent(envs, args)
    agent.load_state_dict(run.checkpoint["agent"])
    again = script.evaluate(envs, agent, 2, seed=1)
    envs.close()
    assert again == [(row["return"], row["length"]) for row in rows]


def test_evaluation_counts_unclipped_whole_games_of_all_lives():
    agent, _ = make_agent()
    results = script.evaluate(Lives(), agent, episodes=3, seed=1)
    assert results == [(3.0, 5), (15.0, 9), (3.0, 5)]


def test_evaluation_asks_for_the_games_that_still_run(monkeypatch):
    agent, _ = make_agent()
    rows = []
    forward = agent.forward
    monkeypatch.setattr(agent, "forward", lambda obs: rows.append(len(obs)) or forward(obs))
    script.evaluate(Lives(), agent, episodes=2, seed=1)
    assert rows == [2] * 5 + [1] * 4


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, number, code):
    flags = ("--total-timesteps", 100_000, *SMALL, "--checkpoint-every", 100_000)
    process = start(script, tmp_path, *flags)
    wait_for(
        lambda: any(p.stat().st_size > 80 for p in tmp_path.glob("runs/*/episodes.csv")), process
    )
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    (path,) = tmp_path.glob("runs/*")
    step = Run(path).checkpoint["global_step"]
    resume = f"--resume {path.relative_to(tmp_path)}/checkpoint.pt"
    how = f"go on with: python {script.__file__} {resume}"
    assert (process.returncode, err) == (code, f"stopped at step {step}; {how}\n")
    assert Run(path).episodes[-1]["global_step"] <= step
    more = (*resume.split(), "--total-timesteps", step + 32)
    assert finished(script, tmp_path, *more)[0] == 0
    assert Run(path).checkpoint["global_step"] >= step + 32


def test_what_a_checkpoint_was_trained_with_cannot_change(launch, capsys):
    run = launch(script, "--total-timesteps", 64, *SMALL)
    for flags in ("--full-action-space", "--hidden-size 64", "--env-id Pong-v5", "--etf-head"):
        flag, *_ = flags.split()
        resume = ("--resume", run.path / "checkpoint.pt")
        line = refuses(script, capsys, launch, run.path, *resume, *flags.split())
        assert line.startswith(f"error: {flag} ") and "was trained with" in line


def test_a_nan_ends_the_run(launch, monkeypatch):
    monkeypatch.setattr(script, "gae", lambda rewards, *args: rewards * math.nan)
    with pytest.raises(SystemExit, match="iteration 1: policy_loss is nan"):
        launch(script, "--total-timesteps", 64, *SMALL)


BAD = {
    "--env-id ALE/Breakout-v5": "it is Breakout-v5 there",
    "--env-id Breakout-v5 --backend ale": "it is ALE/Breakout-v5 there",
    "--env-id CartPole-v1": "ppo_acpg.py",
    "--env-id CartPole-v1 --backend ale": "ppo_acpg.py",
    "--env-id BreakoutNoFrameskip-v4": "is no game of --backend envpool",
    "--sticky-actions 1.5": "lie in [0, 1]",
    "--num-minibatches 3": "must divide",
    "--num-minibatches 1024": "minibatches of one row",
    "--num-steps 1000000": "to learn from a rollout takes",
    "--num-envs 1000000": "lie in [1, 4096]",
    "--total-timesteps 0": "lie in [1, ",
    "--hidden-size 16 --etf-head --full-action-space": "18 actions needs feature_dim >= 17, not 16",
    "--feature-dim 2 --etf-head": "4 actions needs feature_dim >= 3, not 2",
    "--pin-memory": "needs --cuda",
    "--feature-activation relu --etf-head": "cannot align with --etf-head",
    "--head-trainable": "needs --etf-head",
    "--head-frame random": "needs --etf-head",
    "--resume missing.pt": "No such file",
}


@pytest.mark.parametrize("flags", BAD)
def test_bad_flags(launch, capsys, tmp_path, monkeypatch, flags):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = refused(launch, script, capsys, *flags.split())
    flag, value = [*flags.split(), "True"][:2]
    assert (
        line.startswith(f"error: {flag} {value.replace('--etf-head', 'True')}: ")
        and BAD[flags] in line
    )
    assert not any(tmp_path.iterdir())


def test_half_precision_is_refused_where_it_is_slower(launch, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(script, "cpu_has_bfloat16", lambda: False)
    line = refused(launch, script, capsys, "--amp")
    assert line.startswith("error: --amp True: is ten times slower on this CPU")
    assert not any(tmp_path.iterdir())
    envs = make("envpool", "Pong", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    script.check_combinations(script.Args(amp=True, pin_memory=True), envs)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(script, "cpu_has_bfloat16", lambda: True)
    script.check_combinations(script.Args(amp=True), envs)
    envs.close()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("error", [ImportError("No module"), FileNotFoundError("no ROM")])
def test_a_missing_package_or_rom(launch, capsys, monkeypatch, tmp_path, backend, error):
    def missing(name):
        raise error

    monkeypatch.setattr(script, "import_module", missing)
    line = refused(launch, script, capsys, "--backend", backend)
    assert line.startswith(f"error: --backend {backend}: {error}; pip install ")
    assert {"envpool": "envpool", "ale": "ale-py"}[backend] in line and not any(tmp_path.iterdir())


def test_cuda_is_used_where_there_is_one_and_said(launch, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = launch(script, "--total-timesteps", 32, *SMALL)
    said = f"training on cpu, logs in runs/{run.path.name}"
    assert run.args["cuda"] and said in capsys.readouterr().out
    asked = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(script.Agent, "to", lambda self, device: asked.append(device) or self)
    envs = make("envpool", "Pong", 1)
    script.make_agent(envs, script.Args())
    script.make_agent(envs, script.Args(cuda=False))
    envs.close()
    assert asked == ["cuda", "cpu"]


# How it reads
@pytest.mark.parametrize(
    "check",
    [
        "test_width",
        "test_one_thought_a_line",
        "test_two_halves_and_a_loop_that_shows_the_algorithm",
        "test_a_script_stands_alone",
        "test_what_the_first_docstring_says_to_edit_is_there",
        "test_limits_are_of_flags_and_hold_their_defaults",
    ],
)
def test_form(check):
    getattr(form, check)(script)


def test_help_is_grouped_and_says_every_flag_in_a_phrase(tmp_path):
    form.test_help_is_grouped_and_says_every_flag_in_a_phrase(script, tmp_path)


OWN = {
    *("AlgorithmArgs", "HeadArgs", "RunArgs", "check_combinations", "Backbone", "Agent"),
    *("Rollout", "Episode", "EnvState", "collect", "make_batch", "train", "Stopwatch"),
    *("cpu_has_bfloat16", "Environments", "SeededPool", "make_envs", "known_games", "evaluate"),
    *("Run", "main"),
}
OWN_METHODS = {"Agent": ["__init__"], "Environments": ["__init__"], "Run": ["finish"]}


def methods(text: str) -> dict[str, str]:
    return shared.definitions(textwrap.dedent(text.split("\n", 1)[1]))


def test_what_is_not_its_own_is_the_text_of_ppo_acpg():
    theirs, ours = (
        shared.definitions(Path(name).read_text()) for name in ("ppo_acpg.py", "ppo_atari_acpg.py")
    )
    assert {name for name in ours if ours[name] != theirs.get(name)} == OWN
    for name, own in OWN_METHODS.items():
        before, after = methods(theirs[name]), methods(ours[name])
        assert [method for method in after if after[method] != before.get(method)] == own
