"""benchmark/paper/off_policy.py without its library: what it refuses, and its environments."""

import sys

import pytest

from benchmark.paper import off_policy
from benchmark.runner import plan


def refused(launch, capsys, *flags: object) -> str:
    """The line with which flags are refused, before anything is written."""
    with pytest.raises(SystemExit) as stopped:
        launch(off_policy, *flags)
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("error: --") and line.count("\n") == 1
    return line


def test_a_missing_library_is_one_line(launch, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tianshou", None)
    line = refused(launch, capsys, "--algorithm", "sac")
    assert line == "error: --algorithm sac: needs Tianshou: pip install tianshou==2.0.1\n"
    assert not list(tmp_path.iterdir())


def test_benchmark_run_says_so_before_any_run():
    flags = ("--algorithm", "dqn", "--total-timesteps", "0")
    task = {"group": "arms", "arm": "dqn", "env_id": "CartPole-v1", "seed": 1, "flags": flags}
    run = plan.Planned(name="a-run", script=off_policy.__file__, **task)
    with pytest.raises(plan.Refused, match=r"total-timesteps 0: must lie in \[1, "):
        plan.ask_scripts([run])


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--seed -1", "--seed -1: must lie in [0, 4294967295]"),
        ("--total-timesteps 0", "--total-timesteps 0: must lie in [1, 1000000000000]"),
        ("--env-id CartPol-v1", "--env-id CartPol-v1: Environment `CartPol` doesn't exist"),
        ("--env-id Pendulum-v1", "not a Discrete one"),
        ("--env-id tests.toys:Cube-v0", "shows images, and the networks here are for vectors"),
        ("--resume missing.pt", "--resume missing.pt: cannot be read as a checkpoint"),
    ],
)
def test_wrong_flags_are_one_line(launch, capsys, monkeypatch, tmp_path, flags, reason):
    monkeypatch.setattr(off_policy, "find_spec", lambda name: "as if it were there")
    assert reason in refused(launch, capsys, *flags.split())
    assert not list(tmp_path.iterdir())


def test_an_environment_tells_steps_episodes_and_their_ends(tmp_path):
    """Ten steps, cut off, of an environment that would go on at the next one by itself."""
    log = off_policy.Log(off_policy.Args())
    log.begin(tmp_path)
    env = off_policy.Logged("tests.probes:Truncated-v0", log)
    for _ in range(2):
        env.reset()
        ends = [env.step(0)[1:4] for _ in range(10)]
        assert ends == [(1.0, False, False)] * 9 + [(1.0, False, True)]
    _, first, second = (tmp_path / "episodes.csv").read_text().splitlines()
    assert first.startswith("10,10.0,10,") and second.startswith("20,10.0,10,")


def test_actions_begin_where_the_environments_do(tmp_path):
    """At 5; the last of three pays."""
    log = off_policy.Log(off_policy.Args())
    log.begin(tmp_path)
    env = off_policy.Logged("tests.probes:RightAction-v0", log)
    rewards = []
    for action in range(env.action_space.n):
        env.reset()
        _, reward, terminated, truncated, _ = env.step(action)
        assert terminated and not truncated
        rewards.append(reward)
    assert rewards == [0.0, 0.0, 1.0]
