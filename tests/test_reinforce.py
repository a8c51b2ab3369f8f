"""REINFORCE: whole episodes without a preference for short ones, reward-to-go, and the bandit's analytic gradient."""

import math

import numpy as np
import pytest
import torch

import reinforce_acpg
from reinforce_acpg import (
    Agent,
    Args,
    Rollout,
    behaviour_log_probs,
    collect_episodes,
    make_batch,
    reinforce_loss,
)


def play(env_id: str, num_envs: int, seed: int = 0, budget: int = 10**9, **flags):
    """Episodes of a uniform policy, and the arguments they were collected with."""
    torch.manual_seed(seed)
    args = Args(num_envs=num_envs, **flags)
    envs = reinforce_acpg.make_envs(env_id, num_envs)
    envs.reset(seed=seed)
    policy = lambda obs: np.zeros((num_envs, int(envs.single_action_space.n)), np.float32)  # noqa: E731
    return *collect_episodes(envs, policy, args, budget), args


@pytest.mark.parametrize(("num_envs", "episodes"), [(8, 8), (4, 10), (8, 3)])
def test_the_first_episodes_started_are_used_whatever_their_length(num_envs, episodes):
    """Half of the episodes have 2 steps, half 20. Whoever takes the first that end sees mostly the short ones."""
    lengths = []
    for seed in range(60):
        rollout, ended, steps, _ = play(
            "tests.probes:TwoLengths-v0", num_envs, seed, episodes_per_update=episodes
        )
        assert len(ended) == episodes and all(length in (2, 20) for _, _, length in ended)
        assert int(rollout.valid.sum()) == sum(length for _, _, length in ended) <= steps
        assert max(taken for taken, _, _ in ended) == steps
        lengths += [length for _, _, length in ended]
    share = np.mean(np.array(lengths) == 2)
    assert abs(share - 0.5) < 3 * 0.5 / math.sqrt(len(lengths))


def test_what_is_unfinished_is_discarded_but_counts_as_taken():
    """Four environments, two episodes: those of the first two environments, whatever the others do meanwhile."""
    for seed in range(5):
        rollout, _, steps, _ = play("tests.probes:TwoLengths-v0", 4, seed, episodes_per_update=2)
        assert not rollout.valid[:, 2:].any()
        rows, resets = len(rollout.rewards), int((rollout.ended[:-1]).sum())
        assert steps == 4 * rows - resets
        used, firsts = (
            rollout.valid[:, :2].sum(dim=0),
            [rollout.ended[:, i].nonzero()[0].item() for i in (0, 1)],
        )
        assert used.tolist() == [first + 1 for first in firsts]


def test_a_budget_ends_the_collection():
    _, ended, steps, _ = play("tests.probes:TwoLengths-v0", 4, budget=30, episodes_per_update=100)
    assert len(ended) < 100 and 30 <= steps < 34


def three_steps(**flags) -> tuple[list[torch.Tensor], torch.Tensor, Agent]:
    """The batch of two environments: rewards 1, 2, 4 and a termination; rewards 3, 5 and a truncation, then a reset."""
    args = Args(gamma=0.5, **flags)
    torch.manual_seed(0)
    agent = Agent((5,), 3, args)
    obs = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(0))
    rewards = torch.tensor([[1.0, 3.0], [2.0, 5.0], [4.0, math.nan]])
    ended = torch.tensor([[False, False], [False, True], [True, False]])
    terminated, valid = ended.clone(), torch.tensor([[True, True], [True, True], [True, False]])
    terminated[1, 1] = False
    columns, _, _ = make_batch(
        agent,
        Rollout(obs, torch.zeros(3, 2, dtype=torch.int64), rewards, terminated, ended, valid),
        args,
    )
    return columns, obs, agent


def test_reward_to_go_by_hand():
    (_, _, advantages, returns), _, _ = three_steps()
    torch.testing.assert_close(returns, torch.tensor([3.0, 5.5, 4.0, 5.0, 4.0]))
    torch.testing.assert_close(
        advantages, (returns - returns.mean()) / (returns.std(correction=0) + 1e-8)
    )


def test_a_value_stands_for_what_truncation_cut_off_and_is_the_baseline():
    (_, _, advantages, returns), obs, agent = three_steps(baseline="value")
    with torch.no_grad():
        values = agent(obs.flatten(0, 1))[2].view(4, 2)
    last = values[2, 1]
    expected = torch.stack(
        [torch.tensor(3.0), 5.5 + last / 4, torch.tensor(4.0), 5 + last / 2, torch.tensor(4.0)]
    )
    torch.testing.assert_close(returns, expected)
    raw = expected - values[[0, 0, 1, 1, 2], [0, 1, 0, 1, 0]]
    torch.testing.assert_close(advantages, (raw - raw.mean()) / (raw.std(correction=0) + 1e-8))


