"""ppo_atari_acpg.py: both back-ends against a plain ALE environment, lives, and whole runs."""

import math
from types import SimpleNamespace

import ale_py
import gymnasium as gym
import numpy as np
import pytest
import torch

import ppo_atari_acpg as script
from tests.test_life import deterministic
from tests.test_refusals import refused

BACKENDS = ["envpool", "ale"]
SMALL = ("--num-envs", 2, "--num-steps", 8, "--num-threads", 1, "--collapse-every", 1)
gym.register_envs(ale_py)


def make(backend: str, game: str, num_envs: int, seed: int = 1, **flags):
    env_id = {"envpool": f"{game}-v5", "ale": f"ALE/{game}-v5"}[backend]
    args = script.Args(backend=backend, env_id=env_id, num_envs=num_envs, **flags)
    return script.make_envs(args, num_envs, seed), args


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
    envs, _ = make(backend, game, 1)
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
        scores.append(info["episode"]["r"][0])
        assert scores[-1] == sum(reward for _, reward, _, _ in trace)
        assert info["episode"]["l"][0] == len(trace)
        assert any(replays(plain, noops, backend == "ale", actions, trace) for noops in range(31))
        obs, rewards, terminated, truncated, _ = envs.step(
            np.array([1])
        )  # the row that only resets
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
    envs, _ = make(backend, "Breakout", 2)
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
    traces = []
    for seed in (5, 5, 6):
        envs, _ = make(backend, "SpaceInvaders", 2, seed)
        envs.reset(seed=seed)
        rng = np.random.default_rng(0)
        traces.append(np.stack([envs.step(rng.integers(6, size=2))[0].copy() for _ in range(40)]))
        envs.close()
    assert np.array_equal(traces[0], traces[1]) and not np.array_equal(traces[0], traces[2])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sticky_actions", [0.0, 1.0])
def test_sticky_actions_and_all_eighteen(backend, sticky_actions):
    """With actions that always stick, the agent's choice does not matter."""
    frames = []
    for choice in (3, 4):  # right and left, Pong's up and down
        envs, _ = make(backend, "Pong", 1, sticky_actions=sticky_actions, full_action_space=True)
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
        self.clock, self.over = np.zeros(2, int), np.zeros(2, bool)

    def step(self, actions):
        self.clock = np.where(self.over, 0, self.clock + 1)
        reward = np.where(self.over, 0.0, np.array([7.0, -2.0, 0.0])[self.clock % 3])
        terminated, truncated = self.clock == 9, (self.clock == 5) & (np.arange(2) == 0)
        self.over = terminated | truncated
        info = {
            "lives": 3 - self.clock // 3,
            "episode": {"r": np.array([1.0, 2.0]), "l": self.clock.copy()},
        }
        return self.frames(), reward, terminated, truncated, info

    def frames(self):
        return np.broadcast_to(self.clock[:, None, None, None], (2, 4, 84, 84)).astype(np.uint8)


def collect_lives(num_steps: int = 12, **flags):
    torch.manual_seed(0)
    args = script.Args(num_envs=2, num_steps=num_steps, hidden_size=16, **flags)
    agent, envs = script.Agent(3, args), Lives()
    return (
        agent,
        args,
        script.collect(envs, agent, envs.frames(), envs.over, np.array([3, 3]), args),
    )


