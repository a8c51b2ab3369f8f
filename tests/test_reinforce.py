"""REINFORCE: whole episodes without a preference for short ones, a count of steps that all reach
the gradient, the textbook's gradient, and what ends a run."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reinforce_acpg
from reinforce_acpg import (
    Agent,
    Args,
    Batch,
    Rollout,
    behaviour_log_probs,
    collect_episodes,
    explained_variance,
    loss_gradient,
    make_batch,
    normalize,
    reinforce_loss,
    update,
)
from tests.conftest import Run

ROOT = Path(__file__).parent.parent


# Environments that remember
class Recorded(gym.Env):
    """Episodes of very different lengths that terminate or are truncated. All are kept in `played`,
    in the order of their starts, as the environment itself saw them."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (5,), np.float32)
    action_space = gym.spaces.Discrete(3)
    played: ClassVar[list[SimpleNamespace]] = []

    def observe(self) -> np.ndarray:
        """As good as unique, so that it tells which step it is of."""
        return self.np_random.normal(size=5).astype(np.float32)

    def draw_length(self) -> float:
        return self.np_random.choice([1, 2, 5, 40])

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.length = self.draw_length()
        self.is_cut_off = self.np_random.random() < 0.5
        self.episode = SimpleNamespace(steps=[], last_obs=None, terminated=None)
        self.played.append(self.episode)
        self.obs = self.observe()
        return self.obs, {}

    def step(self, action):
        reward = float(self.np_random.normal() + action)
        self.episode.steps.append(SimpleNamespace(obs=self.obs, action=action, reward=reward))
        self.obs = self.observe()
        over = len(self.episode.steps) >= self.length
        if over:
            self.episode.last_obs = self.obs
            self.episode.terminated = not self.is_cut_off
        return self.obs, reward, over and not self.is_cut_off, over and self.is_cut_off, {}


class Fixed(Recorded):
    """The first environment has episodes of one step, the second of two, and so on."""

    made = 0

    def __init__(self):
        Fixed.made += 1
        self.number = Fixed.made

    def draw_length(self):
        return self.number


class Endless(Recorded):
    """From the tenth start on, every other episode of an environment does not end."""

    starts = 0

    def draw_length(self):
        self.starts += 1
        if self.starts >= 10 and self.starts % 2 == 0:
            return math.inf
        return self.np_random.integers(1, 9)


class EndlessNan(Recorded):
    """An episode that does not end because its state is no number."""

    def observe(self):
        return np.full(5, np.nan, np.float32)

    def draw_length(self):
        return math.inf


for toy in (Recorded, Fixed, Endless, EndlessNan):
    gym.register(f"{toy.__name__}-v0", toy, disable_env_checker=True)


@pytest.fixture(autouse=True)
def forget():
    Recorded.played.clear()
    Fixed.made = 0


def key(obs) -> bytes:
    return np.asarray(obs, np.float32).tobytes()


def make_agent(**flags) -> tuple[Agent, Args]:
    """An agent for `Recorded`, and its arguments."""
    torch.manual_seed(0)
    args = Args(**flags)
    return Agent((5,), 3, args), args


def play(env_id: str, num_envs: int, seed: int = 0, **flags):
    """What `collect_episodes` returns for a uniform policy, and the arguments."""
    torch.manual_seed(seed)
    args = Args(num_envs=num_envs, **{"total_timesteps": 10**9} | flags)
    envs = reinforce_acpg.make_envs(env_id, num_envs)
    envs.reset(seed=seed)
    Recorded.played.clear()  # the reset that only seeds
    logits = np.zeros((num_envs, int(envs.single_action_space.n)), np.float32)
    return *collect_episodes(envs, lambda obs: logits, args), args


def steps_of(episodes: list[SimpleNamespace]) -> list[SimpleNamespace]:
    return [step for episode in episodes for step in episode.steps]


# The episodes that are learned from, and how they are counted
@pytest.mark.parametrize(("num_envs", "episodes"), [(8, 8), (4, 10), (8, 3)])
def test_the_first_episodes_started_are_used_whatever_their_length(num_envs, episodes):
    """Half of the episodes have 2 steps, half 20. Whoever takes the first that end sees mostly the
    short ones."""
    lengths = []
    for seed in range(60):
        rollout, ended, steps_taken, _ = play(
            "tests.probes:TwoLengths-v0", num_envs, seed, episodes_per_update=episodes
        )
        assert len(ended) == episodes
        assert all(episode.length in (2, 20) for episode in ended)
        learned = sum(episode.length for episode in ended)
        assert int(rollout.valid.sum()) == learned <= steps_taken
        assert max(episode.steps for episode in ended) == learned
        lengths += [episode.length for episode in ended]
    share = np.mean(np.array(lengths) == 2)
    assert abs(share - 0.5) < 3 * 0.5 / math.sqrt(len(lengths))


