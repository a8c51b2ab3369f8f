"""benchmark/speed/cleanrl_atari.py learns what ppo_atari_acpg.py learns from a batch; its runs can
be read, and its scores are those of whole games."""

import numpy as np
import pytest
import torch
from torch import nn

import ppo_atari_acpg
from benchmark.reporting.measures import measure
from benchmark.speed import cleanrl, cleanrl_atari
from benchmark.speed.__main__ import logged
from tests.conftest import Run
from tests.test_cleanrl_peer import made_batch, weights

NUM_ACTIONS = 4
ROWS = 64
OUR_ARGS = ppo_atari_acpg.Args(feature_activation="relu")  # CleanRL's last activation function


def our_layers(agent: ppo_atari_acpg.Agent) -> list[nn.Module]:
    """Those with weights, from the frames to the two outputs."""
    layers = [*agent.actor.layers, agent.head, agent.value_layer]
    return [layer for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)]


def their_layers(agent: cleanrl_atari.Agent) -> list[nn.Module]:
    layers = [*agent.network, agent.actor, agent.critic]
    return [layer for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)]


@pytest.fixture
def float64(monkeypatch):
    """Whatever the programs compute, they do in float64: of the millions of ReLUs in an update some
    lie so near 0 that the rounding of float32 turns them on in one program and off in the other."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def agents(float64) -> tuple[cleanrl_atari.Agent, ppo_atari_acpg.Agent]:
    """CleanRL's agent and ours, with the same weights, and a policy that prefers some actions."""
    torch.manual_seed(3)
    theirs = cleanrl_atari.Agent(NUM_ACTIONS)
    with torch.no_grad():
        theirs.actor.weight.mul_(100)
    ours = ppo_atari_acpg.Agent((4, 84, 84), NUM_ACTIONS, OUR_ARGS)
    for our_layer, their_layer in zip(our_layers(ours), their_layers(theirs), strict=True):
        our_layer.load_state_dict(their_layer.state_dict())
    return theirs, ours


@pytest.fixture
def batch(agents) -> cleanrl.Batch:
    return made_batch(agents[0], torch.randint(256, (ROWS, 4, 84, 84)).float(), off=0.1)


def test_the_agents_are_the_same_function(agents, batch):
    theirs, ours = agents
    with torch.no_grad():
        _, log_probs, _, values = theirs.get_action_and_value(batch.obs, batch.actions)
        features, logits = ours(batch.obs)
        our_log_probs = logits.log_softmax(dim=1)[torch.arange(ROWS), batch.actions.long()]
        our_values = ours.value(batch.obs, features)
        torch.testing.assert_close(theirs.get_value(batch.obs), values)
    torch.testing.assert_close(our_log_probs, log_probs)
    torch.testing.assert_close(our_values, values.squeeze(1))


def test_a_whole_update_is_ours(agents, batch):
    """All epochs and minibatches, in the same order: 16 steps of Adam end at the same weights."""
    theirs, ours = agents
    args = cleanrl_atari.Args()
    start = weights(their_layers(theirs))

    torch.manual_seed(5)
    orders = iter([torch.randperm(ROWS).numpy() for _ in range(args.update_epochs)])
    optimizer = torch.optim.Adam(theirs.parameters(), lr=args.learning_rate, eps=1e-5)
    their_losses = cleanrl.update(theirs, optimizer, batch, args, lambda rows: next(orders))
    assert next(orders, None) is None

    torch.manual_seed(5)
    theta = ppo_atari_acpg.flatten_parameters(ours)
    optimizer = ppo_atari_acpg.Adam(theta, OUR_ARGS.learning_rate, OUR_ARGS.adam_eps)
    columns = batch._asdict() | {
        "obs": batch.obs.to(torch.uint8),
        "actions": batch.actions.long(),
        "valid": torch.ones(ROWS, dtype=bool),
    }
    our_batch = ppo_atari_acpg.Batch(**columns)
    gradient_fn = ppo_atari_acpg.loss_gradient
    our_losses = ppo_atari_acpg.update(ours, theta, gradient_fn, optimizer, our_batch, OUR_ARGS)

    assert 0.1 < their_losses["clipfrac"] < 0.9
    assert our_losses["clipfrac"] == pytest.approx(their_losses["clipfrac"])
    end = weights(their_layers(theirs))
    assert (end - start).abs().mean() > 1e-4
    torch.testing.assert_close(weights(our_layers(ours)), end, rtol=0, atol=1e-12)


class Games:
    """Two games with lives, as envpool plays them with episodic life; step t of each is given."""

    num_envs = 2
    steps = (  # unclipped reward, an episode ends, no life is left, of both games
        ((7, 1), (0, 1), (0, 1)),
        ((5, 2), (1, 0), (0, 0)),
        ((0, 3), (0, 1), (0, 0)),
        ((4, 4), (1, 1), (1, 1)),
    )

    def reset(self) -> tuple:
        self.rest = iter(self.steps)
        return np.zeros(2), {}

    def step(self, actions: np.ndarray) -> tuple:
        rewards, ended, over = (np.array(values) for values in next(self.rest))
        info = {"reward": rewards.astype(np.float32), "lives": 1 - over, "terminated": over}
        return np.zeros(2), np.sign(rewards), ended.astype(bool), np.zeros(2, bool), info


def test_scores_are_unclipped_and_of_whole_games():
    """The first game's only end is in the last step: 7 + 5 + 0 + 4 = 16 in four steps; the second
    ends twice: 1 in one step, and 2 + 3 + 4 = 9 in three."""
    envs = object.__new__(cleanrl_atari.RecordEpisodeStatistics)
    envs.env = Games()
    envs._num_envs = 2
    envs.reset()
    games = []
    for _ in Games.steps:
        *_, info = envs.step(np.zeros(2))
        for i in np.flatnonzero(info["_episode"]):
            games.append((i, info["episode"]["r"][i], info["episode"]["l"][i]))
    assert games == [(1, 1, 1), (0, 16, 4), (1, 9, 3)]


def test_a_run_can_be_read(tmp_path):
    """TensorBoard has the names CleanRL gives."""
    args = cleanrl_atari.Args(runs_dir=str(tmp_path), total_timesteps=2 * 128 * 3, num_envs=3)
    cleanrl_atari.main(args)
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("Breakout-v5__cleanrl-ppo-atari__linear__1__")
    row, _, lines = measure(path)
    run = Run(path)
    assert len(lines) == len(run.episodes) > 0
    assert sum(episode["length"] for episode in run.episodes) <= 768
    assert row["script"] == "cleanrl-ppo-atari"
    assert logged(path) == {"steps": 768}
    assert [step for step, _ in run.scalars["charts/SPS"]] == [384, 768]
    assert {*run.scalars} == {
        "charts/episodic_return",
        "charts/avg_episodic_return",
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
