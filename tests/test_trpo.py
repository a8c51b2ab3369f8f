"""TRPO's parts against explicit matrices, and its guarantees."""

import math
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch

import trpo_acpg
from tests import rollouts
from tests.rollouts import random_rollout
from trpo_acpg import (
    Agent,
    behaviour_log_probs,
    conjugate_gradient,
    fisher_vector_product,
    make_batch,
    policy_step,
    surrogate_and_kl,
)

make_agent = partial(rollouts.make_agent, trpo_acpg)


def policy_parameters(agent: Agent) -> list[torch.Tensor]:
    return [*agent.actor.parameters(), *agent.head.parameters()]


@pytest.mark.parametrize(
    "flags", [{}, {"etf_head": True}, {"etf_head": True, "head_trainable": True}, {"epsilon": 0.3}]
)
def test_fisher_vector_product_is_that_of_the_explicit_fisher_matrix(flags):
    """F = mean over states of sum over actions of pi(a) (d log pi(a)) (d log pi(a))^T, one gradient at a time."""
    agent, args = make_agent(hidden_size=4, **flags)
    parameters = policy_parameters(agent)
    obs = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    log_probs = behaviour_log_probs(agent.head(agent.actor(obs)), args.epsilon)
    size = sum(parameter.numel() for parameter in parameters)
    frozen = agent.head.weight.requires_grad is False
    assert size == 4 * 5 + 4 + 4 * 4 + 4 + (0 if frozen else 3 * 4) + (
        0 if agent.head.bias is None else 3
    )
    fisher = torch.zeros(size, size)
    for row in log_probs:
        for log_prob in row:
            gradient = torch.cat(
                [g.flatten() for g in torch.autograd.grad(log_prob, parameters, retain_graph=True)]
            )
            fisher += log_prob.exp().detach() * torch.outer(gradient, gradient) / len(obs)
    _, kl = surrogate_and_kl(
        agent, args, obs, torch.zeros(6, dtype=torch.int64), log_probs.detach(), torch.zeros(6)
    )
    matvec = fisher_vector_product(kl, parameters, damping=0.01)
    for column in torch.randn(5, size, generator=torch.Generator().manual_seed(2)):
        torch.testing.assert_close(
            matvec(column), fisher @ column + 0.01 * column, atol=1e-5, rtol=1e-4
        )


def test_conjugate_gradient_solves_a_random_spd_system():
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(20, 20, dtype=torch.float64, generator=generator)
    matrix, b = (
        factor @ factor.T + torch.eye(20),
        torch.randn(20, dtype=torch.float64, generator=generator),
    )
    torch.testing.assert_close(
        conjugate_gradient(lambda v: matrix @ v, b, 60),
        torch.linalg.solve(matrix, b),
        atol=1e-4,
        rtol=0,
    )
    few = conjugate_gradient(lambda v: matrix @ v, b, 5)
    assert 0.01 < (matrix @ few - b).norm() / b.norm() < 1
    torch.testing.assert_close(
        conjugate_gradient(lambda v: 2 * v, b, 60), b / 2
    )  # solved at once: no division by zero


@pytest.mark.parametrize("flags", [{}, {"etf_head": True}, {"epsilon": 0.3}])
def test_an_accepted_step_improves_the_surrogate_within_the_trust_region(flags):
    agent, args = make_agent(**flags)
    (obs, actions, old_log_probs, advantages, _), _, _ = make_batch(agent, random_rollout(), args)
    weight, before = (
        agent.head.weight.clone(),
        [parameter.clone() for parameter in agent.actor.parameters()],
    )
    stats = policy_step(agent, [obs, actions, old_log_probs, advantages], args)
    assert (stats["line_search_failures"], stats["skipped"]) == (0, 0)
    assert not all(torch.equal(old, new) for old, new in zip(before, agent.actor.parameters()))
    assert torch.equal(weight, agent.head.weight) == bool(flags.get("etf_head"))
    with torch.no_grad():
        logits = agent(obs)[1]
    new = (1 - args.epsilon) * logits.softmax(dim=1) + args.epsilon / 3
    kl = (old_log_probs.exp() * (old_log_probs - new.log())).sum(dim=1).mean()
    improvement = (
        (new.log() - old_log_probs).exp()[range(len(obs)), actions] * advantages
    ).mean() - advantages.mean()
    assert 0.1 * args.target_kl < kl <= args.target_kl and improvement > 0
    assert stats["kl"] == pytest.approx(kl.item(), rel=1e-3)
    assert stats["improvement"] == pytest.approx(improvement.item(), rel=1e-3)