@pytest.mark.parametrize(("num_envs", "episodes"), [(8, 8), (3, 11), (8, 2), (1, 4)])
def test_every_counted_step_reaches_the_batch_and_no_other_does(num_envs, episodes):
    """The batch is what the environments recorded of the episodes that started first."""
    agent, _ = make_agent()
    saw_longer_ones_start_first = False
    for seed in range(8):
        rollout, ended, steps_taken, args = play(
            "Recorded-v0", num_envs, seed, episodes_per_update=episodes
        )
        played = [*Recorded.played]
        first = played[:episodes]
        steps = {key(step.obs): step for step in steps_of(first)}
        batch = make_batch(agent, rollout, args)

        assert [key(obs) for obs in rollout.obs[:-1][rollout.valid]] == [*map(key, batch.obs)]
        assert sorted(map(key, batch.obs)) == sorted(steps)
        assert all(steps[key(o)].action == a for o, a in zip(batch.obs, batch.actions.tolist()))
        assert len(ended) == episodes
        assert sorted(episode.length for episode in ended) == sorted(len(e.steps) for e in first)
        counted = sum(episode.length for episode in ended)
        assert counted == int(rollout.valid.sum()) == len(batch.actions)
        assert steps_taken == len(steps_of(played)) >= counted
        expected = sorted(sum(step.reward for step in episode.steps) for episode in first)
        assert sorted(e.episode_return for e in ended) == pytest.approx(expected, abs=1e-9)
        later = played[episodes:]
        saw_longer_ones_start_first |= any(
            early.terminated is not None and len(early.steps) < len(late.steps)
            for early in later
            for late in first
        )
    assert saw_longer_ones_start_first == (num_envs > 1)


def test_the_first_that_start_are_the_long_ones_where_these_start_first():
    """Environment k has episodes of k steps: the first that end would be those of the first."""
    rollout, ended, steps_taken, _ = play("Fixed-v0", 6, episodes_per_update=6)
    assert [episode.length for episode in ended] == [1, 2, 3, 4, 5, 6]
    assert [episode.steps for episode in ended] == [6, 11, 15, 18, 20, 21]
    assert rollout.valid.sum(dim=0).tolist() == [1, 2, 3, 4, 5, 6]
    assert rollout.valid.sum(dim=1).tolist() == [6, 5, 4, 3, 2, 1]
    # In six rows: one step and a reset three times; two and a reset twice; three, a reset, two; ...
    assert steps_taken == 3 + 4 + 5 + 5 + 5 + 6


def test_what_is_unfinished_is_discarded_but_counts_as_taken():
    """Four environments, two episodes: those of the first two, whatever the others do meanwhile."""
    for seed in range(5):
        rollout, _, steps_taken, _ = play(
            "tests.probes:TwoLengths-v0", 4, seed, episodes_per_update=2
        )
        assert not rollout.valid[:, 2:].any()
        resets = int(rollout.ended[:-1].sum())
        assert steps_taken == 4 * len(rollout.rewards) - resets
        firsts = [rollout.ended[:, i].nonzero()[0].item() for i in (0, 1)]
        assert rollout.valid[:, :2].sum(dim=0).tolist() == [first + 1 for first in firsts]


class Filler(gym.vector.VectorWrapper):
    """Rewards that are NaN where a step only resets, as a back-end may have it."""

    def reset(self, **kwargs):
        self.just_ended = np.zeros(self.num_envs, np.bool_)
        return self.env.reset(**kwargs)

    def step(self, actions):
        obs, rewards, terminated, truncated, info = self.env.step(actions)
        rewards = np.where(self.just_ended, np.nan, rewards)
        self.just_ended = terminated | truncated
        return obs, rewards, terminated, truncated, info


def test_rewards_of_steps_that_only_reset_reach_nothing(launch, monkeypatch):
    make_envs = reinforce_acpg.make_envs
    monkeypatch.setattr(reinforce_acpg, "make_envs", lambda *args: Filler(make_envs(*args)))
    rollout, ended, _, args = play("Recorded-v0", 4, episodes_per_update=10)
    assert rollout.rewards.isnan().any()
    assert all(math.isfinite(episode.episode_return) for episode in ended)
    agent, _ = make_agent()
    assert make_batch(agent, rollout, args).advantages.isfinite().all()
    run = launch(reinforce_acpg, *RECORDED, "--total-timesteps", 500)
    assert len({*counted(run)}) == 1


def test_a_budget_ends_the_collection():
    _, ended, steps_taken, _ = play(
        "tests.probes:TwoLengths-v0", 4, total_timesteps=30, episodes_per_update=100
    )
    assert len(ended) < 100
    assert 30 <= steps_taken < 34


