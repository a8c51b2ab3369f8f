"""A2C's loss: n-step returns by hand, and that nothing of an invalid row gets through."""

import math
from functools import partial

import pytest
import torch

import a2c_acpg
from a2c_acpg import Args, a2c_loss
from tests import rollouts
from tests.rollouts import random_rollout

make_agent = partial(rollouts.make_agent, a2c_acpg)


def test_n_step_returns_through_a_truncation_and_a_termination():
    """One environment, five rows: truncated after two steps, reset, terminated after one, reset."""
    agent, args = make_agent(gamma=0.5, ent_coef=0.0)
    obs = torch.randn(6, 1, 5, generator=torch.Generator().manual_seed(0))
    actions = torch.tensor([[0], [2], [1], [1], [0]])
    rewards = torch.tensor([[1.0], [2.0], [7.0], [4.0], [7.0]])  # sevens where only a reset happens
    terminated = torch.tensor([[False], [False], [False], [True], [False]])
    ended = torch.tensor([[False], [True], [False], [True], [False]])
    valid = torch.tensor([[True], [True], [False], [True], [False]])
    _, parts, features, logits = a2c_loss(
        agent, args, obs, actions, rewards, terminated, ended, valid
    )
    with torch.no_grad():
        _, expected_logits, values = agent(obs.squeeze(1))
        # Row 0: 1 + 0.5 * 2 + 0.25 * V(true last observation); row 1: 2 + 0.5 * V(the same); row 3: 4, nothing follows.
        returns = torch.stack([2 + 0.25 * values[2], 2 + 0.5 * values[2], torch.tensor(4.0)])
        advantages = returns - values[[0, 1, 3]]
        log_probs = expected_logits[[0, 1, 3]].log_softmax(dim=1)[range(3), [0, 2, 1]]
    torch.testing.assert_close(parts["policy_loss"], -(advantages * log_probs).mean())
    torch.testing.assert_close(parts["value_loss"], advantages.square().mean())
    torch.testing.assert_close(logits[[0, 1, 3]], expected_logits[[0, 1, 3]])
    assert features.shape == (5, 64)


def test_gradient_is_that_of_the_textbook_loss_over_the_valid_rows():
    agent, args = make_agent(ent_coef=0.03, epsilon=0.2)
    rollout = random_rollout()
    loss, _, _, _ = a2c_loss(agent, args, *rollout)
    gradients = torch.autograd.grad(loss, agent.parameters())
    obs, actions, rewards, terminated, ended, valid = rollout
    with torch.no_grad():
        values = agent(obs.flatten(0, 1))[2].view(17, 4)
    returns = torch.zeros(16, 4)
    for t in reversed(range(16)):
        following = torch.where(ended[t], values[t + 1], returns[t + 1] if t < 15 else values[16])
        returns[t] = rewards[t] + args.gamma * following * ~terminated[t]
    _, logits, new_values = agent(obs[:-1][valid])
    policy = torch.distributions.Categorical(probs=0.8 * logits.softmax(dim=1) + 0.2 / 3)
    entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
    advantages = returns[valid] - new_values
    expected = (
        -(advantages.detach() * policy.log_prob(actions[valid])).mean()
        + 0.5 * advantages.square().mean()
    )
    for got, wanted in zip(
        gradients, torch.autograd.grad(expected - 0.03 * entropy, agent.parameters())
    ):
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-4)


def test_nan_in_invalid_rows_reaches_no_loss_and_no_gradient():
    agent, args = make_agent()
    gradients = []
    for filler in (0.0, math.nan):
        rollout = random_rollout(filler)
        loss, parts, _, _ = a2c_loss(agent, args, *rollout)
        gradients.append(torch.autograd.grad(loss, agent.parameters()))
        assert all(part.isfinite() for part in parts.values())
    assert all(torch.equal(clean, planted) for clean, planted in zip(*gradients))


def test_at_epsilon_one_only_the_critic_learns():
    agent, args = make_agent(epsilon=1.0, ent_coef=0.0)
    a2c_loss(agent, args, *random_rollout())[0].backward()
    assert all(
        (parameter.grad == 0).all()
        for parameter in (*agent.actor.parameters(), *agent.head.parameters())
    )
    assert any((parameter.grad != 0).any() for parameter in agent.critic.parameters())


def test_compiled_loss_is_the_same_loss():
    agent, args = make_agent()
    eager, compiled = (
        loss(agent, args, *random_rollout())[0] for loss in (a2c_loss, torch.compile(a2c_loss))
    )
    torch.testing.assert_close(compiled, eager)


def test_defaults_are_those_of_stable_baselines3():
    args = Args()
    assert (args.num_steps, args.gamma, args.gae_lambda) == pytest.approx((5, 0.99, 1.0))
    assert (args.ent_coef, args.vf_coef, args.max_grad_norm) == (0, 0.5, 0.5)


def test_the_default_epsilon_bounds_the_steps_as_the_papers_does():
    """After a long time of tiny gradients one of the size that clipping allows."""
    eps, small, large = Args().rmsprop_eps, 1e-5, 1e-2
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.RMSprop([parameter], lr=1.0, alpha=0.99, eps=eps)
    for gradient in [small] * 2000 + [large]:
        parameter.data.zero_()
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    paper = large / (0.99 * small**2 + 0.01 * large**2 + 1e-5) ** 0.5
    assert -parameter.item() == pytest.approx(paper, rel=0.3)