def test_a_surrogate_that_cannot_improve_leaves_every_parameter_as_it_was(monkeypatch):
    agent, args = make_agent()
    batch, _, _ = make_batch(agent, random_rollout(), args)
    real, calls = surrogate_and_kl, []

    def never_better(*arguments):
        surrogate, kl = real(*arguments)
        calls.append(surrogate)
        return (surrogate if len(calls) == 1 else calls[0] - 1), kl

    monkeypatch.setattr(trpo_acpg, "surrogate_and_kl", never_better)
    before = {name: tensor.clone() for name, tensor in agent.state_dict().items()}
    stats = policy_step(agent, batch[:4], args)
    assert (stats["line_search_failures"], stats["kl"], stats["improvement"], len(calls)) == (
        1,
        0,
        0,
        11,
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in agent.state_dict().items())


def test_a_step_out_of_the_trust_region_is_shortened(monkeypatch):
    """The first three fractions improve the surrogate but are said to leave the trust region."""
    agent, args = make_agent()
    batch, _, _ = make_batch(agent, random_rollout(), args)
    real, tried = surrogate_and_kl, []

    def too_far(*arguments):
        surrogate, kl = real(*arguments)
        tried.append(torch.nn.utils.parameters_to_vector(policy_parameters(agent)).detach())
        return surrogate, kl + (1 if 1 < len(tried) < 5 else 0)

    monkeypatch.setattr(trpo_acpg, "surrogate_and_kl", too_far)
    stats = policy_step(agent, batch[:4], args)
    assert len(tried) == 5 and stats["line_search_failures"] == 0 and stats["improvement"] > 0
    torch.testing.assert_close(
        tried[4] - tried[0], 0.8**3 * (tried[1] - tried[0]), atol=1e-6, rtol=1e-3
    )
    assert torch.equal(torch.nn.utils.parameters_to_vector(policy_parameters(agent)), tried[4])


def test_one_valid_row_is_enough(launch):
    run = launch(trpo_acpg, "--num-envs", 1, "--num-steps", 2, "--total-timesteps", 60)
    assert run.checkpoint["global_step"] == 60


def test_at_epsilon_one_the_step_is_skipped():
    agent, args = make_agent(epsilon=1.0)
    batch, _, _ = make_batch(agent, random_rollout(), args)
    before = [parameter.clone() for parameter in policy_parameters(agent)]
    assert policy_step(agent, batch[:4], args)["skipped"] == 1
    assert all(torch.equal(old, new) for old, new in zip(before, policy_parameters(agent)))


def test_skipped_and_failed_steps_are_logged(launch, monkeypatch):
    run = launch(trpo_acpg, "--epsilon", 1, "--total-timesteps", 3000)
    assert [value for _, value in run.scalars["losses/skipped"]] == [1, 1]
    stats = {"gradient_norm": 1.0, "line_search_failures": 1, "skipped": 0}
    monkeypatch.setattr(trpo_acpg, "policy_step", lambda *arguments: dict(stats))
    run = launch(trpo_acpg, "--total-timesteps", 3000)
    assert [value for _, value in run.scalars["losses/line_search_failures"]] == [1, 2]
    launch(trpo_acpg, "--resume", run.path / "checkpoint.pt", "--total-timesteps", 5000)
    assert [value for _, value in run.scalars["losses/line_search_failures"]] == [1, 2, 3]


def test_the_acting_policy_follows_a_step():
    """policy_step gives the parameters new memory, so the acting policy is made anew for every rollout."""
    agent, args = make_agent()
    batch, _, _ = make_batch(agent, random_rollout(), args)
    policy_step(agent, batch[:4], args)
    space = gym.spaces.Box(-1, 1, (5,))
    obs = np.float32(space.sample())[None]
    expected = agent(torch.from_numpy(obs))[1].detach()
    np.testing.assert_allclose(trpo_acpg.make_policy(agent, space, args)(obs), expected, atol=1e-6)


def test_batch_holds_only_valid_rows_whatever_the_others_hold():
    agent, args = make_agent(epsilon=0.3)
    batches = []
    for filler in (0.0, math.nan):
        rollout = random_rollout(filler)
        batches.append(make_batch(agent, rollout, args))
    for clean, planted in zip(*((*batch, features, logits) for batch, features, logits in batches)):
        assert torch.equal(clean, planted)
    (obs, actions, log_probs, advantages, _), _, logits = batches[0]
    assert len(obs) == int(rollout.valid.sum()) and torch.equal(
        actions, rollout.actions[rollout.valid]
    )
    torch.testing.assert_close(log_probs.exp(), 0.7 * logits.softmax(dim=1) + 0.1)
    assert advantages.mean().abs() < 1e-6 and advantages.std(correction=0).item() == pytest.approx(
        1
    )