RECORDED = ("--env-id", "Recorded-v0", "--eval-episodes", 0, "--num-envs", 4)


def counted(run) -> list[int]:
    """The steps that were learned from: by the episodes, by the checkpoint, by the log."""
    lengths = [episode["length"] for episode in run.episodes]
    step, _ = run.scalars["losses/policy_loss"][-1]
    return [sum(lengths), run.checkpoint["global_step"], step]


def test_a_run_counts_the_steps_of_its_episodes_and_all_others_apart(launch):
    run = launch(reinforce_acpg, *RECORDED, "--total-timesteps", 1000)
    assert len({*counted(run)}) == 1
    steps = [step for step, _ in run.scalars["charts/steps_taken"]]
    assert steps[-2] < 1000 <= steps[-1] == run.checkpoint["global_step"]
    assert run.episodes[-1]["global_step"] == steps[-1]
    assert len(steps) == run.checkpoint["iteration"] == len(run.episodes) / 8

    taken = run.checkpoint["extra"]["steps_taken"]
    assert taken == len(steps_of(Recorded.played)) > steps[-1]
    points = run.scalars["charts/steps_taken"]
    assert points[-1][1] == taken
    assert all(value >= step for step, value in points)


def test_steps_taken_go_on_after_a_resume(launch):
    first = launch(reinforce_acpg, *RECORDED, "--total-timesteps", 1000)
    path = first.path / "checkpoint.pt"
    before = first.checkpoint["extra"]["steps_taken"]
    run = launch(reinforce_acpg, "--resume", path, "--total-timesteps", 2000)
    assert run.path == first.path
    assert len({*counted(run)}) == 1
    assert counted(run)[0] >= 2000
    after = run.checkpoint["extra"]["steps_taken"]
    assert after == len(steps_of(Recorded.played)) > before  # of both processes
    values = [value for _, value in run.scalars["charts/steps_taken"]]
    assert values == sorted(values)
    assert before in values
    assert values[-1] == after
    assert values[values.index(before) + 1] > before


# Returns and advantages
def three_steps(**flags) -> tuple[Batch, Tensor, Agent]:
    """Two environments: rewards 1, 2, 4 and a termination; 3, 5 and a truncation, then a reset."""
    agent, args = make_agent(gamma=0.5, **flags)
    obs = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(0))
    ended = torch.tensor([[False, False], [False, True], [True, False]])
    terminated = ended.clone()
    terminated[1, 1] = False
    rollout = Rollout(
        obs=obs,
        logits=torch.zeros(3, 2, 3),
        actions=torch.zeros(3, 2, dtype=torch.int64),
        rewards=torch.tensor([[1.0, 3.0], [2.0, 5.0], [4.0, math.nan]]),
        terminated=terminated,
        ended=ended,
        valid=torch.tensor([[True, True], [True, True], [True, False]]),
    )
    return make_batch(agent, rollout, args), obs, agent


def test_reward_to_go_by_hand():
    batch, obs, _ = three_steps()
    returns = torch.tensor([3.0, 5.5, 4.0, 5.0, 4.0])
    torch.testing.assert_close(batch.returns, returns)
    deviation = returns.std(correction=0)
    torch.testing.assert_close(batch.advantages, (returns - returns.mean()) / deviation)
    assert torch.equal(batch.obs, obs[[0, 0, 1, 1, 2], [0, 1, 0, 1, 0]])
    assert (batch.values == 0).all()
    batch, _, _ = three_steps(norm_adv=False)
    torch.testing.assert_close(batch.advantages, returns)


def test_a_value_stands_for_what_truncation_cut_off_and_is_the_baseline():
    batch, obs, agent = three_steps(baseline="value")
    with torch.no_grad():
        values = agent.value(obs.flatten(0, 1)).view(4, 2)
    last = values[2, 1]
    four = torch.tensor(4.0)
    returns = torch.stack([torch.tensor(3.0), 5.5 + last / 4, four, 5 + last / 2, four])
    torch.testing.assert_close(batch.returns, returns)
    baseline = values[[0, 0, 1, 1, 2], [0, 1, 0, 1, 0]]
    torch.testing.assert_close(batch.values, baseline)
    raw = returns - baseline
    deviation = raw.std(correction=0)
    torch.testing.assert_close(batch.advantages, (raw - raw.mean()) / deviation)