@pytest.mark.parametrize("flags", [{}, {"etf_head": True}])
def test_gradient_is_the_analytic_gradient_of_a_three_armed_bandit(flags):
    """Arms that pay r: the gradient of sum_a pi(a) r(a) with respect to logit k is pi(k) (r(k) - sum_a pi(a) r(a))."""
    torch.manual_seed(0)
    args = Args(ent_coef=0.0, **flags)
    agent, pay = Agent((1,), 3, args), torch.tensor([1.0, 2.0, 4.0])
    obs = torch.ones(1, 1)
    probabilities = agent(obs)[1].softmax(dim=1).squeeze(0)
    logits_gradient = (probabilities * (pay - probabilities @ pay)).detach()
    expected = torch.autograd.grad(agent(obs)[1].squeeze(0) @ logits_gradient, agent.parameters())
    # Every arm as often as the policy plays it, instead of a sample.
    got = [torch.zeros_like(parameter) for parameter in agent.parameters()]
    for arm in range(3):
        loss, _ = reinforce_loss(
            agent, args, obs, torch.tensor([arm]), pay[arm : arm + 1], torch.zeros(1)
        )
        for total, gradient in zip(got, torch.autograd.grad(loss, agent.parameters())):
            total -= probabilities[arm].detach() * gradient
    for one, other in zip(got, expected):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_value_loss_only_with_a_baseline():
    args = Args()
    assert Agent((4,), 2, args).critic is None
    agent = Agent((4,), 2, Args(baseline="value"))
    obs, actions, advantages, returns = (
        torch.zeros(3, 4),
        torch.zeros(3, dtype=torch.int64),
        torch.ones(3),
        torch.ones(3),
    )
    reinforce_loss(agent, args, obs, actions, advantages, returns)[0].backward()
    assert any((parameter.grad != 0).any() for parameter in agent.critic.parameters())


def test_a_collection_that_is_cut_off_teaches_and_logs_nothing(launch):
    """Only the short ones of its episodes have ended."""
    flags = ("--env-id", "tests.probes:TwoLengths-v0", "--num-envs", 4, "--episodes-per-update", 40)
    run = launch(reinforce_acpg, *flags, "--total-timesteps", 600, "--seed", 3)
    whole = [episode["length"] for episode in run.episodes]
    assert len(whole) == 40 and sum(whole) < run.checkpoint["global_step"] == pytest.approx(
        600, abs=4
    )
    assert len(run.scalars["losses/policy_loss"]) == 1 and run.checkpoint["iteration"] == 2
    first = launch(
        reinforce_acpg,
        *flags,
        "--total-timesteps",
        int(run.episodes[-1]["global_step"]),
        "--seed",
        3,
    )
    weights = (
        checkpoint["agent"]["head.weight"] for checkpoint in (run.checkpoint, first.checkpoint)
    )
    assert torch.equal(*weights)


def test_a_run_without_a_whole_episode_says_so(launch, tmp_path):
    with pytest.raises(SystemExit, match="300 steps held fewer than 8 whole episodes"):
        launch(
            reinforce_acpg, "--env-id", "CliffWalking-v1", "--total-timesteps", 300, "--num-envs", 4
        )


def test_images_are_learned_from(launch):
    run = launch(
        reinforce_acpg, "--env-id", "benchmark.envs:MinAtar/Breakout-v1", "--total-timesteps", 2000
    )
    assert len(run.scalars["losses/policy_loss"]) > 1


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_actions_are_drawn_from_the_mixture(epsilon):
    torch.manual_seed(0)
    args = Args(num_envs=8, episodes_per_update=1000, epsilon=epsilon)
    envs = reinforce_acpg.make_envs("tests.probes:RightAction-v0", 8)
    envs.reset(seed=0)
    logits = torch.tensor([1.0, -0.5, 0.0])
    rollout, _, _ = collect_episodes(envs, lambda obs: logits.expand(8, 3).numpy(), args, 10**9)
    drawn = torch.bincount(rollout.actions[rollout.valid]) / 1000
    torch.testing.assert_close(drawn, behaviour_log_probs(logits, epsilon).exp(), atol=0.05, rtol=0)
