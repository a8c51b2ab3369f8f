"""PPO's own functions: the batch, the loss, and that nothing of an invalid row gets through them."""

import math
from functools import partial

import numpy as np
import pytest
import torch

import ppo_acpg
from ppo_acpg import make_batch, ppo_loss, update
from tests import rollouts
from tests.rollouts import random_rollout

make_agent = partial(rollouts.make_agent, ppo_acpg)


def test_nan_in_invalid_rows_reaches_no_loss_and_no_gradient():
    agent, args = make_agent()
    gradients = []
    for filler in (0.0, math.nan):
        rollout = random_rollout(filler)
        columns, _, _ = make_batch(agent, rollout, args)
        loss, parts = ppo_loss(agent, args, *(column.clone() for column in columns))
        agent.zero_grad()
        loss.backward()
        gradients.append([parameter.grad.clone() for parameter in agent.parameters()])
        assert all(part.isfinite() for part in parts.values())
    assert all(torch.equal(clean, planted) for clean, planted in zip(*gradients))


def test_loss_is_the_textbook_loss_over_the_valid_rows():
    agent, args = make_agent(ent_coef=0.03)
    columns, _, _ = make_batch(agent, random_rollout(), args)
    columns = [column.clone() for column in columns]
    generator = torch.Generator().manual_seed(1)
    for parameter in agent.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    loss, parts = ppo_loss(agent, args, *columns)

    obs, actions, old_log_probs, old_values, advantages, returns = (column[columns[-1]] for column in columns[:-1])
    _, logits, values = agent(obs)
    policy = torch.distributions.Categorical(logits=logits)
    ratio = (policy.log_prob(actions) - old_log_probs).exp()
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    policy_loss = torch.max(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.2)).mean()
    clipped_values = old_values + (values - old_values).clamp(-0.2, 0.2)
    value_loss = 0.5 * torch.max((values - returns) ** 2, (clipped_values - returns) ** 2).mean()
    expected = policy_loss - 0.03 * policy.entropy().mean() + 0.5 * value_loss
    torch.testing.assert_close(loss, expected)
    assert 0.1 < parts["clipfrac"] < 0.9
    torch.testing.assert_close(parts["clipfrac"], ((ratio - 1).abs() > 0.2).float().mean())


@torch.inference_mode()
def test_batch_holds_the_acting_policy_and_bootstraps_truncation_only():
    agent, args = make_agent(epsilon=0.3, gae_lambda=0.0)
    rollout = random_rollout()
    columns, features, logits = make_batch(agent, rollout, args)
    _, _, log_probs, values, advantages, returns, valid = (column.view(16, 4, *column.shape[1:]) for column in columns)
    probabilities = 0.7 * logits.softmax(dim=1) + 0.1
    chosen = probabilities.gather(1, rollout.actions.view(-1, 1)).log().view(16, 4)
    torch.testing.assert_close(log_probs[valid], chosen[valid])
    torch.testing.assert_close(features, agent.actor(rollout.obs[:-1].flatten(0, 1)))
    next_values = agent(rollout.obs[1:].flatten(0, 1))[2].view(16, 4)
    target = rollout.rewards + args.gamma * next_values * ~rollout.terminated
    torch.testing.assert_close(returns[valid], target[valid])
    torch.testing.assert_close(advantages[valid], (target - values)[valid])


def test_at_epsilon_one_the_surrogate_has_no_gradient():
    agent, args = make_agent(epsilon=1.0, ent_coef=0.0)
    columns, _, _ = make_batch(agent, random_rollout(), args)
    loss, _ = ppo_loss(agent, args, *(column.clone() for column in columns))
    loss.backward()
    assert all((parameter.grad == 0).all() for parameter in (*agent.actor.parameters(), *agent.head.parameters()))
    assert any((parameter.grad != 0).any() for parameter in agent.critic.parameters())


def test_update_visits_every_row_once_per_epoch_and_reports_the_means():
    agent, args = make_agent(update_epochs=3, num_minibatches=4)
    columns, _, _ = make_batch(agent, random_rollout(), args)
    columns[1] = torch.arange(64)  # row numbers in place of actions
    seen, losses = [], []

    def spy(agent, args, *minibatch):
        seen.append(minibatch[1])
        loss = agent.value(torch.ones(64)).square().sum()
        losses.append(loss.item())
        return loss, {"loss": loss}

    optimizer = torch.optim.Adam(agent.parameters())
    stats = update(agent, spy, optimizer, columns, args)
    epochs = torch.cat(seen).view(3, 64)
    assert torch.equal(epochs.sort(dim=1).values, torch.arange(64).expand(3, 64))
    assert not torch.equal(epochs[0], epochs[1])
    assert stats["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_compiled_loss_is_the_same_loss():
    agent, args = make_agent()
    columns, _, _ = make_batch(agent, random_rollout(), args)
    columns = [column.clone() for column in columns]
    eager, compiled = (loss(agent, args, *columns)[0] for loss in (ppo_loss, torch.compile(ppo_loss)))
    torch.testing.assert_close(compiled, eager)