@pytest.mark.parametrize("norm_adv", [False, True])
@pytest.mark.parametrize("baseline", ["none", "value"])
def test_returns_and_advantages_of_whole_episodes_by_brute_force(baseline, norm_adv):
    """From what the environments recorded, each return as its own sum."""
    flags = {"baseline": baseline, "norm_adv": norm_adv, "gamma": 0.9}
    agent, _ = make_agent(**flags)
    rollout, _, _, args = play("Recorded-v0", 3, episodes_per_update=12, **flags)
    with torch.no_grad():
        batch = make_batch(agent, rollout, args)

        def value(obs: np.ndarray) -> float:
            return agent.value(torch.from_numpy(obs)[None]).item()

        expected = {}
        first = Recorded.played[:12]
        assert {episode.terminated for episode in first} == {False, True}
        for episode in first:
            T = len(episode.steps)
            for t in range(T):
                total = sum(0.9 ** (k - t) * episode.steps[k].reward for k in range(t, T))
                if baseline == "value" and not episode.terminated:
                    total += 0.9 ** (T - t) * value(episode.last_obs)
                obs = episode.steps[t].obs
                expected[key(obs)] = (total, value(obs))
    returns, values = torch.tensor([expected[key(obs)] for obs in batch.obs]).unbind(1)
    assert (values == 0).all() == (baseline == "none")
    advantages = returns - values
    if norm_adv:
        advantages = (advantages - advantages.mean()) / advantages.std(correction=0)
    torch.testing.assert_close(batch.returns, returns, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(batch.values, values, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(batch.advantages, advantages, atol=1e-5, rtol=1e-4)


def test_values_of_more_rows_than_are_evaluated_at_once():
    agent, args = make_agent(baseline="value")
    rows = 5000
    ends = torch.ones(rows, 1, dtype=torch.bool)
    rollout = Rollout(
        obs=torch.randn(rows + 1, 1, 5),
        logits=torch.zeros(rows, 1, 3),
        actions=torch.zeros(rows, 1, dtype=torch.int64),
        rewards=torch.randn(rows, 1),
        terminated=ends,
        ended=ends,
        valid=ends,
    )
    batch = make_batch(agent, rollout, args)
    with torch.no_grad():
        torch.testing.assert_close(batch.values, agent.value(rollout.obs[:-1, 0]))
    torch.testing.assert_close(batch.returns, rollout.rewards[:, 0])


def test_nan_in_invalid_rows_reaches_no_loss_and_no_gradient():
    agent, _ = make_agent(baseline="value")
    rollout, _, _, args = play("Recorded-v0", 4, episodes_per_update=6, baseline="value")
    valid = rollout.valid
    assert not valid.all()
    gradients = []
    for filler in (0.0, math.nan):
        obs = rollout.obs.clone()
        needed = torch.zeros(obs.shape[:2], dtype=torch.bool)
        needed[:-1] |= valid
        needed[1:] |= valid & ~rollout.terminated
        obs[~needed] = filler
        rewards = torch.where(valid, rollout.rewards, filler)
        batch = make_batch(agent, rollout._replace(obs=obs, rewards=rewards), args)
        gradient, parts = loss_gradient(agent, batch, args)
        gradients.append(gradient)
        assert all(part.isfinite() for part in parts.values())
    assert torch.equal(*gradients)


# Returns that are all equal
@pytest.mark.parametrize("count", [1, 2, 100, 512, 1000])
@pytest.mark.parametrize("constant", [0.0, 0.1, 7.3, -5.7, 1000.0])
def test_equal_advantages_are_normalized_to_zero(constant, count):
    advantages = torch.full((count,), constant)
    assert (normalize(advantages, advantages) == 0).all()
    rounded = advantages * (1 + 1e-7 * torch.randn(count))  # the same but for rounding
    assert (normalize(rounded, advantages) == 0).all()


def test_unequal_advantages_are_normalized_to_their_deviation():
    normalized = normalize(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 5.0]))
    torch.testing.assert_close(normalized, torch.tensor([-1.0, 1.0]))
    small = 1e-3 * torch.randn(1000)
    normalized = normalize(small, small)
    assert normalized.mean().item() == pytest.approx(0, abs=1e-5)
    assert normalized.std(correction=0).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("ent_coef", [0.0, 0.05])
@pytest.mark.parametrize("baseline", ["none", "value"])
def test_equal_returns_move_the_actor_by_the_entropy_bonus_alone(baseline, ent_coef):
    """Episodes of one step and reward 1000 that all look the same."""
    flags = {"baseline": baseline, "ent_coef": ent_coef, "max_grad_norm": 1e6, "head_std": 1.0}
    rollout, _, _, args = play("tests.toys:Constant-v0", 4, episodes_per_update=30, **flags)
    torch.manual_seed(0)
    agent = Agent((3,), 2, args)
    batch = make_batch(agent, rollout, args)
    assert (batch.returns == 1000).all()
    assert (batch.advantages == 0).all()

    gradient, _ = loss_gradient(agent, batch, args)
    policy = [*agent.actor.parameters(), *agent.head.parameters()]
    entropy = torch.distributions.Categorical(logits=agent(batch.obs)[1]).entropy().mean()
    expected = torch.autograd.grad(-ent_coef * entropy, policy)
    assert any((part != 0).any() for part in expected) == (ent_coef > 0)
    got = dict(zip(map(id, agent.parameters()), split(gradient, agent)))
    for parameter, part in zip(policy, expected):
        torch.testing.assert_close(got[id(parameter)], part, atol=1e-7, rtol=1e-4)
    if baseline == "value":
        assert (got[id(agent.value_layer.bias)] != 0).all()


