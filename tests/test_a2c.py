"""A2C's loss and update: n-step returns by hand, a plain implementation of Stable-Baselines3's, and
that nothing of an invalid row gets through."""

import math
from functools import partial

import pytest
import torch
from torch import nn

import a2c_acpg
from a2c_acpg import Args, RMSprop, Rollout, a2c_loss, loss_gradient, make_batch, update
from tests import rollouts

make_agent = partial(rollouts.make_agent, a2c_acpg)
random_rollout = partial(rollouts.random_rollout, a2c_acpg)


def test_n_step_returns_through_a_truncation_and_a_termination():
    """One environment, five rows: truncated after two steps, reset, terminated after one, reset."""
    agent, args = make_agent(gamma=0.5, ent_coef=0.0)
    obs = torch.randn(6, 1, 5, generator=torch.Generator().manual_seed(0))
    rollout = Rollout(
        obs=obs,
        logits=torch.zeros(5, 1, 3),
        actions=torch.tensor([[0], [2], [1], [1], [0]]),
        rewards=torch.tensor([[1.0], [2.0], [7.0], [4.0], [7.0]]),  # 7 where it only resets
        terminated=torch.tensor([[False], [False], [False], [True], [False]]),
        ended=torch.tensor([[False], [True], [False], [True], [False]]),
        valid=torch.tensor([[True], [True], [False], [True], [False]]),
    )
    batch = make_batch(agent, rollout, args)
    _, parts = a2c_loss(agent, batch, args)
    with torch.no_grad():
        features, logits = agent(obs.squeeze(1))
        values = agent.value(obs.squeeze(1), features)
        # Row 0: 1 + 0.5 * 2 + 0.25 * V(true last observation); row 1: 2 + 0.5 * V(the same);
        # row 3: 4, nothing follows.
        returns = torch.stack([2 + 0.25 * values[2], 2 + 0.5 * values[2], torch.tensor(4.0)])
        advantages = returns - values[[0, 1, 3]]
        log_probs = logits[[0, 1, 3]].log_softmax(dim=1)[range(3), [0, 2, 1]]
    torch.testing.assert_close(parts["policy_loss"], -(advantages * log_probs).mean())
    torch.testing.assert_close(parts["value_loss"], advantages.square().mean())
    torch.testing.assert_close(batch.returns[[0, 1, 3]], returns)


def test_gradient_is_that_of_the_textbook_loss_over_the_valid_rows():
    agent, args = make_agent(ent_coef=0.03, epsilon=0.2)
    rollout = random_rollout(agent)
    loss, _ = a2c_loss(agent, make_batch(agent, rollout, args), args)
    gradients = torch.autograd.grad(loss, agent.parameters())

    obs = rollout.obs.flatten(0, 1)
    with torch.no_grad():
        values = agent.value(obs, agent(obs)[0]).view(17, 4)
    returns = torch.zeros(16, 4)
    for t in reversed(range(16)):
        later = returns[t + 1] if t < 15 else values[16]
        following = torch.where(rollout.ended[t], values[t + 1], later)
        returns[t] = rollout.rewards[t] + args.gamma * following * ~rollout.terminated[t]
    valid = rollout.valid
    features, logits = agent(rollout.obs[:-1][valid])
    policy = torch.distributions.Categorical(probs=0.8 * logits.softmax(dim=1) + 0.2 / 3)
    entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
    advantages = returns[valid] - agent.value(rollout.obs[:-1][valid], features)
    policy_loss = -(advantages.detach() * policy.log_prob(rollout.actions[valid])).mean()
    expected = policy_loss + 0.5 * advantages.square().mean() - 0.03 * entropy
    for got, wanted in zip(gradients, torch.autograd.grad(expected, agent.parameters())):
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-4)


