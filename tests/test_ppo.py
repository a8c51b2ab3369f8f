"""PPO's own functions: the batch, the loss, the update, and that nothing of an invalid row gets through."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import ppo_acpg
from ppo_acpg import Batch, Rollout, loss_gradient, make_batch, normalize, ppo_loss, update
from tests import rollouts


def make_agent(**flags) -> tuple[ppo_acpg.Agent, ppo_acpg.Args]:
    return rollouts.make_agent(ppo_acpg, **flags)


def random_rollout(agent: ppo_acpg.Agent, filler: float = 0.0) -> Rollout:
    return rollouts.random_rollout(ppo_acpg, agent, filler)


def copies(batch: Batch) -> Batch:
    return Batch(*(column.clone() for column in batch))


def disturb(agent: nn.Module) -> None:
    """Move the weights, so that ratios differ from 1."""
    generator = torch.Generator().manual_seed(1)
    for parameter in agent.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def test_nan_in_invalid_rows_reaches_no_loss_and_no_gradient():
    agent, args = make_agent()
    gradients = []
    for filler in (0.0, math.nan):
        batch = make_batch(agent, random_rollout(agent, filler), args)
        gradient, parts = loss_gradient(agent, batch, args)
        gradients.append(gradient)
        assert all(part.isfinite() for part in parts.values())
    assert torch.equal(*gradients)


def test_loss_is_the_textbook_loss_over_the_valid_rows():
    agent, args = make_agent(ent_coef=0.03)
    batch = make_batch(agent, random_rollout(agent), args)
    disturb(agent)
    loss, parts = ppo_loss(agent, batch, args)

    valid = Batch(*(column[batch.valid] for column in batch))
    features, logits = agent(valid.obs)
    values = agent.value(valid.obs, features)
    policy = torch.distributions.Categorical(logits=logits)
    log_ratio = policy.log_prob(valid.actions) - valid.log_probs
    ratio = log_ratio.exp()
    deviation = valid.advantages.std() + 1e-8
    advantages = (valid.advantages - valid.advantages.mean()) / deviation
    policy_loss = torch.max(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.2)).mean()
    clipped_values = valid.values + (values - valid.values).clamp(-0.2, 0.2)
    errors = torch.max((values - valid.returns) ** 2, (clipped_values - valid.returns) ** 2)
    value_loss = 0.5 * errors.mean()
    entropy = policy.entropy().mean()
    torch.testing.assert_close(loss, policy_loss - 0.03 * entropy + 0.5 * value_loss)
    assert 0.1 < parts["clipfrac"] < 0.9
    expected = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "old_approx_kl": -log_ratio.mean(),
        "approx_kl": (ratio - 1 - log_ratio).mean(),
        "clipfrac": ((ratio - 1).abs() > 0.2).float().mean(),
    }
    assert parts.keys() == expected.keys()
    for name, part in parts.items():
        torch.testing.assert_close(part, expected[name].detach(), msg=name)


@torch.inference_mode()
def test_batch_holds_the_policy_that_acted_and_bootstraps_truncation_only():
    agent, args = make_agent(epsilon=0.3, gae_lambda=0.0)
    rollout = random_rollout(agent)
    rollout = rollout._replace(logits=rollout.logits + torch.randn(16, 4, 3))  # not the agent's
    batch = make_batch(agent, rollout, args)
    probabilities = 0.7 * rollout.logits.softmax(dim=-1) + 0.1
    chosen = probabilities.gather(-1, rollout.actions[..., None]).log().squeeze(-1)
    valid = rollout.valid
    torch.testing.assert_close(batch.log_probs.view(16, 4)[valid], chosen[valid])

    obs = rollout.obs.flatten(0, 1)
    values = agent.value(obs, agent(obs)[0]).view(17, 4)
    target = rollout.rewards + args.gamma * values[1:] * ~rollout.terminated
    torch.testing.assert_close(batch.returns.view(16, 4)[valid], target[valid])
    torch.testing.assert_close(batch.advantages.view(16, 4)[valid], (target - values[:-1])[valid])
    assert torch.equal(batch.obs.view(16, 4, 5)[valid], rollout.obs[:-1][valid])
    for column in (*batch[:1], *batch[2:-1]):
        assert (column[~batch.valid] == 0).all()


def test_at_epsilon_one_the_surrogate_has_no_gradient():
    agent, args = make_agent(epsilon=1.0, ent_coef=0.0)
    loss, _ = ppo_loss(agent, copies(make_batch(agent, random_rollout(agent), args)), args)
    loss.backward()
    policy = (*agent.actor.parameters(), *agent.head.parameters())
    assert all((parameter.grad == 0).all() for parameter in policy)
    assert any((parameter.grad != 0).any() for parameter in agent.critic.parameters())


@pytest.mark.parametrize("count", [2, 100, 128, 512, 1000])
@pytest.mark.parametrize("constant", [0.1, 7.3, -5.7, 1000.0])
def test_equal_advantages_are_normalized_to_zero(constant, count):
    advantages = torch.full((count,), constant)
    valid = torch.arange(count) != 2
    advantages[~valid] = 0
    assert (normalize(advantages, advantages, valid) == 0).all()
    rounded = advantages * (1 + 1e-7 * torch.randn(count))  # the same but for rounding
    assert (normalize(rounded, advantages, valid)[valid] == 0).all()


def test_one_valid_row_is_normalized_to_zero_and_several_to_their_deviation():
    advantages = torch.tensor([3.0, 0.0, 0.0, 5.0])
    one = torch.tensor([True, False, False, False])
    assert (normalize(advantages * one, advantages, one) == 0).all()
    two = torch.tensor([True, False, False, True])
    normalized = normalize(advantages, advantages, two)[two]
    torch.testing.assert_close(normalized, torch.tensor([-1.0, 1.0]) / math.sqrt(2))


def equal_agents(**flags) -> tuple:
    """An agent with flattened parameters, its theta, an Adam for it, and the flags."""
    agent, args = make_agent(**flags)
    theta = ppo_acpg.flatten_parameters(agent)
    return agent, theta, ppo_acpg.Adam(theta, args.learning_rate, args.adam_eps), args


def test_update_visits_every_row_once_per_epoch_and_reports_the_means():
    agent, theta, optimizer, args = equal_agents(update_epochs=3, num_minibatches=4)
    batch = make_batch(agent, random_rollout(agent), args)
    batch = batch._replace(actions=torch.arange(64))  # row numbers
    seen, losses = [], []

    def spy(agent, minibatch, args):
        seen.append(minibatch.actions)
        losses.append(float(len(losses)))
        return torch.ones_like(theta), {"loss": torch.tensor(losses[-1])}

    stats = update(agent, theta, spy, optimizer, batch, args)
    epochs = torch.cat(seen).view(3, 64)
    assert torch.equal(epochs.sort(dim=1).values, torch.arange(64).expand(3, 64))
    assert not torch.equal(epochs[0], epochs[1])
    assert stats["loss"] == pytest.approx(np.mean(losses))
    assert stats["skipped"] == 0


@pytest.mark.parametrize(("norm_adv", "needed"), [(True, 2), (False, 1)])
def test_minibatches_of_too_few_valid_rows_move_nothing(norm_adv, needed):
    for count in (0, 1, 2):
        agent, theta, optimizer, args = equal_agents(norm_adv=norm_adv, num_minibatches=1)
        batch = make_batch(agent, random_rollout(agent), args)
        optimizer.mean += 1  # momentum alone would move theta
        valid = torch.zeros(64, dtype=torch.bool)
        valid[:count] = True
        before = theta.clone()
        losses = update(agent, theta, loss_gradient, optimizer, batch._replace(valid=valid), args)
        moved = count >= needed
        assert torch.equal(theta, before) != moved
        assert losses["skipped"] == (0 if moved else 4)
        assert ("policy_loss" in losses) == moved


def test_parameters_that_left_theta_are_noticed():
    agent, theta, optimizer, args = equal_agents()
    batch = make_batch(agent, random_rollout(agent), args)
    agent.head.weight.data = agent.head.weight.data + 1
    with pytest.raises(RuntimeError, match="is not in theta"):
        update(agent, theta, loss_gradient, optimizer, batch, args)


def test_weights_that_are_nan_are_still_in_theta():
    """So that the log names what is not finite, and no other fault."""
    agent, theta, optimizer, args = equal_agents()
    batch = make_batch(agent, random_rollout(agent), args)
    theta.fill_(math.nan)
    losses = update(agent, theta, loss_gradient, optimizer, batch, args)
    assert math.isnan(losses["policy_loss"])


def test_gradients_that_zero_grad_took_away_are_noticed():
    agent, theta, optimizer, args = equal_agents()
    batch = make_batch(agent, random_rollout(agent), args)
    agent.zero_grad()
    with pytest.raises(RuntimeError, match="zero_grad"):
        update(agent, theta, loss_gradient, optimizer, batch, args)


def test_target_kl_ends_an_update_after_an_epoch():
    rows = []

    def spy(agent, minibatch, args):
        rows.append(len(minibatch.valid))
        return torch.zeros_like(theta), {"approx_kl": torch.tensor(0.01 * len(rows))}

    agent, theta, optimizer, args = equal_agents(update_epochs=4, target_kl=0.05)
    batch = make_batch(agent, random_rollout(agent), args)
    update(agent, theta, spy, optimizer, batch, args)
    assert (
        len(rows) == 2 * args.num_minibatches
    )  # 0.04 after the first epoch, 0.08 after the second


def test_long_gradients_are_scaled_down_to_their_bound_and_logged_as_they_were():
    agent, args = make_agent()
    batch = make_batch(agent, random_rollout(agent), args)
    whole, parts = loss_gradient(agent, batch, replace(args, max_grad_norm=1e6))
    norm = whole.norm()
    assert parts["gradient_norm"] == norm > 0.01
    for bound in (0.01, 0.5 * norm.item(), 2 * norm.item()):
        gradient, parts = loss_gradient(agent, batch, replace(args, max_grad_norm=bound))
        torch.testing.assert_close(gradient, whole * min(1, bound / norm.item()), rtol=1e-3, atol=0)
        assert parts["gradient_norm"] == norm


def test_parameters_are_views_of_theta_in_the_gradient_s_order():
    agent, theta, _, args = equal_agents(etf_head=True, max_grad_norm=1e6)
    batch = make_batch(agent, random_rollout(agent), args)
    gradient, _ = loss_gradient(agent, batch, args)
    loss, _ = ppo_loss(agent, copies(batch), args)
    loss.backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in agent.parameters()])
    assert torch.equal(gradient, expected)
    theta += 1
    assert torch.equal(nn.utils.parameters_to_vector(agent.parameters()), theta)
    theta.grad.copy_(gradient)
    flat = torch.cat([parameter.grad.flatten() for parameter in agent.parameters()])
    assert torch.equal(flat, gradient)
    frozen = sum(value.numel() for value in agent.state_dict().values()) - len(theta)
    assert frozen == agent.head.weight.numel()


@pytest.mark.parametrize("eps", [1e-5, 1e-8])
def test_adam_is_torch_s(eps):
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(1000, generator=generator)
    theirs = nn.Parameter(ours.clone())
    optimizers = ppo_acpg.Adam(ours, 1e-3, eps), torch.optim.Adam([theirs], lr=1e-3, eps=eps)
    for k in range(200):
        gradient = torch.randn(1000, generator=generator) * 10.0 ** (k % 7 - 5)
        ours.grad = theirs.grad = gradient
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 1e-3 * (1 - k / 200)
            optimizer.step()
    torch.testing.assert_close(ours, theirs.data, atol=1e-6, rtol=0)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_optimizers_of_torch_work_on_theta_and_on_the_agent_s_parameters(frozen, own):
    """The same steps as of an agent whose parameters are not flattened."""
    agent, theta, _, args = equal_agents(etf_head=frozen, max_grad_norm=1e6)
    plain, _ = make_agent(etf_head=frozen)
    batch = make_batch(agent, random_rollout(agent), args)
    optimizer = torch.optim.AdamW(agent.parameters() if own else [theta], lr=1e-3)
    other = torch.optim.AdamW(plain.parameters(), lr=1e-3)
    for _ in range(3):
        theta.grad.copy_(loss_gradient(agent, batch, args)[0])
        optimizer.step()
        loss, _ = ppo_loss(plain, copies(batch), args)
        other.zero_grad()
        loss.backward()
        other.step()
    for ours, theirs in zip(agent.parameters(), plain.parameters()):
        torch.testing.assert_close(ours.data, theirs.data, atol=1e-6, rtol=0)


def test_the_compiled_gradient_is_the_same():
    agent, args = make_agent()
    batch = make_batch(agent, random_rollout(agent), args)
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        expected, parts = loss_gradient(agent, batch, args)
        gradient, compiled_parts = torch.compile(loss_gradient, fullgraph=True)(agent, batch, args)
        torch.testing.assert_close(gradient, expected)
        torch.testing.assert_close(compiled_parts, parts)


def test_tensors_move_with_the_agent(monkeypatch):
    """The nearest thing to CUDA on a machine without it: a forgotten transfer fails on meta too."""
    nonzero = "torch.fx.experimental._config.meta_nonzero_assume_all_nonzero"
    monkeypatch.setattr(nonzero, True, raising=False)
    agent, args = make_agent()
    rollout = random_rollout(agent)
    batch = make_batch(agent.to("meta"), rollout, args)
    assert {column.device.type for column in batch} == {"meta"}
    gradient, _ = loss_gradient(agent, batch, args)
    assert gradient.device.type == "meta"
    assert not ppo_acpg.Policy(agent, rollout.obs[0].numpy()).numpy_layers


def test_explained_variance():
    agent, args = make_agent()
    batch = make_batch(agent, random_rollout(agent), args)
    returns = torch.arange(64.0)

    def explained(values, returns=returns):
        return ppo_acpg.explained_variance(returns[batch.valid], values[batch.valid])

    assert explained(returns + 5) == 1
    assert explained(torch.zeros(64)) == 0
    assert explained(-returns) == pytest.approx(-3)
    assert explained(torch.where(batch.valid, returns, 999.0)) == 1
    assert not math.isfinite(explained(returns, torch.ones(64)))  # and so it is not logged