def test_a_life_lost_is_terminal_for_learning_only():
    agent, _, (rollout, (_, over, lives), episodes, _) = collect_lives()
    ones = np.ones((12, 2), bool)
    terminated, ended, valid = ~ones, ~ones, ones.copy()
    terminated[[2, 5, 8], 1] = terminated[[2, 8], 0] = (
        True  # lives lost after three steps and six, the game after nine
    )
    ended[terminated] = ended[[4, 10], 0] = True
    valid[[5, 11], 0] = valid[9, 1] = False  # the rows after the game was cut off, or over
    assert np.array_equal(rollout.terminated, terminated)
    assert np.array_equal(rollout.ended, ended)
    assert np.array_equal(rollout.valid, valid)
    assert rollout.rewards[:3, 1].tolist() == [-1, 0, 1] and rollout.rewards.abs().max() == 1
    assert episodes == [(10, 1.0, 5), (17, 2.0, 9), (20, 1.0, 5)]
    assert over.tolist() == [False, False] and lives.tolist() == [3, 3]
    assert (
        rollout.obs[:, :, 0, 0, 0].tolist()[:3] == [[0, 0], [1, 1], [2, 2]]
        and rollout.obs[5, 0, 0, 0, 0] == 5
    )
    with torch.inference_mode():
        for kept, computed in zip(
            (rollout.features, rollout.logits, rollout.values), agent(rollout.obs.flatten(0, 1))
        ):
            torch.testing.assert_close(kept.flatten(0, 1), computed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("num_steps", "first_row"), [(5, "valid"), (2, "terminated")])
def test_the_next_rollout_goes_on_where_the_last_one_ended(num_steps, first_row):
    """The first game is cut off in the fifth row, the last of five; both lose a life in the third, the second in the sixth."""
    torch.manual_seed(0)
    args, envs = script.Args(num_envs=2, num_steps=num_steps, hidden_size=16), Lives()
    agent, state = script.Agent(3, args), (envs.frames(), envs.over, np.array([3, 3]))
    _, state, *_ = script.collect(envs, agent, *state, args)
    rollout, *_ = script.collect(envs, agent, *state, args)
    assert rollout.obs[0, :, 0, 0, 0].tolist() == [num_steps] * 2
    assert rollout.valid[0].tolist() == [first_row != "valid", True]
    assert rollout.terminated[0].tolist() == [first_row == "terminated", True]


def test_a_game_that_shows_no_lives_before_it_ends_loses_its_last_one_once():
    class Flicker(Lives):
        def step(self, actions):
            *result, info = super().step(actions)
            info["lives"] = np.where(self.clock >= 7, 0, info["lives"])
            return *result, info

    args = script.Args(num_envs=2, num_steps=9, hidden_size=16)
    envs = Flicker()
    rollout, *_ = script.collect(
        envs, script.Agent(3, args), envs.frames(), envs.over, np.array([3, 3]), args
    )
    assert np.flatnonzero(rollout.terminated[:, 1]).tolist() == [2, 5, 8]


def test_actions_follow_the_policy_mixed_with_chance():
    """Frequencies over 1000 actions of a network that ignores its input: within 5 standard deviations."""
    logits = torch.tensor([0.0, 1.0, 2.0])

    class Fixed(torch.nn.Module):
        value = SimpleNamespace(weight=logits)

        def forward(self, obs):
            return torch.zeros(2, 16), logits.expand(2, 3), torch.zeros(2)

    for epsilon in (0.0, 0.5, 1.0):
        args, envs = script.Args(num_envs=2, num_steps=500, epsilon=epsilon), Lives()
        rollout, *_ = script.collect(
            envs, Fixed(), envs.frames(), envs.over, np.array([3, 3]), args
        )
        expected = script.behaviour_log_probs(logits, epsilon).exp()
        frequencies = torch.bincount(rollout.actions.flatten(), minlength=3) / 1000
        assert (
            (frequencies - expected).abs() < 5 * (expected * (1 - expected) / 1000).sqrt()
        ).all()


def test_nothing_of_an_invalid_row_reaches_the_loss():
    agent, args, (rollout, *_) = collect_lives()
    gradients = []
    for filler in (0.0, math.nan):
        rewards, logits = rollout.rewards.clone(), rollout.logits.clone()
        rewards[~rollout.valid] = logits[:-1][~rollout.valid] = filler
        planted = rollout._replace(rewards=rewards, logits=logits)
        loss, parts = script.ppo_loss(
            agent, args, *(column.clone() for column in script.make_batch(planted, args))
        )
        agent.zero_grad()
        loss.backward()
        gradients.append(
            [*(parameter.grad.clone() for parameter in agent.parameters()), *parts.values()]
        )
    assert all(torch.equal(clean, planted) for clean, planted in zip(*gradients))