def split(gradient: Tensor, agent: Agent) -> list[Tensor]:
    """A gradient by all parameters as gradients by each."""
    parameters = [*agent.parameters()]
    parts = gradient.split([parameter.numel() for parameter in parameters])
    return [part.view_as(parameter) for part, parameter in zip(parts, parameters)]


# The loss and its gradient
@pytest.mark.parametrize("flags", [{}, {"etf_head": True}])
def test_gradient_is_the_analytic_gradient_of_a_three_armed_bandit(flags):
    """Arms that pay r: the gradient of sum_a pi(a) r(a) with respect to logit k is
    pi(k) (r(k) - sum_a pi(a) r(a))."""
    torch.manual_seed(0)
    args = Args(ent_coef=0.0, **flags)
    agent = Agent((1,), 3, args)
    pay = torch.tensor([1.0, 2.0, 4.0])
    obs = torch.ones(1, 1)
    probabilities = agent(obs)[1].softmax(dim=1).squeeze(0)
    logits_gradient = (probabilities * (pay - probabilities @ pay)).detach()
    expected = torch.autograd.grad(agent(obs)[1].squeeze(0) @ logits_gradient, agent.parameters())
    # Every arm as often as the policy plays it, instead of a sample.
    got = [torch.zeros_like(parameter) for parameter in agent.parameters()]
    for arm in range(3):
        zero = torch.zeros(1)
        batch = Batch(obs, torch.tensor([arm]), zero, pay[arm : arm + 1], zero)
        loss, _ = reinforce_loss(agent, batch, args)
        for total, gradient in zip(got, torch.autograd.grad(loss, agent.parameters())):
            total -= probabilities[arm].detach() * gradient
    for one, other in zip(got, expected):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def random_batch(rows: int = 30) -> Batch:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(3, rows, generator=generator)
    actions = torch.randint(3, (rows,), generator=generator)
    return Batch(torch.randn(rows, 5, generator=generator), actions, *numbers)


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_loss_is_policy_loss_entropy_bonus_and_value_loss(epsilon):
    """The entropy is the softmax's: that of epsilon earns no bonus."""
    flags = {"ent_coef": 0.03, "vf_coef": 0.7, "head_std": 1.0, "epsilon": epsilon}
    agent, args = make_agent(baseline="value", **flags)
    batch = random_batch()
    loss, parts = reinforce_loss(agent, batch, args)
    probabilities = agent(batch.obs)[1].softmax(dim=1)
    mixture = (1 - epsilon) * probabilities + epsilon / 3
    chosen = torch.stack([mixture[i, action] for i, action in enumerate(batch.actions)])
    policy_loss = -(batch.advantages * chosen.log()).mean()
    entropy = torch.distributions.Categorical(probabilities).entropy().mean()
    value_loss = (agent.value(batch.obs) - batch.returns).square().mean()
    expected = policy_loss - 0.03 * entropy + 0.7 * value_loss
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(one, agent.parameters()) for one in (loss, expected)]
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
    names = {"policy_loss": policy_loss, "entropy": entropy, "value_loss": value_loss}
    assert parts.keys() == names.keys()
    for name, part in parts.items():
        torch.testing.assert_close(part, names[name].detach())


def test_value_loss_only_with_a_baseline():
    agent, args = make_agent()
    assert agent.critic is None
    assert "value_loss" not in reinforce_loss(agent, random_batch(), args)[1]
    agent, args = make_agent(baseline="value")
    loss, _ = reinforce_loss(agent, random_batch(), args)
    loss.backward()
    critic = [*agent.critic.parameters(), *agent.value_layer.parameters()]
    assert all((parameter.grad != 0).any() for parameter in critic)


def test_long_gradients_are_scaled_down_to_their_bound_and_logged_as_they_were():
    agent, args = make_agent(baseline="value", max_grad_norm=1e6)
    batch = random_batch()
    whole, parts = loss_gradient(agent, batch, args)
    loss, _ = reinforce_loss(agent, batch, args)
    gradients = torch.autograd.grad(loss, agent.parameters())
    torch.testing.assert_close(whole, torch.cat([one.flatten() for one in gradients]))
    norm = whole.norm()
    assert parts["gradient_norm"] == norm > 0.01
    for bound in (0.01, 0.5 * norm.item(), 2 * norm.item()):
        gradient, parts = loss_gradient(agent, batch, replace(args, max_grad_norm=bound))
        torch.testing.assert_close(gradient, whole * min(1, bound / norm.item()), rtol=1e-3, atol=0)
        assert parts["gradient_norm"] == norm


