"""benchmark/paper/off_policy.py with its library: whole runs of DQN and discrete SAC."""

import csv
import re
from statistics import mean

import gymnasium as gym
import pytest
import torch

from benchmark import collate
from benchmark.paper import off_policy
from tests.probes import Truncated
from tests.test_off_policy import refused

each = pytest.mark.parametrize("algorithm", ["dqn", "sac"])


@each
def test_a_run_leaves_what_the_benchmark_reads(launch, capsys, tmp_path, algorithm):
    """600 steps of episodes of 10, which all ten environments end together."""
    flags = ("--env-id", "tests.probes:Clock-v0", "--total-timesteps", 600, "--seed", 3)
    run = launch(off_policy, "--algorithm", algorithm, *flags)
    assert sum(episode["length"] for episode in run.episodes) == 600
    assert [episode["global_step"] for episode in run.episodes[:10]] == list(range(91, 101))
    assert [episode["return"] for episode in run.evaluation] == [10.0] * 10
    assert {episode["global_step"] for episode in run.evaluation} == {600.0}
    assert run.checkpoint["global_step"] == 600

    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"step 600/600: return 10.0 \(last 60 episodes\), \d+ steps/s", last)

    collate.main(collate.Args(runs=tmp_path / "runs", out=tmp_path / "out"))
    (row,) = csv.DictReader(open(tmp_path / "out" / "runs.csv"))
    assert (row["script"], row["seed"], row["head"]) == ("off_policy", "3", "")
    returns = [episode["return"] for episode in run.episodes]
    assert float(row["final"]) == mean(returns[-100:]) == 10
    assert float(row["greedy"]) == mean(episode["return"] for episode in run.evaluation)


@each
@pytest.mark.parametrize(
    ("env_id", "limit"),
    [
        ("CartPole-v1", 500),
        ("Acrobot-v1", 500),
        ("benchmark.envs:envpool/Acrobot-v1", 500),
        ("FrozenLake-v1", 100),
        ("benchmark.envs:IdealCliffWalking-v0", 50),
    ],
)
def test_the_small_tasks_run(launch, algorithm, env_id, limit):
    """Boxes and numbers, as environments of their own and as a vector of envpool's. A step is one
    of each of ten environments, and an episode of each may be under way at the end."""
    flags = ("--env-id", env_id, "--total-timesteps", 1005)
    run = launch(off_policy, "--algorithm", algorithm, *flags)
    assert run.checkpoint["global_step"] == 1010
    lengths = [episode["length"] for episode in run.episodes]
    assert max(lengths, default=0) <= limit
    assert 1010 - 10 * limit <= sum(lengths) <= 1010
    assert len(run.evaluation) == 10
    assert max(episode["length"] for episode in run.evaluation) <= limit


def test_the_seed_decides(launch):
    flags = ("--env-id", "FrozenLake-v1", "--total-timesteps", 500)

    def episodes(algorithm: str, seed: int) -> list[tuple]:
        run = launch(off_policy, "--algorithm", algorithm, "--seed", seed, *flags)
        return [(episode["global_step"], episode["return"]) for episode in run.episodes]

    assert episodes("dqn", 1) == episodes("dqn", 1) != episodes("dqn", 2)
    assert episodes("sac", 1) == episodes("sac", 1) != episodes("sac", 2)


def test_a_finished_run_has_nothing_left_to_do(launch, capsys):
    run = launch(off_policy, "--env-id", "tests.probes:Clock-v0", "--total-timesteps", 100)
    before = {path: path.read_bytes() for path in run.path.iterdir()}
    checkpoint = run.path / "checkpoint.pt"
    launch(off_policy, "--resume", checkpoint, "--env-id", "tests.probes:Clock-v0")
    assert {path: path.read_bytes() for path in run.path.iterdir()} == before
    capsys.readouterr()
    line = refused(launch, capsys, "--resume", checkpoint, "--total-timesteps", 200)
    assert line.startswith("error: --total-timesteps 200: but ") and "with 100" in line


@each
def test_it_learns_which_action_pays(launch, algorithm):
    flags = ("--env-id", "tests.probes:RightAction-v0", "--total-timesteps", 2000)
    run = launch(off_policy, "--algorithm", algorithm, *flags)
    assert [episode["return"] for episode in run.evaluation] == [1.0] * 10


def q_values(algorithm: str, checkpoint: dict) -> torch.Tensor:
    """What the network says of the probe's only observation, (actions,)."""
    env = gym.make(checkpoint["args"]["env_id"])
    learned = off_policy.make_algorithm(off_policy.Args(algorithm=algorithm), env)
    learned.load_state_dict(checkpoint["agent"])
    obs = torch.zeros(1, 1)
    with torch.no_grad():
        return learned.policy.model(obs)[0][0] if algorithm == "dqn" else learned.critic(obs)[0]


@each
@pytest.mark.parametrize(("probe", "value"), [("Probe", 1.0), ("Truncated", 2.0)])
def test_a_truncated_episode_bootstraps_and_a_terminated_one_does_not(
    launch, monkeypatch, algorithm, probe, value
):
    """Reward 1 for a single step: Q = 1 where the episode ends, 1 + Q / 2 where it is cut off. SAC
    adds there a bonus for entropy, of 0.05 ln 2 for two actions that are alike: 1 + (Q + 0.035) / 2.
    """
    monkeypatch.setattr(Truncated, "length", 1)
    monkeypatch.setitem(off_policy.DQN_FLAGS, "gamma", 0.5)
    monkeypatch.setitem(off_policy.DQN_FLAGS, "target_update_freq", 20)
    monkeypatch.setitem(off_policy.SAC_FLAGS, "gamma", 0.5)
    monkeypatch.setitem(off_policy.SAC_FLAGS, "tau", 0.05)
    flags = ("--env-id", f"tests.probes:{probe}-v0", "--total-timesteps", 3000)
    run = launch(off_policy, "--algorithm", algorithm, *flags)
    if (algorithm, probe) == ("sac", "Truncated"):
        value += 0.035
    assert q_values(algorithm, run.checkpoint).numpy() == pytest.approx(value, abs=0.02)
