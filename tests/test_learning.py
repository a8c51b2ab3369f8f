"""Whole short runs: probe environments with known answers, and CartPole."""

import numpy as np
import pytest
import torch
from scipy import stats

from benchmark.algorithms import ALGORITHMS


def trained(script, launch, env_id, *flags):
    """The agent that a run on a probe leaves behind. Probes are learned in some thousand steps; at
    a constant learning rate, so that values do not stop short of their limits."""
    flags = (*ALGORITHMS[script.__name__].probe.split(), *flags)
    run = launch(script, "--env-id", f"tests.probes:{env_id}", "--no-anneal-lr", *flags)
    args = script.Args(**run.args)
    envs = script.make_envs(args.env_id, 1)
    agent = script.Agent(envs.single_observation_space.shape, int(envs.single_action_space.n), args)
    agent.load_state_dict(run.checkpoint["agent"])
    return agent


def values(agent, observations):
    obs = torch.tensor(observations, dtype=torch.float32)
    with torch.inference_mode():
        return agent.value(obs).tolist()


def test_one_step_of_reward_one(script, launch):
    assert values(trained(script, launch, "Probe-v0"), [[0.0]]) == pytest.approx([1], abs=0.05)


def test_reward_that_is_seen(script, launch):
    agent = trained(script, launch, "SeenReward-v0")
    assert values(agent, [[-1.0], [1.0]]) == pytest.approx([-1, 1], abs=0.05)


def test_reward_one_step_ahead_is_discounted(script, launch):
    agent = trained(script, launch, "TwoSteps-v0", "--gamma", 0.5)
    assert values(agent, [[-0.5], [0.5]]) == pytest.approx([0.5, 1], abs=0.05)


@pytest.mark.parametrize("head", ["--no-etf-head", "--etf-head"])
def test_the_rewarded_action_is_found(script, launch, head):
    agent = trained(script, launch, "RightAction-v0", head)
    with torch.inference_mode():
        assert agent(torch.zeros(1, 1))[1].softmax(dim=1)[0, 2] > 0.9


def test_truncation_bootstraps(script, launch):
    agent = trained(script, launch, "Truncated-v0", "--gamma", 0.9, "--total-timesteps", 40000)
    assert values(agent, [[0.0]]) == pytest.approx([10], abs=0.3)


def test_termination_does_not(script, launch):
    agent = trained(script, launch, "Clock-v0", "--gamma", 0.9, "--total-timesteps", 40000)
    exact = [sum(0.9**k for k in range(10 - t)) for t in range(10)]
    assert exact[0] == pytest.approx(6.513, abs=1e-3)
    assert values(agent, np.eye(11)[:10]) == pytest.approx(exact, abs=0.2)


@pytest.mark.parametrize("head", ["--no-etf-head", "--etf-head"])
def test_cartpole_is_learned(script, launch, head):
    run = launch(script, head, "--total-timesteps", ALGORITHMS[script.__name__].cartpole)
    first = np.mean([episode["return"] for episode in run.episodes[:100]])
    assert first < 50 < 150 < run.final_return()


@pytest.mark.parametrize("script", ["ppo_acpg"], indirect=True)
def test_cartpole_is_the_same_in_envpool_and_gymnasium(script, launch):
    """Twelve seeds, because areas scatter by a fifth of their mean: four differed by chance once."""
    areas = {}
    for env_id in ("CartPole-v1", "benchmark.envs:envpool/CartPole-v1"):
        areas[env_id] = []
        for seed in range(1, 13):
            run = launch(script, "--env-id", env_id, "--seed", seed, "--total-timesteps", 25000)
            steps, returns = zip(
                *((episode["global_step"], episode["return"]) for episode in run.episodes)
            )
            areas[env_id].append(np.interp(np.arange(1000, 25001, 1000), steps, returns).mean())
    assert stats.ttest_ind(*areas.values(), equal_var=False).pvalue > 0.01, areas