def test_the_compiled_gradient_is_the_same_for_any_number_of_rows():
    agent, args = make_agent(baseline="value")
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        compiled = torch.compile(loss_gradient, fullgraph=True)
        for rows in (30, 7):
            expected, parts = loss_gradient(agent, random_batch(rows), args)
            gradient, compiled_parts = compiled(agent, random_batch(rows), args)
            torch.testing.assert_close(gradient, expected)
            torch.testing.assert_close(compiled_parts, parts)


def test_tensors_move_with_the_agent(monkeypatch):
    """The nearest thing to CUDA on a machine without it: a forgotten transfer fails on meta too."""
    nonzero = "torch.fx.experimental._config.meta_nonzero_assume_all_nonzero"
    monkeypatch.setattr(nonzero, True, raising=False)
    agent, _ = make_agent(baseline="value")
    rollout, _, _, args = play("Recorded-v0", 2, episodes_per_update=2, baseline="value")
    batch = make_batch(agent.to("meta"), rollout, args)
    assert {column.device.type for column in batch} == {"meta"}
    gradient, _ = loss_gradient(agent, batch, args)
    assert gradient.device.type == "meta"


def test_explained_variance():
    returns = torch.arange(64.0)

    def explained(values: Tensor, returns: Tensor = returns) -> float:
        return explained_variance(returns, values)

    assert explained(returns + 5) == 1
    assert explained(torch.zeros(64)) == 0
    assert explained(-returns) == pytest.approx(-3)
    assert not math.isfinite(explained(returns, torch.ones(64)))  # and so it is not logged


@pytest.mark.parametrize("baseline", ["none", "value"])
def test_what_is_logged_of_a_baseline(launch, baseline):
    run = launch(reinforce_acpg, *RECORDED, "--total-timesteps", 500, "--baseline", baseline)
    losses = {"policy_loss", "entropy", "gradient_norm"}
    if baseline == "value":
        losses |= {"value_loss", "explained_variance"}
    logged = {tag.split("/")[1] for tag in run.scalars if tag.startswith("losses/")}
    assert logged == losses


# The update
def parts_of_update(rows: int, **flags) -> tuple[list[Batch], dict[str, float], Args]:
    """The minibatches of an update whose rows are told by their actions, and what it returns."""
    agent, args = make_agent(**flags)
    theta = reinforce_acpg.flatten_parameters(agent)
    optimizer = reinforce_acpg.Adam(theta, args.learning_rate, args.adam_eps)
    numbers = torch.arange(rows)
    batch = Batch(numbers[:, None].float(), numbers, *(numbers.float() for _ in range(3)))
    seen = []

    def spy(agent: Agent, minibatch: Batch, args: Args) -> tuple[Tensor, dict[str, Tensor]]:
        seen.append(minibatch)
        return torch.ones_like(theta), {"loss": torch.tensor(float(len(seen)))}

    losses = update(agent, theta, spy, optimizer, batch, args)
    assert optimizer.steps == len(seen)
    return seen, losses, args


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        (1100, [512, 588]),
        (100, [100]),
        (1, [1]),
        (511, [511]),
        (512, [512]),
        (1023, [1023]),
        (1024, [512, 512]),
        (1537, [512, 512, 513]),
    ],
)
def test_the_last_minibatch_takes_what_is_left(rows, sizes):
    seen, losses, _ = parts_of_update(rows, update_epochs=3, minibatch_size=512)
    assert [len(minibatch.actions) for minibatch in seen] == 3 * sizes
    for minibatch in seen:  # rows stay together
        for column in minibatch:
            assert torch.equal(column.flatten().long(), minibatch.actions)
    epochs = torch.cat([minibatch.actions for minibatch in seen]).view(3, rows)
    assert torch.equal(epochs.sort(dim=1).values, torch.arange(rows).expand(3, rows))
    assert rows == 1 or not torch.equal(epochs[0], epochs[1])
    assert losses == {"loss": pytest.approx(np.mean(range(1, len(seen) + 1)))}


def test_parameters_that_left_theta_are_noticed():
    agent, args = make_agent()
    theta = reinforce_acpg.flatten_parameters(agent)
    optimizer = reinforce_acpg.Adam(theta, args.learning_rate, args.adam_eps)
    agent.head.weight.data = agent.head.weight.data + 1
    with pytest.raises(RuntimeError, match="is not in theta"):
        update(agent, theta, loss_gradient, optimizer, random_batch(), args)


