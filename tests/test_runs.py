"""The life of a run: what it leaves behind, reproducibility, kill and resume, evaluation."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from tests.conftest import LOG_ALL, OLD_FORM, SHORT, Run, each_of

script = each_of(OLD_FORM)

CHARTS = {"charts/learning_rate", "charts/SPS", "charts/episodic_return", "charts/episodic_length"}
UPDATES = {
    "a2c_acpg": 1
}  # optimizer steps of an iteration; those of the others depend on the rollout
TWO_ACTIONS = {
    "head_equinorm",
    "head_equiangularity",
    "head_maximal_angle",
    "feature_norm",
    "actions_seen",
}


def deterministic(run: Run) -> tuple:
    """All that a run logs but its speed."""
    scalars = {tag: points for tag, points in run.scalars.items() if tag != "charts/SPS"}
    episodes = [
        {key: value for key, value in episode.items() if key != "seconds"}
        for episode in run.episodes
    ]
    return scalars, episodes, [tensor.tolist() for tensor in run.checkpoint["agent"].values()]


def recorded_steps(path, tag: str) -> list[int]:
    """Steps of a tag as they stand in the event files, whatever a reader would purge."""

    def opened(file) -> list[float]:
        parts = file.name.removesuffix(".acpg").split(".")
        return [float(parts[3]), float(parts[-1])]

    files = sorted(path.glob("events.*"), key=opened)
    events = (event for file in files for event in EventFileLoader(str(file)).Load())
    return [event.step for event in events for value in event.summary.value if value.tag == tag]


def test_a_run_leaves_what_the_benchmark_reads(script, launch):
    run = launch(
        script, "--total-timesteps", 3000, "--etf-head", "--collapse-every", 2, "--seed", 5
    )
    env_id, name, head, seed, _ = run.path.name.split("__")
    assert (env_id, name, head, seed) == ("CartPole-v1", script.__name__, "etf", "5")
    assert run.args["total_timesteps"] == 3000 and run.args["etf_head"] is True
    episodes, steps = run.episodes, [episode["global_step"] for episode in run.episodes]
    assert list(episodes[0]) == ["global_step", "return", "length", "seconds"]
    assert all(episode["return"] == episode["length"] for episode in episodes)
    assert steps == sorted(steps)
    # Each environment's episodes fill its steps without a gap; what is left over are the episodes under way.
    assert (
        0
        <= run.checkpoint["global_step"] - sum(episode["length"] for episode in episodes)
        <= 4 * 500
    )
    scalars = run.scalars
    assert set(scalars) >= CHARTS
    assert {tag.split("/")[1] for tag in scalars if tag.startswith("collapse/")} >= TWO_ACTIONS
    assert not any(tag.startswith("collapse/means") for tag in scalars)
    assert all(math.isfinite(value) for points in scalars.values() for _, value in points)
    assert len(scalars["collapse/head_equinorm"]) == math.ceil(run.checkpoint["iteration"] / 2)
    assert max(value for _, value in scalars["collapse/head_maximal_angle"]) < 1e-5


def test_the_learning_rate_is_annealed_by_valid_steps(script, launch):
    run = launch(script, "--total-timesteps", 3000, *LOG_ALL.get(script.__name__, ()))
    steps = [0, *(step for step, _ in run.scalars["charts/learning_rate"])]
    expected = [run.args["learning_rate"] * (1 - step / 3000) for step in steps[:-1]]
    assert [value for _, value in run.scalars["charts/learning_rate"]] == pytest.approx(
        expected, rel=1e-6
    )
    if "num_steps" in run.args:  # the rows on which environments reset are not counted
        iteration = run.args["num_envs"] * run.args["num_steps"]
        assert any(step < iteration for step in np.diff(steps)) and all(
            step <= iteration for step in np.diff(steps)
        )


def test_same_seed_same_metrics_to_the_last_bit(script, launch):
    first, again, other = (
        launch(script, "--total-timesteps", 4000, "--etf-head", "--seed", seed)
        for seed in (1, 1, 2)
    )
    assert first.path != again.path
    assert deterministic(first) == deterministic(again) != deterministic(other)


@pytest.mark.parametrize("kills", [2])
def test_a_killed_run_resumes_without_a_gap_or_a_double_point(script, tmp_path, kills):
    command = [sys.executable, script.__file__]
    flags = ["--total-timesteps", "60000", "--checkpoint-every", "7", "--collapse-every", "5"]
    flags += [str(flag) for flag in LOG_ALL.get(script.__name__, ())]
    for _ in range(kills):
        process = subprocess.Popen([*command, *flags], cwd=tmp_path, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        before = [path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/checkpoint.pt")]
        while [path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/checkpoint.pt")] == before:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        time.sleep(0.3)  # somewhere between two checkpoints
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        (path,) = tmp_path.glob("runs/*")
        cut = Run(path).checkpoint
        assert 0 < cut["global_step"] < 60000
        flags = ["--resume", str(path / "checkpoint.pt")]
    before = Run(path).episodes
    subprocess.run([*command, *flags], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)

    run = Run(path)
    assert [*tmp_path.glob("runs/*")] == [path]
    assert run.checkpoint["global_step"] >= 60000
    kept = [episode for episode in before if episode["global_step"] <= cut["global_step"]]
    assert run.episodes[: len(kept)] == kept
    steps, seconds = (
        [episode[key] for episode in run.episodes] for key in ("global_step", "seconds")
    )
    assert steps == sorted(steps) and seconds == sorted(seconds)
    assert sum(episode["length"] for episode in run.episodes) <= run.checkpoint["global_step"]
    logged = recorded_steps(path, "charts/learning_rate")
    assert logged == [step for step, _ in run.scalars["charts/learning_rate"]]
    assert len(logged) == len(set(logged)) == run.checkpoint["iteration"]
    assert max(np.diff([0, *logged])) <= run.args["num_envs"] * run.args.get("num_steps", 2 * 500)
    assert run.final_return() > np.mean([episode["return"] for episode in kept[:100]])


def test_resuming_restores_optimizer_schedule_and_random_numbers(script, launch, tmp_path):
    run = launch(
        script,
        "--total-timesteps",
        3000,
        "--checkpoint-every",
        1,
        *LOG_ALL.get(script.__name__, ()),
    )
    resumed = []
    for copy in ("runs/a", "runs/b"):
        shutil.copytree(run.path, tmp_path / copy)
        launch(script, "--resume", tmp_path / copy / "checkpoint.pt", "--total-timesteps", 6000)
        resumed.append(Run(tmp_path / copy))
    assert deterministic(resumed[0]) == deterministic(resumed[1])
    end, resumed_end = run.checkpoint, resumed[0].checkpoint
    updates = [
        checkpoint["optimizer"]["state"][0]["step"].item() for checkpoint in (end, resumed_end)
    ]
    assert updates[1] > updates[0] > 0
    if script.__name__ in UPDATES:
        assert updates == [
            UPDATES[script.__name__] * checkpoint["iteration"] for checkpoint in (end, resumed_end)
        ]
    rate = dict(resumed[0].scalars["charts/learning_rate"])
    assert [*rate] == recorded_steps(tmp_path / "runs/a", "charts/learning_rate")
    assert rate[min(step for step in rate if step > end["global_step"])] == pytest.approx(
        run.args["learning_rate"] * (1 - end["global_step"] / 6000), rel=1e-6
    )
    assert not torch.equal(end["rng"], resumed_end["rng"])


def test_flags_given_on_resume_override(script, launch):
    run = launch(script, "--total-timesteps", 3000)
    launch(
        script,
        "--resume",
        run.path / "checkpoint.pt",
        "--total-timesteps",
        4000,
        "--learning-rate",
        0.01,
        "--no-anneal-lr",
    )
    assert run.scalars["charts/learning_rate"][-1][1] == pytest.approx(0.01)
    assert run.args["learning_rate"] == 0.01 and run.args["resume"] is None


def test_a_checkpoint_without_its_logs_resumes(script, launch, tmp_path):
    run = launch(script, "--total-timesteps", 1500)
    (tmp_path / "runs" / "copy").mkdir()
    shutil.copy(run.path / "checkpoint.pt", tmp_path / "runs" / "copy")
    copy = launch(
        script, "--resume", tmp_path / "runs/copy/checkpoint.pt", "--total-timesteps", 3000
    )
    assert copy.episodes[0]["global_step"] > run.checkpoint["global_step"]


def test_resuming_a_finished_run_changes_nothing(script, launch):
    run = launch(script, "--total-timesteps", 1000, "--save-model")
    before = deterministic(run)
    launch(script, "--resume", run.path / "checkpoint.pt")
    assert deterministic(run) == before


def test_the_checkpoint_holds_the_measures_of_collapse(script, launch):
    run = launch(
        script,
        "--total-timesteps",
        1500,
        *SHORT[script.__name__],
        *LOG_ALL.get(script.__name__, ()),
    )
    rows = run.checkpoint["collapse"]
    assert rows[-1]["global_step"] == run.checkpoint["global_step"]
    logged = {
        tag.removeprefix("collapse/"): points
        for tag, points in run.scalars.items()
        if tag.startswith("collapse/")
    }
    for name, points in logged.items():
        assert points == [
            (row["global_step"], pytest.approx(row[name])) for row in rows if name in row
        ]
    assert {name for row in rows for name in row} == {"global_step", *logged}


def test_a_full_disk_while_saving_leaves_the_old_checkpoint(script, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    script.save(path, {"step": 1})

    def full(state, file):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        script.save(path, {"step": 2})
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_evaluate_plays_the_saved_agent(script, launch, tmp_path, capsys):
    run = launch(script, "--total-timesteps", 20000, "--etf-head", "--save-model")
    capsys.readouterr()
    for name in ("agent.pt", "checkpoint.pt"):
        launch(script, "--evaluate", run.path / name, "--eval-episodes", 7)
        assert capsys.readouterr().out.startswith("7 greedy episodes of CartPole-v1: return ")
    assert [*(tmp_path / "runs").iterdir()] == [run.path]


def test_evaluation_counts_the_first_episode_of_each_environment(script):
    envs = script.make_envs("tests.probes:Truncated-v0", 3)
    agent = script.Agent((1,), 2, script.Args())
    policy = script.make_policy(agent, envs.single_observation_space, script.Args())
    assert script.evaluate(envs, policy, episodes=5, seed=1) == [10] * 6


def test_evaluation_ends_where_episodes_do_not(script):
    envs = script.make_envs(
        "CliffWalking-v1", 1
    )  # without a time limit; the greedy agent below walks against a wall
    agent = script.Agent((48,), 4, script.Args())
    torch.nn.init.zeros_(agent.head.weight)
    policy = script.make_policy(agent, envs.single_observation_space, script.Args())
    assert script.evaluate(envs, policy, episodes=1, seed=1) == [-27000]


@pytest.mark.parametrize("script", ["trpo_acpg"], indirect=True)
def test_the_device_moves_with_the_agent(script, monkeypatch):
    """The nearest thing to CUDA on a machine without it: a forgotten transfer fails on the meta device too."""
    monkeypatch.setattr(
        "torch.fx.experimental._config.meta_nonzero_assume_all_nonzero", True, raising=False
    )
    envs = script.make_envs("CartPole-v1", 4)
    args = script.Args(num_steps=4)
    policy = script.make_policy(script.Agent((4,), 2, args), envs.single_observation_space, args)
    rollout, _ = script.collect(envs, policy, envs.reset(seed=1)[0], np.zeros(4, bool), args)
    columns, features, _ = script.make_batch(script.Agent((4,), 2, args).to("meta"), rollout, args)
    assert {tensor.device.type for tensor in (*columns, features)} == {"meta"}


def test_tracking_goes_through_wandb(script, launch, monkeypatch):
    calls = []
    fake = SimpleNamespace(
        init=lambda **kwargs: calls.append(kwargs), __spec__=SimpleNamespace(origin="wandb.py")
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    run = launch(script, "--total-timesteps", 600, "--track")
    assert (
        calls[0]["name"] == run.path.name
        and calls[0]["config"] == run.args
        and calls[0]["sync_tensorboard"]
    )


KINDS = [
    *(
        "FrozenLake-v1",
        "Blackjack-v1",
        "tests.probes:TupleObservation-v0",
        "benchmark.envs:MinAtar/Seaquest-v1",
    ),
    *(
        "benchmark.envs:envpool/FrozenLake-v1",
        "benchmark.envs:Atari/Pong-v5",
        "benchmark.envs:DiscreteCarRacing-v0",
    ),
]
LONG = KINDS[-2:]  # REINFORCE would have to play whole games


@pytest.mark.parametrize(
    ("script", "env_id"),
    [
        (script, env_id)
        for script in OLD_FORM
        for env_id in KINDS
        if script != "reinforce_acpg" or env_id not in LONG
    ],
    indirect=["script"],
)
def test_observations_of_every_kind(script, launch, env_id):
    steps = 300 if script.__name__ == "reinforce_acpg" else 100
    run = launch(
        script,
        "--env-id",
        env_id,
        "--etf-head",
        *SHORT[script.__name__],
        "--total-timesteps",
        steps,
    )
    assert run.checkpoint["global_step"] >= steps
