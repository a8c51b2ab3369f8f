"""benchmark/speed/cleanrl.py learns what ppo_acpg.py learns from a batch; its runs can be read."""

import pytest
import torch
from torch import nn

import ppo_acpg
from benchmark.reporting.measures import measure
from benchmark.speed import cleanrl
from tests.conftest import Run

OBS_SIZE = 4
NUM_ACTIONS = 3
ROWS = 512


def our_layers(agent: ppo_acpg.Agent) -> list[nn.Linear]:
    """Those with weights, the actor's first, from the observation to the output."""
    actor = [*agent.actor.layers, agent.head]
    critic = [*agent.critic.layers, agent.value_layer]
    return [layer for layer in (*actor, *critic) if isinstance(layer, nn.Linear)]


def their_layers(agent: cleanrl.Agent) -> list[nn.Linear]:
    return [layer for layer in (*agent.actor, *agent.critic) if isinstance(layer, nn.Linear)]


def weights(layers: list[nn.Module]) -> torch.Tensor:
    """All weights and biases (P,), in this order."""
    return torch.cat(
        [part.detach().flatten() for layer in layers for part in (layer.weight, layer.bias)]
    )


@pytest.fixture
def agents() -> tuple[cleanrl.Agent, ppo_acpg.Agent]:
    """CleanRL's agent and ours, with the same weights, and a policy that prefers some actions."""
    torch.manual_seed(3)
    theirs = cleanrl.Agent(OBS_SIZE, NUM_ACTIONS)
    with torch.no_grad():
        theirs.actor[-1].weight.mul_(100)
    ours = ppo_acpg.Agent((OBS_SIZE,), NUM_ACTIONS, ppo_acpg.Args())
    for ours_layer, their_layer in zip(our_layers(ours), their_layers(theirs), strict=True):
        ours_layer.load_state_dict(their_layer.state_dict())
    return theirs, ours


def made_batch(agent: nn.Module, obs: torch.Tensor, off: float) -> cleanrl.Batch:
    """Rows of these observations, and of a policy and a critic that are `off` the agent's by that
    standard deviation, so that ratios and values get clipped."""
    rows = len(obs)
    with torch.no_grad():
        actions, log_probs, _, values = agent.get_action_and_value(obs)
    values = values.flatten() + off * torch.randn(rows)
    advantages = 3 * torch.randn(rows) + 1
    return cleanrl.Batch(
        obs=obs,
        actions=actions.float(),
        log_probs=log_probs + off * torch.randn(rows),
        values=values,
        advantages=advantages,
        returns=advantages + values,
    )


@pytest.fixture
def batch(agents) -> cleanrl.Batch:
    return made_batch(agents[0], torch.randn(ROWS, OBS_SIZE), off=0.2)


def test_the_agents_are_the_same_function(agents, batch):
    theirs, ours = agents
    with torch.no_grad():
        _, log_probs, _, values = theirs.get_action_and_value(batch.obs, batch.actions)
        features, logits = ours(batch.obs)
        our_log_probs = logits.log_softmax(dim=1)[torch.arange(ROWS), batch.actions.long()]
        our_values = ours.value(batch.obs, features)
    torch.testing.assert_close(our_log_probs, log_probs)
    torch.testing.assert_close(our_values, values.squeeze(1))


def test_a_whole_update_is_ours(agents, batch):
    """All epochs and minibatches, in the same order: 16 steps of Adam end at the same weights."""
    theirs, ours = agents
    args = ppo_acpg.Args()
    start = weights(their_layers(theirs))

    torch.manual_seed(5)
    orders = iter([torch.randperm(ROWS).numpy() for _ in range(args.update_epochs)])
    optimizer = torch.optim.Adam(theirs.parameters(), lr=args.learning_rate, eps=1e-5)
    their_losses = cleanrl.update(
        theirs, optimizer, batch, cleanrl.Args(), lambda rows: next(orders)
    )
    assert next(orders, None) is None

    torch.manual_seed(5)
    theta = ppo_acpg.flatten_parameters(ours)
    optimizer = ppo_acpg.Adam(theta, args.learning_rate, args.adam_eps)
    columns = batch._asdict() | {
        "actions": batch.actions.long(),
        "valid": torch.ones(ROWS, dtype=bool),
    }
    our_batch = ppo_acpg.Batch(**columns)
    our_losses = ppo_acpg.update(ours, theta, ppo_acpg.loss_gradient, optimizer, our_batch, args)

    assert 0.1 < their_losses["clipfrac"] < 0.9
    assert our_losses["clipfrac"] == pytest.approx(their_losses["clipfrac"])
    end = weights(their_layers(theirs))
    assert (end - start).abs().mean() > 1e-4
    torch.testing.assert_close(weights(our_layers(ours)), end, rtol=1e-6, atol=1e-6)


def test_advantages_by_hand():
    """Two steps and two environments, the second of which ended its episode before the second step:
    nothing of that step reaches its first. With gamma = lambda = 1/2 and a critic that says 8:
    last step: 1 + 8/2 - 2 = 3; first step: 1 + 2/2 - 4 + 3/4 = -5/4, and 1 - 4 = -3."""
    agent = cleanrl.Agent(OBS_SIZE, NUM_ACTIONS)
    nn.init.zeros_(agent.critic[-1].weight)
    nn.init.constant_(agent.critic[-1].bias, 8)
    args = cleanrl.Args(num_envs=2, num_steps=2, gamma=0.5, gae_lambda=0.5)
    rollout = cleanrl.empty_rollout(args, (OBS_SIZE,))
    rollout.rewards.fill_(1)
    rollout.values.copy_(torch.tensor([[4, 4], [2, 2]]))
    rollout.dones[1, 1] = 1
    batch = cleanrl.make_batch(agent, rollout, torch.zeros(2, OBS_SIZE), torch.zeros(2), args)
    assert batch.advantages.tolist() == [-1.25, -3, 3, 3]
    assert batch.returns.tolist() == [2.75, 1, 5, 5]


def test_a_run_can_be_read(tmp_path):
    """Its episodes and a row after each fill its steps; TensorBoard has the names CleanRL gives."""
    cleanrl.main(cleanrl.Args(runs_dir=str(tmp_path), total_timesteps=1100))
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("CartPole-v1__cleanrl-ppo__linear__1__")
    row, _, lines = measure(path)
    lengths = [episode["length"] for episode in Run(path).episodes]
    returns = [episode["return"] for episode in Run(path).episodes]
    assert returns == lengths and len(lines) == len(lengths)
    assert 700 < sum(lengths) + len(lengths) <= 1024
    assert float(row["final"]) == pytest.approx(sum(returns) / len(returns), rel=1e-5)
    assert {*Run(path).scalars} == {
        "charts/episodic_return",
        "charts/episodic_length",
        "charts/learning_rate",
        "charts/SPS",
        "losses/value_loss",
        "losses/policy_loss",
        "losses/entropy",
        "losses/old_approx_kl",
        "losses/approx_kl",
        "losses/clipfrac",
        "losses/explained_variance",
    }