# The textbook's form
def observed(monkeypatch) -> tuple[list[tuple[int, Rollout]], list[tuple[int, Tensor, Tensor]]]:
    """What a run that is launched next collects, and for each step of its optimizer the number of
    rollouts until then, theta before it and its gradient."""
    rollouts = []
    steps = []

    step = reinforce_acpg.Adam.step

    def step_and_keep(adam) -> None:
        steps.append((len(rollouts), adam.theta.clone(), adam.theta.grad.clone()))
        step(adam)

    def collect_and_keep(*args):
        collected = collect_episodes(*args)
        rollouts.append(collected[0])
        return collected

    monkeypatch.setattr(reinforce_acpg.Adam, "step", step_and_keep)
    monkeypatch.setattr(reinforce_acpg, "collect_episodes", collect_and_keep)
    return rollouts, steps


def williams(agent: Agent, rollout: Rollout, gamma: float, epsilon: float) -> Tensor:
    """The sum over all steps of (reward-to-go) * grad log pi, divided by their number."""
    total = torch.zeros(sum(parameter.numel() for parameter in agent.parameters()))
    count = 0
    num_steps, num_envs = rollout.rewards.shape
    for i in range(num_envs):
        for t in range(num_steps):
            if not rollout.valid[t, i]:
                continue
            reward_to_go = 0.0
            discount = 1.0
            for k in range(t, num_steps):
                reward_to_go += discount * rollout.rewards[k, i].item()
                discount *= gamma
                if rollout.ended[k, i]:
                    break
            probabilities = agent(rollout.obs[t, i][None])[1][0].softmax(dim=0)
            mixture = (1 - epsilon) * probabilities + epsilon / len(probabilities)
            log_prob = mixture[rollout.actions[t, i]].log()
            gradient = torch.autograd.grad(log_prob, agent.parameters())
            total += reward_to_go * torch.cat([part.flatten() for part in gradient])
            count += 1
    return total / count


@pytest.mark.parametrize("flags", [(), ("--etf-head",), ("--epsilon", 0.2)])
def test_plain_is_williams_s_gradient_and_one_step_of_the_optimizer(launch, monkeypatch, flags):
    """In rows for several minibatches by default, with a policy that has an entropy to raise."""
    rollouts, steps = observed(monkeypatch)
    flags = ("--head-std", 1, "--episodes-per-update", 64, *flags)
    run = launch(reinforce_acpg, "--plain", *flags, "--total-timesteps", 4000, "--eval-episodes", 0)
    assert len(steps) == len(rollouts) == run.checkpoint["iteration"] >= 2
    args = Args(**run.args)
    agent = Agent((4,), 2, args)
    for number, (until, theta, gradient) in enumerate(steps, start=1):
        assert until == number
        rollout = rollouts[number - 1]
        nn.utils.vector_to_parameters(theta, agent.parameters())
        expected = williams(agent, rollout, args.gamma, args.epsilon)
        torch.testing.assert_close(-gradient, expected, rtol=0, atol=1e-5)
        assert expected.norm() > 0.5  # the bound of the default form
    assert max(int(rollout.valid.sum()) for rollout in rollouts) >= 1024


def test_the_default_form_is_another(launch, monkeypatch):
    rollouts, steps = observed(monkeypatch)
    flags = ("--total-timesteps", 1000, "--minibatch-size", 64)
    launch(reinforce_acpg, *flags, "--eval-episodes", 0)
    assert len(steps) >= 2 * len(rollouts)
    assert all(gradient.norm() < 0.501 for _, _, gradient in steps)


@pytest.mark.parametrize(
    "flags", ["--ent-coef 0.1", "--update-epochs 3", "--minibatch-size 64", "--max-grad-norm 1.0"]
)
def test_a_flag_that_contradicts_plain_is_refused(launch, capsys, tmp_path, flags):
    with pytest.raises(SystemExit) as exit:
        launch(reinforce_acpg, "--plain", *flags.split())
    assert exit.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {flags}: but --plain sets it to ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("flags", ["--no-norm-adv", "--ent-coef 0", "--update-epochs 1"])
def test_a_flag_that_says_what_plain_says_is_not(launch, flags):
    run = launch(reinforce_acpg, "--plain", *flags.split(), "--total-timesteps", 2000)
    assert run.args["plain"] is True


def test_a_plain_run_goes_on_plainly(launch, monkeypatch):
    path = launch(reinforce_acpg, "--plain", "--total-timesteps", 2000).path / "checkpoint.pt"
    rollouts, steps = observed(monkeypatch)
    launch(reinforce_acpg, "--resume", path, "--total-timesteps", 3000)
    assert len(steps) == len(rollouts) >= 1