class PlainA2C:
    """What Stable-Baselines3's A2C does with a rollout, in its own words: one list of transitions
    per environment, returns by recursion, and one step of torch's RMSprop."""

    def __init__(self, agent: nn.Module, args: Args):
        self.actor = nn.Sequential(*agent.actor.layers, agent.head)
        self.critic = nn.Sequential(*agent.critic.layers, agent.value_layer)
        self.args = args
        parameters = [*self.actor.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.RMSprop(parameters, args.learning_rate, 0.99, args.rmsprop_eps)
        self.parameters = parameters

    def transitions(self, rollout: Rollout) -> list[tuple]:
        """(observation, action, return) of each step that an environment took."""
        found = []
        for i in range(rollout.actions.shape[1]):
            following = self.critic(rollout.obs[-1, i]).item()
            for t in reversed(range(len(rollout.actions))):
                if not rollout.valid[t, i]:
                    continue
                if rollout.terminated[t, i]:
                    following = 0.0
                elif rollout.ended[t, i]:
                    following = self.critic(rollout.obs[t + 1, i]).item()
                following = rollout.rewards[t, i].item() + self.args.gamma * following
                found.append((rollout.obs[t, i], rollout.actions[t, i], following))
        return found

    def learn(self, rollout: Rollout) -> None:
        obs, actions, returns = zip(*self.transitions(rollout))
        obs = torch.stack(obs)
        returns = torch.tensor(returns)
        policy = torch.distributions.Categorical(logits=self.actor(obs))
        values = self.critic(obs).squeeze(1)
        advantages = returns - values.detach()
        policy_loss = -(advantages * policy.log_prob(torch.stack(actions))).mean()
        value_loss = nn.functional.mse_loss(returns, values)
        entropy_loss = -policy.entropy().mean()
        loss = policy_loss + self.args.ent_coef * entropy_loss + self.args.vf_coef * value_loss
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.args.max_grad_norm)
        self.optimizer.step()


def test_sixty_updates_are_those_of_stable_baselines3():
    """On rollouts of CartPole that our agent acts in, episodes' ends included."""
    args = Args(ent_coef=0.01, learning_rate=7e-4, rmsprop_eps=1e-5)
    envs = a2c_acpg.make_envs("CartPole-v1", args.num_envs)
    a2c_acpg.seed_everything(args)
    ours = a2c_acpg.make_agent(envs, args)
    twin = a2c_acpg.make_agent(envs, args)
    twin.load_state_dict(ours.state_dict())
    peer = PlainA2C(twin, args)
    theta = a2c_acpg.flatten_parameters(ours)
    optimizer = RMSprop(theta, args.learning_rate, args.rmsprop_alpha, args.rmsprop_eps)
    obs, _ = envs.reset(seed=1)
    state = a2c_acpg.EnvState(obs)
    policy = a2c_acpg.Policy(ours, obs)
    ends = 0
    for _ in range(60):
        rollout, episodes = a2c_acpg.collect(envs, policy, state, args)
        ends += len(episodes)
        update(ours, theta, loss_gradient, optimizer, make_batch(ours, rollout, args), args)
        peer.learn(rollout)
    assert ends > 50
    start = a2c_acpg.make_agent(envs, args).state_dict()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[name], atol=1e-6, rtol=0)
        assert not torch.equal(value, start[name])


def test_nan_in_invalid_rows_reaches_no_loss_and_no_gradient():
    agent, args = make_agent()
    gradients = []
    for filler in (0.0, math.nan):
        batch = make_batch(agent, random_rollout(agent, filler), args)
        gradient, parts = loss_gradient(agent, batch, args)
        gradients.append(gradient)
        assert all(part.isfinite() for part in parts.values())
    assert torch.equal(*gradients)


def test_a_rollout_without_a_valid_row_moves_nothing():
    agent, args = make_agent(ent_coef=0.1)
    theta = a2c_acpg.flatten_parameters(agent)
    batch = make_batch(agent, random_rollout(agent), args)
    batch = batch._replace(valid=torch.zeros_like(batch.valid))
    before = theta.clone()
    update(agent, theta, loss_gradient, RMSprop(theta, 1e-3, 0.99, 1e-5), batch, args)
    assert torch.equal(theta, before)


