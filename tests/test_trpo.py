"""TRPO's parts against explicit matrices, its guarantees, and one update against sb3-contrib's."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trpo_acpg
from tests import peers_trpo, rollouts
from trpo_acpg import (
    Agent,
    Args,
    Batch,
    Policy,
    behaviour_log_probs,
    check_flattened,
    conjugate_gradient,
    fisher_vector_product,
    fit_critic,
    flatten_parameters,
    make_batch,
    policy_step,
    surrogate_and_kl,
    trainable_parameters,
    value_gradient,
)

NAN_COLUMNS = torch.full((6,), math.nan)  # for rows of a batch that must not matter


def actor_layers(agent: Agent) -> nn.ModuleList:
    return nn.ModuleList([agent.actor, agent.head])


def critic_layers(agent: Agent) -> nn.ModuleList:
    return nn.ModuleList([agent.critic, agent.value_layer])


def make_agent(**flags) -> tuple[Agent, Tensor, Args]:
    """An agent, the theta of its actor, and its arguments."""
    agent, args = rollouts.make_agent(trpo_acpg, **flags)
    return agent, flatten_parameters(actor_layers(agent)), args


def batch_for(agent: Agent, args: Args, filler: float = 0.0) -> Batch:
    return make_batch(agent, rollouts.random_rollout(trpo_acpg, agent, filler), args)


def weights(module: nn.Module) -> Tensor:
    """All that trains, one after the other: (P,)."""
    return nn.utils.parameters_to_vector(trainable_parameters(module)).detach()


def fisher_matrix(agent: Agent, obs: Tensor, epsilon: float) -> Tensor:
    """F = mean over states of sum over actions of pi(a) (d log pi(a)) (d log pi(a))^T, one gradient
    at a time."""
    parameters = trainable_parameters(actor_layers(agent))
    _, logits = agent(obs)
    log_probs = behaviour_log_probs(logits.log_softmax(dim=1), epsilon)
    size = sum(parameter.numel() for parameter in parameters)
    fisher = torch.zeros(size, size)
    for log_prob in log_probs.flatten():
        gradients = torch.autograd.grad(log_prob, parameters, retain_graph=True)
        gradient = torch.cat([part.flatten() for part in gradients])
        fisher += log_prob.exp().detach() * torch.outer(gradient, gradient) / len(obs)
    return fisher


@pytest.mark.parametrize(
    "flags", [{}, {"etf_head": True}, {"etf_head": True, "head_trainable": True}, {"epsilon": 0.3}]
)
def test_fisher_vector_product_is_that_of_the_explicit_fisher_matrix(flags):
    agent, theta, args = make_agent(hidden_size=4, **flags)
    frozen = not isinstance(agent.head.weight, nn.Parameter)
    weight = 0 if frozen else 3 * 4
    bias = 0 if agent.head.bias is None else 3
    assert len(theta) == 4 * 5 + 4 + 4 * 4 + 4 + weight + bias

    obs = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    fisher = fisher_matrix(agent, obs, args.epsilon)
    log_probs = behaviour_log_probs(agent(obs)[1].log_softmax(dim=1), args.epsilon).detach()
    actions = torch.zeros(6, dtype=torch.int64)
    batch = Batch(obs, actions, log_probs, NAN_COLUMNS, NAN_COLUMNS, NAN_COLUMNS)
    _, kl = surrogate_and_kl(agent, batch, args)
    matvec = fisher_vector_product(kl, trainable_parameters(actor_layers(agent)), damping=0.01)
    for column in torch.randn(5, len(theta), generator=torch.Generator().manual_seed(2)):
        expected = fisher @ column + 0.01 * column
        torch.testing.assert_close(matvec(column), expected, atol=1e-5, rtol=1e-4)


def test_conjugate_gradient_solves_a_random_spd_system():
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(20, 20, dtype=torch.float64, generator=generator)
    matrix = factor @ factor.T + torch.eye(20)
    b = torch.randn(20, dtype=torch.float64, generator=generator)
    solution = conjugate_gradient(lambda v: matrix @ v, b, 60)
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, b), atol=1e-4, rtol=0)
    few = conjugate_gradient(lambda v: matrix @ v, b, 5)
    assert 0.01 < (matrix @ few - b).norm() / b.norm() < 1
    at_once = conjugate_gradient(lambda v: 2 * v, b, 60)  # without a division by zero
    torch.testing.assert_close(at_once, b / 2)


@pytest.mark.parametrize("flags", [{}, {"etf_head": True}, {"epsilon": 0.3}])
def test_an_accepted_step_improves_the_surrogate_within_the_trust_region(flags):
    agent, theta, args = make_agent(**flags)
    batch = batch_for(agent, args)
    weight = agent.head.weight.clone()
    actor = weights(agent.actor)
    stats = policy_step(agent, theta, batch, args)
    assert stats["line_search_failures"] == stats["skipped"] == 0
    assert not torch.equal(weights(agent.actor), actor)
    assert torch.equal(agent.head.weight, weight) == bool(flags.get("etf_head"))

    with torch.no_grad():
        _, logits = agent(batch.obs)
    new = ((1 - args.epsilon) * logits.softmax(dim=1) + args.epsilon / 3).log()
    kl = (batch.log_probs.exp() * (batch.log_probs - new)).sum(dim=1).mean()
    ratio = (new - batch.log_probs).exp()[range(len(new)), batch.actions]
    improvement = (ratio * batch.advantages).mean() - batch.advantages.mean()
    assert 0.1 * args.target_kl < kl <= args.target_kl
    assert improvement > 0
    assert stats["kl"] == pytest.approx(kl.item(), rel=1e-3)
    assert stats["improvement"] == pytest.approx(improvement.item(), rel=1e-3)


def test_a_surrogate_that_cannot_improve_leaves_every_parameter_as_it_was(monkeypatch):
    agent, theta, args = make_agent()
    batch = batch_for(agent, args)
    surrogates = []

    def never_better(*arguments):
        surrogate, kl = surrogate_and_kl(*arguments)
        surrogates.append(surrogate)
        return (surrogate if len(surrogates) == 1 else surrogates[0] - 1), kl

    monkeypatch.setattr(trpo_acpg, "surrogate_and_kl", never_better)
    before = {name: tensor.clone() for name, tensor in agent.state_dict().items()}
    stats = policy_step(agent, theta, batch, args)
    assert len(surrogates) == 1 + 10
    assert (stats["line_search_failures"], stats["kl"], stats["improvement"]) == (1, 0, 0)
    assert all(torch.equal(before[name], tensor) for name, tensor in agent.state_dict().items())
    check_flattened(actor_layers(agent), theta)


def test_a_step_out_of_the_trust_region_is_shortened(monkeypatch):
    """The first three fractions improve the surrogate but are said to leave the trust region."""
    agent, theta, args = make_agent()
    batch = batch_for(agent, args)
    tried = []

    def too_far(*arguments):
        surrogate, kl = surrogate_and_kl(*arguments)
        tried.append(weights(actor_layers(agent)))
        return surrogate, kl + (1 if 1 < len(tried) < 5 else 0)

    monkeypatch.setattr(trpo_acpg, "surrogate_and_kl", too_far)
    stats = policy_step(agent, theta, batch, args)
    assert len(tried) == 5
    assert stats["line_search_failures"] == 0 and stats["improvement"] > 0
    shortened = 0.8**3 * (tried[1] - tried[0])
    torch.testing.assert_close(tried[4] - tried[0], shortened, atol=1e-6, rtol=1e-3)
    assert torch.equal(theta, tried[4])


@pytest.mark.parametrize("flags", [{}, {"etf_head": True}, {"epsilon": 0.3}])
def test_the_full_step_reaches_what_the_damping_leaves_of_the_trust_region(flags):
    """In a region so small that the quadratic model of the divergence holds."""
    agent, theta, args = make_agent(hidden_size=4, target_kl=1e-5, **flags)
    batch = batch_for(agent, args)
    surrogate, _ = surrogate_and_kl(agent, batch, args)
    parameters = trainable_parameters(actor_layers(agent))
    gradient = trpo_acpg.flat_gradient(surrogate, parameters)
    fisher = fisher_matrix(agent, batch.obs, args.epsilon)
    damped = fisher + args.cg_damping * torch.eye(len(theta))
    direction = torch.linalg.solve(damped, gradient)
    share = 1 - (direction @ fisher @ direction) / (direction @ damped @ direction)
    step = direction * (2 * args.target_kl / (direction @ damped @ direction)).sqrt()
    before = theta.clone()

    stats = policy_step(agent, theta, batch, args)
    assert 0.1 < stats["damping_share"] < 0.9
    assert stats["damping_share"] == pytest.approx(share.item(), rel=1e-3)
    torch.testing.assert_close(theta - before, step, atol=1e-3 * step.norm().item(), rtol=0)
    assert stats["kl"] == pytest.approx((1 - share.item()) * args.target_kl, rel=0.03)


def test_the_divergence_and_the_share_of_the_damping_are_logged(launch):
    run = launch(trpo_acpg, "--target-kl", 1e-5, "--total-timesteps", 6000)
    shares = [share for _, share in run.scalars["losses/damping_share"]]
    divergences = [kl for _, kl in run.scalars["losses/kl"]]
    assert len(shares) > 2 and all(0.01 < share < 0.99 for share in shares)
    assert divergences == pytest.approx([(1 - share) * 1e-5 for share in shares], rel=0.1)


def test_one_valid_row_is_enough(launch):
    """Its advantage is normalized to 0."""
    run = launch(trpo_acpg, "--num-envs", 1, "--num-steps", 2, "--total-timesteps", 60)
    steps, skipped = zip(*run.scalars["losses/skipped"])
    rows = np.diff(steps, prepend=0)
    assert set(rows) == {1, 2}
    assert all(skipped[i] == 1 for i in np.flatnonzero(rows == 1))
    assert 0 in skipped and steps[-1] in (60, 61)


def test_at_epsilon_one_the_step_is_skipped():
    agent, theta, args = make_agent(epsilon=1.0)
    before = theta.clone()
    assert policy_step(agent, theta, batch_for(agent, args), args)["skipped"] == 1
    assert torch.equal(theta, before)


@pytest.mark.parametrize("constant", [0.0, 0.1, 7.3, -5.7, 1000.0])
def test_equal_advantages_skip_the_step(constant):
    """But for rounding."""
    agent, theta, args = make_agent(gamma=0.0)
    with torch.no_grad():
        agent.value_layer.weight.zero_()
    rollout = rollouts.random_rollout(trpo_acpg, agent)
    rewards = constant * (1 + 1e-7 * torch.randn(rollout.rewards.shape))
    batch = make_batch(agent, rollout._replace(rewards=rewards), args)
    before = theta.clone()
    stats = policy_step(agent, theta, batch, args)
    assert stats["skipped"] == 1 and stats["kl"] == stats["improvement"] == 0
    assert torch.equal(theta, before)


def recorded_thetas(monkeypatch) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """The modules that a run flattens, their theta, and a copy of it as it was then."""
    thetas = []

    def recording(module):
        theta = flatten_parameters(module)
        thetas.append((module, theta, theta.clone()))
        return theta

    monkeypatch.setattr(trpo_acpg, "flatten_parameters", recording)
    return thetas


def test_a_run_of_equal_advantages_leaves_the_policy_where_it_was(launch, monkeypatch, capsys):
    thetas = recorded_thetas(monkeypatch)
    flags = ("--env-id", "tests.toys:Constant-v0", "--total-timesteps", 20_000)
    run = launch(trpo_acpg, *flags)
    (_, actor, actor_before), (_, critic, critic_before) = thetas
    assert torch.equal(actor, actor_before)
    assert not torch.equal(critic, critic_before)
    skipped = [count for _, count in run.scalars["losses/skipped"]]
    assert len(skipped) > 10 and set(skipped) == {1}
    assert capsys.readouterr().out.count("steps skipped that teach nothing") == 1


def test_skipped_and_failed_steps_are_logged(launch, monkeypatch):
    run = launch(trpo_acpg, "--epsilon", 1, "--total-timesteps", 3000)
    assert [value for _, value in run.scalars["losses/skipped"]] == [1, 1]
    stats = {"gradient_norm": 1.0, "line_search_failures": 1, "skipped": 0}
    monkeypatch.setattr(trpo_acpg, "policy_step", lambda *arguments: dict(stats))
    run = launch(trpo_acpg, "--total-timesteps", 3000)
    assert [value for _, value in run.scalars["losses/line_search_failures"]] == [1, 1]
    launch(trpo_acpg, "--resume", run.path / "checkpoint.pt", "--total-timesteps", 5000)
    assert [value for _, value in run.scalars["losses/line_search_failures"]] == [1, 1, 1]


@pytest.mark.parametrize("flags", [{}, {"etf_head": True}])
def test_the_acting_policy_follows_a_step(flags):
    """NumPy reads the memory of the parameters, and so a step must not give them another."""
    agent, theta, args = make_agent(**flags)
    batch = batch_for(agent, args)
    obs = batch.obs.numpy()
    policy = Policy(agent, obs)
    before = policy(obs)
    policy_step(agent, theta, batch, args)
    assert policy.numpy_layers
    np.testing.assert_allclose(policy(obs), policy.agent_logits(obs), atol=1e-5)
    assert np.abs(policy(obs) - before).max() > 0.01


@pytest.mark.parametrize("head", [(), ("--etf-head",)])
def test_after_a_run_the_parameters_are_views_of_the_thetas(launch, monkeypatch, head):
    thetas = recorded_thetas(monkeypatch)
    run = launch(trpo_acpg, "--total-timesteps", 6000, *head)
    assert len(thetas) == 2
    for module, theta, before in thetas:
        check_flattened(module, theta)
        assert torch.equal(weights(module), theta)
        assert not torch.equal(theta, before)
    (_, trained_head), _, _ = thetas[0]
    frame = trpo_acpg.make_head(2, 64, Args(etf_head=True)).weight
    assert torch.equal(trained_head.weight, frame) == bool(head)
    assert torch.equal(run.checkpoint["agent"]["head.weight"], trained_head.weight)


@pytest.mark.parametrize("frame", ["simplex", "random", "orthogonal"])
def test_a_head_frozen_at_a_frame_never_moves(frame):
    agent, theta, args = make_agent(etf_head=True, head_frame=frame)
    before = agent.head.weight.clone()
    actor = weights(agent.actor)
    assert policy_step(agent, theta, batch_for(agent, args), args)["kl"] > 0
    assert torch.equal(agent.head.weight, before)
    assert not torch.equal(weights(agent.actor), actor)


def test_parameters_that_left_theta_are_noticed():
    agent, theta, args = make_agent()
    batch = batch_for(agent, args)
    agent.head.weight.data = agent.head.weight.data + 1
    with pytest.raises(RuntimeError, match="is not in theta"):
        policy_step(agent, theta, batch, args)
    critic_theta = flatten_parameters(critic_layers(agent))
    agent.zero_grad()
    with pytest.raises(RuntimeError, match="zero_grad"):
        fit_critic(agent, critic_theta, value_gradient, None, batch, args)


@pytest.mark.parametrize("scale", [10.0, 100.0, 1000.0])
def test_logits_far_apart_keep_a_step_finite_at_any_epsilon(scale):
    """The second derivative of logaddexp is NaN where one of the two is 89 below the other."""
    for epsilon in (0.0, 1e-6, 0.1, 0.9):
        agent, theta, args = make_agent(etf_head=True, etf_scale=scale, epsilon=epsilon)
        batch = batch_for(agent, args)
        actions = torch.distributions.Categorical(logits=batch.log_probs).sample()
        stats = policy_step(agent, theta, batch._replace(actions=actions), args)
        assert all(math.isfinite(value) for value in stats.values())


def test_a_gradient_whose_square_is_zero_keeps_a_step_finite():
    """Of a policy that is all but deterministic."""
    norms = []
    for scale in range(30, 46):
        agent, theta, args = make_agent(etf_head=True)
        with torch.no_grad():
            agent.actor.layers[2].weight.mul_(0.01)
            agent.actor.layers[2].bias.fill_(3)
            agent.head.weight[0] = scale / 128
            agent.head.weight[1:] = -scale / 128
        rollout = rollouts.random_rollout(trpo_acpg, agent)
        rollout = rollout._replace(actions=rollout.logits.argmax(dim=-1))
        stats = policy_step(agent, theta, make_batch(agent, rollout, args), args)
        assert all(math.isfinite(value) for value in stats.values())
        norms.append(stats["gradient_norm"])
    assert sum(0 < norm < 1e-19 for norm in norms) > 2


def test_batch_holds_only_valid_rows_whatever_the_others_hold():
    agent, _, args = make_agent(epsilon=0.3)
    rollout = rollouts.random_rollout(trpo_acpg, agent)
    batch = batch_for(agent, args)
    planted = batch_for(agent, args, math.nan)
    assert all(torch.equal(*columns) for columns in zip(batch, planted))

    valid = rollout.valid
    assert torch.equal(batch.obs, rollout.obs[:-1][valid])
    assert torch.equal(batch.actions, rollout.actions[valid])
    torch.testing.assert_close(batch.values, agent.value(batch.obs).detach())
    probabilities = 0.7 * rollout.logits[valid].softmax(dim=1) + 0.1
    torch.testing.assert_close(batch.log_probs.exp(), probabilities)
    assert batch.advantages.mean().abs() < 1e-6
    assert batch.advantages.std(correction=0).item() == pytest.approx(1)
    differences = batch.returns - batch.values
    scaled = (differences - differences.mean()) / differences.std(correction=0)
    torch.testing.assert_close(batch.advantages, scaled, atol=1e-5, rtol=0)


def test_a_batch_is_of_the_policy_that_acted():
    """Whose logits stand in the rollout."""
    agent, _, args = make_agent()
    rollout = rollouts.random_rollout(trpo_acpg, agent)
    rollout = rollout._replace(logits=rollout.logits + torch.randn(16, 4, 3))
    batch = make_batch(agent, rollout, args)
    probabilities = rollout.logits[rollout.valid].softmax(dim=1)
    torch.testing.assert_close(batch.log_probs.exp(), probabilities)


def test_fitting_the_critic_visits_every_row_once_per_epoch_and_leaves_the_policy():
    agent, theta, args = make_agent(critic_epochs=3)
    critic_theta = flatten_parameters(critic_layers(agent))
    batch = batch_for(agent, args)
    batch = Batch(*(torch.cat(5 * [column]) for column in batch))
    rows = len(batch.obs)
    batch = batch._replace(returns=torch.arange(rows, dtype=torch.float32))  # row numbers
    optimizer = trpo_acpg.Adam(critic_theta, args.learning_rate, args.adam_eps)
    seen = []
    losses = []

    def spy(agent, obs, returns):
        seen.append(returns)
        gradient, loss = value_gradient(agent, obs, returns)
        torch.testing.assert_close(loss, (agent.value(obs) - returns).square().mean().detach())
        losses.append(loss.item())
        return gradient, loss

    policy_before = theta.clone()
    critic_before = critic_theta.clone()
    loss = fit_critic(agent, critic_theta, spy, optimizer, batch, args)
    assert loss == pytest.approx(np.mean(losses))
    minibatches = math.ceil(rows / 128)
    assert minibatches > 1 and len(seen) == 3 * minibatches
    assert max(map(len, seen)) == 128
    epochs = torch.cat(seen).view(3, rows)
    assert torch.equal(epochs.sort(dim=1).values, batch.returns.expand(3, rows))
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(theta, policy_before)
    assert not torch.equal(critic_theta, critic_before)


def test_the_compiled_gradient_of_the_critic_is_the_same():
    agent, _, args = make_agent()
    batch = batch_for(agent, args)
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        expected = value_gradient(agent, batch.obs, batch.returns)
        compiled = torch.compile(value_gradient, fullgraph=True)
        torch.testing.assert_close(compiled(agent, batch.obs, batch.returns), expected)


def test_tensors_move_with_the_agent(monkeypatch):
    """The nearest thing to CUDA on a machine without it: a forgotten transfer fails on meta too."""
    nonzero = "torch.fx.experimental._config.meta_nonzero_assume_all_nonzero"
    monkeypatch.setattr(nonzero, True, raising=False)
    agent, args = rollouts.make_agent(trpo_acpg)
    rollout = rollouts.random_rollout(trpo_acpg, agent)
    batch = make_batch(agent.to("meta"), rollout, args)
    assert {column.device.type for column in batch} == {"meta"}
    surrogate, kl = surrogate_and_kl(agent, batch, args)
    parameters = trainable_parameters(actor_layers(agent))
    gradient = trpo_acpg.flat_gradient(surrogate, parameters, retain_graph=True)
    matvec = fisher_vector_product(kl, parameters, args.cg_damping)
    assert matvec(gradient).device.type == "meta"
    gradient, _ = value_gradient(agent, batch.obs, batch.returns)
    assert gradient.device.type == "meta"


# One update against sb3-contrib's.
def long_rollout(agent: Agent, num_steps: int) -> trpo_acpg.Rollout:
    """Of one environment."""
    obs, *columns = rollouts.random_columns(0.0, num_steps, num_envs=1)
    with torch.no_grad():
        _, logits = agent(obs[:-1, 0])
    return trpo_acpg.Rollout(obs, logits[:, None], *columns)


def peers_steps(agent: Agent, rollout: trpo_acpg.Rollout, gamma: float) -> peers_trpo.Steps:
    """The rollout of one environment as sb3-contrib would have seen it."""
    obs, _, actions, rewards, terminated, ended, valid = (column[:, 0] for column in rollout)
    with torch.no_grad():
        bootstrapped = rewards + gamma * agent.value(obs[1:])
    rewards = torch.where(ended & ~terminated, bootstrapped, rewards)
    starts = torch.cat([torch.tensor([True]), ~valid[:-1]])
    return peers_trpo.Steps(
        obs=obs[:-1][valid],
        actions=actions[valid],
        rewards=rewards[valid],
        starts=starts[valid],
        last_obs=obs[-1:],
        last_ended=bool(ended[valid][-1]),
    )


@pytest.mark.parametrize(
    ("num_steps", "target_kl", "shortened", "flags"),
    [
        (600, 0.01, 0, {}),
        (601, 0.01, 0, {"head_std": 1.0}),
        (602, 0.01, 0, {"etf_head": True}),
        (300, 0.1, 1, {"etf_head": True, "etf_scale": 6.0}),
    ],
)
def test_an_update_equals_that_of_sb3_contrib(num_steps, target_kl, shortened, flags):
    agent, theta, args = make_agent(target_kl=target_kl, **flags)
    peer, _ = rollouts.make_agent(trpo_acpg, target_kl=target_kl, **flags)
    assert torch.equal(weights(peer), weights(agent))
    rollout = long_rollout(agent, num_steps)
    count = int(rollout.valid.sum())
    assert 128 < count < num_steps and count % 128 != 0
    before = weights(agent)

    batch = make_batch(agent, rollout, args)
    policy_step(agent, theta, batch, args)
    critic_theta = flatten_parameters(critic_layers(agent))
    optimizer = trpo_acpg.Adam(critic_theta, args.learning_rate, args.adam_eps)
    torch.manual_seed(7)
    fit_critic(agent, critic_theta, value_gradient, optimizer, batch, args)

    torch.manual_seed(7)
    orders = [torch.randperm(count) for _ in range(args.critic_epochs)]
    policy = nn.Sequential(peer.actor, peer.head)
    critic = nn.Sequential(peer.critic, peer.value_layer)
    steps = peers_steps(peer, rollout, args.gamma)
    times = peers_trpo.update(policy, critic, steps, orders, target_kl=target_kl)
    assert times == shortened
    torch.testing.assert_close(theta, weights(actor_layers(peer)), atol=1e-4, rtol=0)
    torch.testing.assert_close(critic_theta, weights(critic_layers(peer)), atol=1e-6, rtol=0)
    assert (weights(agent) - before).abs().max() > 0.03