# What all heads share
def test_heads_of_a_seed_see_the_same_first_noise(launch, monkeypatch):
    """The Gumbel noise is known from the generator's state: it decides, with each head's logits."""
    first = []

    def collect_and_keep(*args):
        state = torch.get_rng_state()
        collected = collect_episodes(*args)
        first.append((state, collected[0]))
        return collected

    monkeypatch.setattr(reinforce_acpg, "collect_episodes", collect_and_keep)
    heads = ((), ("--etf-head",), ("--etf-head", "--head-frame", "random", "--head-trainable"))
    seen = []
    for head in heads:
        first.clear()
        flags = ("--total-timesteps", 300, "--seed", 7, "--eval-episodes", 0)
        launch(reinforce_acpg, *RECORDED, *flags, *head)
        seen.append(first[0])
    states = [state for state, _ in seen]
    assert all(torch.equal(state, states[0]) for state in states)
    torch.set_rng_state(states[0])
    noise = -torch.empty(4, 3).exponential_().log()
    logits = [rollout.logits[0] for _, rollout in seen]
    assert not torch.equal(logits[0], logits[1])
    for _, rollout in seen:
        assert torch.equal(rollout.obs[0], seen[0][1].obs[0])
        assert torch.equal(rollout.actions[0], (rollout.logits[0] + noise).argmax(dim=1))


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_actions_are_drawn_from_the_mixture(epsilon):
    torch.manual_seed(0)
    args = Args(num_envs=8, episodes_per_update=1000, epsilon=epsilon)
    envs = reinforce_acpg.make_envs("tests.probes:RightAction-v0", 8)
    envs.reset(seed=0)
    logits = torch.tensor([1.0, -0.5, 0.0])
    rollout, _, _ = collect_episodes(envs, lambda obs: logits.expand(8, 3).numpy(), args)
    drawn = torch.bincount(rollout.actions[rollout.valid]) / 1000
    expected = behaviour_log_probs(logits.log_softmax(dim=0), epsilon).exp()
    torch.testing.assert_close(drawn, expected, atol=0.05, rtol=0)


# Episodes that do not end
def gave_up(launch, *flags: object) -> str:
    """What a run says that ends by itself. Python prints it, and exits with code 1."""
    with pytest.raises(SystemExit) as exit:
        launch(reinforce_acpg, *flags)
    line = exit.value.code
    assert isinstance(line, str)
    assert "\n" not in line
    return line


ENDLESS = (
    *("--env-id", "Endless-v0", "--num-envs", 3, "--episodes-per-update", 3),
    *("--no-anneal-lr", "--eval-episodes", 0, "--seed", 3),
)


def only_run(path: Path) -> Run:
    """The run that a launch left behind that did not return."""
    (run,) = (path / "runs").iterdir()
    return Run(run)


def test_episodes_that_do_not_end_lose_nothing_that_was_learned(launch, tmp_path):
    """The checkpoint has the weights of a run that wanted no more than what was learned."""
    line = gave_up(launch, *ENDLESS, "--total-timesteps", 3000)
    assert "episodes ended within 300" in line  # 3000 and what the others did in the last row
    assert "only 0 episodes" not in line
    run = only_run(tmp_path)
    path = run.path / "checkpoint.pt"
    assert line.endswith(f"last good checkpoint: {path.relative_to(tmp_path)}")
    state = run.checkpoint
    learned = state["global_step"]
    assert 0 < learned < 3000
    assert len({*counted(run)}) == 1
    assert len(run.episodes) % 3 == 0  # no episode of the collection that was cut off
    assert state["recent"] == [episode["return"] for episode in run.episodes]

    whole = launch(reinforce_acpg, *ENDLESS, "--total-timesteps", learned)
    assert whole.path != run.path
    assert whole.checkpoint["global_step"] == learned
    assert whole.checkpoint["extra"] == state["extra"]
    for name, tensor in whole.checkpoint["agent"].items():
        assert torch.equal(tensor, state["agent"][name]), name

    line = gave_up(launch, "--resume", path)  # whose environments are new
    assert "episodes ended within 300" in line
    assert run.checkpoint["global_step"] > learned
    assert len({*counted(run)}) == 1


def test_a_run_without_a_whole_update_says_so_in_one_line(tmp_path):
    flags = "--env-id CliffWalking-v1 --total-timesteps 300 --num-envs 4"
    words = [sys.executable, reinforce_acpg.__file__, *flags.split()]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "only 0 episodes ended within 300 steps" in line


def test_what_is_not_finite_is_named_first(launch):
    """It may be why nothing ends."""
    line = gave_up(launch, "--env-id", "EndlessNan-v0", "--total-timesteps", 300)
    assert "the observation of environment 0 at step 0 is nan" in line


def test_images_are_learned_from(launch):
    run = launch(
        reinforce_acpg, "--env-id", "benchmark.envs:MinAtar/Breakout-v1", "--total-timesteps", 2000
    )
    assert len(run.scalars["losses/policy_loss"]) > 1