def test_at_epsilon_one_only_the_critic_learns():
    agent, args = make_agent(epsilon=1.0, ent_coef=0.0)
    loss, _ = a2c_loss(agent, make_batch(agent, random_rollout(agent), args), args)
    loss.backward()
    actors = [*agent.actor.parameters(), *agent.head.parameters()]
    assert all((parameter.grad == 0).all() for parameter in actors)
    assert any((parameter.grad != 0).any() for parameter in agent.critic.parameters())


def test_the_compiled_gradient_is_the_same():
    agent, args = make_agent()
    batch = make_batch(agent, random_rollout(agent), args)
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        expected, parts = loss_gradient(agent, batch, args)
        gradient, compiled_parts = torch.compile(loss_gradient, fullgraph=True)(agent, batch, args)
        torch.testing.assert_close(gradient, expected)
        torch.testing.assert_close(compiled_parts, parts)


def test_defaults_are_those_of_stable_baselines3():
    args = Args()
    assert (args.num_steps, args.gamma, args.gae_lambda) == pytest.approx((5, 0.99, 1.0))
    assert (args.ent_coef, args.vf_coef, args.max_grad_norm) == (0, 0.5, 0.5)


@pytest.mark.parametrize("eps", [3.16e-3, 1e-5])
def test_rmsprop_is_torch_s(eps):
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(1000, generator=generator)
    theirs = nn.Parameter(ours.clone())
    optimizers = RMSprop(ours, 1e-3, 0.9, eps), torch.optim.RMSprop([theirs], 1e-3, 0.9, eps)
    for k in range(200):
        gradient = torch.randn(1000, generator=generator) * 10.0 ** (k % 7 - 5)
        ours.grad = theirs.grad = gradient
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 1e-3 * (1 - k / 200)
            optimizer.step()
    torch.testing.assert_close(ours, theirs.data, atol=1e-6, rtol=0)


def test_the_default_epsilon_bounds_the_steps_as_the_papers_does():
    """After a long time of tiny gradients one of the size that clipping allows."""
    eps, small, large = Args().rmsprop_eps, 1e-5, 1e-2
    theta = torch.zeros(1)
    optimizer = RMSprop(theta, 1.0, 0.99, eps)
    for gradient in [small] * 2000 + [large]:
        theta.zero_()
        theta.grad = torch.tensor([gradient])
        optimizer.step()
    paper = large / (0.99 * small**2 + 0.01 * large**2 + 1e-5) ** 0.5
    assert -theta.item() == pytest.approx(paper, rel=0.3)


def test_the_head_s_norm_scales_the_backbone_s_gradient_as_the_docstring_says():
    """At the start, where the learned head is nearly 0: on a rollout of CartPole of each head."""
    norms = {}
    for etf_head in (False, True):
        args = Args(etf_head=etf_head, num_steps=128)
        a2c_acpg.seed_everything(args)
        envs = a2c_acpg.make_envs("CartPole-v1", args.num_envs)
        agent = a2c_acpg.make_agent(envs, args)
        obs, _ = envs.reset(seed=1)
        policy = a2c_acpg.Policy(agent, obs)
        rollout, _ = a2c_acpg.collect(envs, policy, a2c_acpg.EnvState(obs), args)
        gradient, _ = loss_gradient(agent, make_batch(agent, rollout, args), args)
        actor = gradient[: sum(parameter.numel() for parameter in agent.actor.parameters())]
        norms[etf_head] = actor.norm().item()
        rms = actor.square().mean().sqrt().item()
        assert rms < args.rmsprop_eps  # so RMSprop is nearly plain gradient descent
    print(norms, norms[True] / norms[False])
    assert norms[True] > 30 * norms[False]