def test_the_batch_is_the_rollout():
    _, args, (rollout, *_) = collect_lives(epsilon=0.2, gae_lambda=0.0)
    _, _, log_probs, values, advantages, returns, valid = script.make_batch(rollout, args)
    probs = 0.8 * rollout.logits[:-1].softmax(-1).flatten(0, 1) + 0.2 / 3
    expected = probs[torch.arange(24), rollout.actions.flatten()].log()
    torch.testing.assert_close(log_probs[valid], expected[valid])
    bootstrap = 0.99 * rollout.values[1:] * ~rollout.terminated
    expected = (rollout.rewards + bootstrap - rollout.values[:-1]).flatten()
    torch.testing.assert_close(advantages[valid], expected[valid])
    torch.testing.assert_close(returns[valid], (advantages + values)[valid])
    assert valid.sum() == 21 and not any(
        column[~valid].any() for column in (log_probs, values, advantages, returns)
    )


@pytest.mark.parametrize(
    "flags", [{}, {"amp": True}, {"channels_last": False}, {"feature_norm": 1.0}]
)
def test_a_frozen_head_stays_while_the_rest_learns(flags):
    agent, args, (rollout, *_) = collect_lives(
        etf_head=True, num_minibatches=2, update_epochs=1, **flags
    )
    before = {name: tensor.clone() for name, tensor in agent.state_dict().items()}
    optimizer = torch.optim.Adam(agent.parameters())
    losses = script.update(
        agent, script.ppo_loss, optimizer, script.make_batch(rollout, args), args
    )
    assert all(map(math.isfinite, losses.values()))
    changed = {
        name for name, tensor in agent.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == set(before) - {"head.weight"}
    features, logits, values = agent(rollout.obs[0].clone())
    assert {features.dtype, logits.dtype, values.dtype} == {torch.float32}
    torch.testing.assert_close(logits, features @ agent.head.weight.T)
    if args.feature_norm:
        assert (features.norm(dim=1) <= 1 + 1e-5).all()


def test_half_precision_and_memory_format_change_rounding_only():
    outputs = []
    for flags in ({}, {"channels_last": False}, {"amp": True}):
        torch.manual_seed(0)
        agent = script.Agent(4, script.Args(**flags))
        obs = torch.randint(
            0, 256, (8, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
        )
        outputs.append(agent(obs)[0])
        channels_last = agent.backbone[2].weight.is_contiguous(memory_format=torch.channels_last)
        assert channels_last == ("channels_last" not in flags)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-4)
    assert 1e-6 < (outputs[2] - outputs[0]).abs().mean() < 0.02


def test_the_compiled_loss_is_the_loss():
    agent, args, (rollout, *_) = collect_lives(etf_head=True)
    columns, results = [column.clone() for column in script.make_batch(rollout, args)], []
    for loss_fn in (script.ppo_loss, torch.compile(script.ppo_loss)):
        loss, _ = loss_fn(agent, args, *columns)
        agent.zero_grad()
        loss.backward()
        results.append([loss, *(parameter.grad.clone() for parameter in agent.parameters())])
    for eager, compiled in zip(*results):
        torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("head", ["--no-etf-head", "--etf-head"])
def test_a_run_leaves_logs_and_resumes(launch, backend, head):
    run = launch(
        script, "--backend", backend, head, "--total-timesteps", 600, *SMALL, "--save-model"
    )
    game = {"envpool": "Breakout-v5", "ale": "ALE-Breakout-v5"}[backend]
    assert run.path.name.startswith(
        f"{game}__ppo_atari_acpg__{'etf' if head == '--etf-head' else 'linear'}__1__"
    )
    assert run.episodes
    scalars = run.scalars
    assert {
        "charts/SPS",
        "charts/episodic_return",
        "losses/value_loss",
        "collapse/feature_norm",
    } <= set(scalars)
    assert {
        "seconds/environment",
        "seconds/inference",
        "seconds/learning",
        "seconds/collapse",
    } <= set(scalars)
    assert all(math.isfinite(value) for points in scalars.values() for _, value in points)
    end = run.checkpoint
    launch(script, "--resume", run.path / "checkpoint.pt", "--total-timesteps", 900)
    assert run.checkpoint["iteration"] > end["iteration"] and run.checkpoint["global_step"] >= 900
    steps = [step for step, _ in run.scalars["charts/learning_rate"]]
    assert steps == sorted(set(steps)) and len(steps) == run.checkpoint["iteration"]
    before, after = (
        checkpoint["optimizer"]["state"][0]["step"] for checkpoint in (end, run.checkpoint)
    )
    assert after / before == pytest.approx(run.checkpoint["iteration"] / end["iteration"])


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
def test_evaluation_plays_whole_games_of_the_saved_agent_by_either_backend(launch, capsys, backend):
    run = launch(script, "--total-timesteps", 64, *SMALL, "--save-model")
    returns = []
    for name in ("agent.pt", "checkpoint.pt"):
        capsys.readouterr()
        launch(script, "--evaluate", run.path / name, "--eval-episodes", 2, "--backend", backend)
        returns.append(capsys.readouterr().out)
    game = {"envpool": "Breakout-v5", "ale": "ALE/Breakout-v5"}[backend]
    assert (
        returns[0].startswith(f"2 greedy episodes of {game}: return ") and returns[0] == returns[1]
    )


def test_what_a_checkpoint_was_trained_with_cannot_change(launch, capsys, tmp_path):
    run = launch(script, "--total-timesteps", 64, *SMALL, "--save-model")
    for flags in (
        ["--full-action-space"],
        ["--hidden-size", "64"],
        ["--env-id", "Pong-v5"],
        ["--no-channels-last"],
    ):
        line = refused(launch, script, capsys, "--resume", run.path / "checkpoint.pt", *flags)
        assert (
            line.startswith(f"error: {flags[0].replace('no-', '')} ") and "was trained with" in line
        )
    assert [*(tmp_path / "runs").iterdir()] == [run.path]


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
    "--total-timesteps 0": "lie in [1, inf]",
    "--hidden-size 16 --etf-head --full-action-space": "18 actions needs feature_dim >= 17, not 16",
    "--pin-memory": "needs --cuda",
    "--feature-activation relu --etf-head": "cannot align with --etf-head",
    "--head-trainable": "needs --etf-head",
    "--capture-video": "--evaluate",
    "--capture-video --backend ale": "--backend envpool",
    "--resume missing.pt": "No such file",
    "--evaluate missing.pt": "No such file",
}


@pytest.mark.parametrize("flags", BAD)
def test_bad_flags(launch, capsys, tmp_path, flags):
    line = refused(launch, script, capsys, *flags.split())
    flag, value = [*flags.split(), "True"][:2]
    assert (
        line.startswith(f"error: {flag} {value.replace('--backend', 'True')}: ")
        and BAD[flags] in line
    )
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("error", [ImportError("No module"), FileNotFoundError("no ROM")])
def test_a_missing_package_or_rom(launch, capsys, monkeypatch, tmp_path, backend, error):
    def missing(name):
        raise error

    monkeypatch.setattr(script, "import_module", missing)
    line = refused(launch, script, capsys, "--backend", backend)
    assert line.startswith(f"error: --backend {backend}: {error}; pip install ")
    assert {"envpool": "envpool", "ale": "ale-py"}[backend] in line and not any(tmp_path.iterdir())


def test_a_gpu_that_is_not_there(launch, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert refused(launch, script, capsys, "--cuda").startswith("error: --cuda True: ")
