"""The life of a run: what it leaves behind, the same again, resume, signals, errors, disks."""

import io
import json
import math
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from tests.conftest import LOG_ALL, ONE, SHORT, Run

ROOT = Path(__file__).parent.parent
LONG = {"reinforce_acpg": ("--episodes-per-update", 5000)}  # flags for an endless iteration
CHARTS = {"charts/learning_rate", "charts/SPS", "charts/episodic_return", "charts/episodic_length"}
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


def start(script, cwd: Path, *flags: object, **options) -> subprocess.Popen:
    """The script in a process of its own, with its output piped."""
    words = [sys.executable, script.__file__, *map(str, flags)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), **options}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, cwd=cwd, env=environment, **pipes)


def finished(script, cwd: Path, *flags: object, **options) -> tuple[int, list[str], list[str]]:
    """Exit code and the lines of stdout and stderr."""
    process = start(script, cwd, *flags, **options)
    out, err = process.communicate(timeout=300)
    return process.returncode, out.splitlines(), err.splitlines()


def content(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)


# What it leaves behind
def test_a_run_leaves_what_the_benchmark_reads(script, launch):
    flags = ("--total-timesteps", 3000, "--etf-head", "--collapse-every", 2, "--seed", 5)
    run = launch(script, *flags)
    env_id, name, head, seed, _ = run.path.name.split("__")
    assert (env_id, name, head, seed) == ("CartPole-v1", script.__name__, "etf", "5")
    assert run.args["total_timesteps"] == 3000 and run.args["etf_head"] is True
    files = {path.name.split(".")[0] for path in run.path.iterdir()}
    assert files == {"args", "checkpoint", "episodes", "evaluation", "events"}
    steps = [episode["global_step"] for episode in run.episodes]
    assert list(run.episodes[0]) == ["global_step", "return", "length", "seconds"]
    assert all(episode["return"] == episode["length"] for episode in run.episodes)
    assert steps == sorted(steps)
    # Each environment's episodes fill its steps without a gap; left over are those under way.
    total = run.checkpoint["global_step"]
    assert 0 <= total - sum(episode["length"] for episode in run.episodes) <= 4 * 500
    scalars = run.scalars
    assert CHARTS | {"eval/episodic_return", "eval/episodic_length"} <= scalars.keys()
    collapse = {tag.split("/")[1] for tag in scalars if tag.startswith("collapse/")}
    assert collapse >= TWO_ACTIONS and not any(name.startswith("means") for name in collapse)
    assert all(math.isfinite(value) for points in scalars.values() for _, value in points)
    assert len(scalars["collapse/head_equinorm"]) == math.ceil(run.checkpoint["iteration"] / 2)
    assert max(value for _, value in scalars["collapse/head_maximal_angle"]) < 1e-5


LOSSES = {  # names of CleanRL, Stable-Baselines3 and Spinning Up
    "ppo_acpg": "policy_loss value_loss entropy old_approx_kl approx_kl clipfrac",
    "a2c_acpg": "policy_loss value_loss entropy",
    "trpo_acpg": "value_loss kl improvement damping_share line_search_failures",
    "reinforce_acpg": "policy_loss value_loss entropy",
}


def test_what_others_log_is_logged(script, launch):
    baseline = ("--baseline", "value") if script.__name__ == "reinforce_acpg" else ()
    run = launch(script, "--total-timesteps", 1500, *baseline)
    own = LOSSES.get(script.__name__, "")  # a copy may log others
    names = [*own.split(), "gradient_norm", "explained_variance"]
    assert {f"losses/{name}" for name in names} <= run.scalars.keys()
    assert max(value for _, value in run.scalars["losses/explained_variance"]) <= 1
    events = b"".join(path.read_bytes() for path in run.path.glob("events*"))
    assert b"hyperparameters" in events and b"|learning_rate|" in events


def test_the_learning_rate_is_annealed_by_valid_steps(script, launch):
    run = launch(script, "--total-timesteps", 3000, *LOG_ALL[script.__name__])
    rates = run.scalars["charts/learning_rate"]
    steps = [0, *(step for step, _ in rates)]
    expected = [run.args["learning_rate"] * (1 - step / 3000) for step in steps[:-1]]
    assert [value for _, value in rates] == pytest.approx(expected, rel=1e-6)
    if script.__name__ == "reinforce_acpg":
        return
    iteration = run.args["num_envs"] * run.args["num_steps"]
    assert all(step <= iteration for step in np.diff(steps))
    assert any(step < iteration for step in np.diff(steps))  # rows that only reset do not count


def test_the_checkpoint_holds_the_measures_of_collapse(script, launch):
    run = launch(script, "--total-timesteps", 1500, *SHORT[script.__name__])
    rows = run.checkpoint["collapse"]
    assert rows[-1]["global_step"] == run.checkpoint["global_step"]
    for tag, points in run.scalars.items():
        if tag.startswith("collapse/"):
            name = tag.removeprefix("collapse/")
            expected = [(r["global_step"], pytest.approx(r[name])) for r in rows if name in r]
            assert points == expected


def test_a_run_ends_with_greedy_episodes_of_the_agent_that_was_saved(script, launch):
    run = launch(script, "--total-timesteps", 20_000, "--eval-episodes", 12, "--seed", 4)
    assert [row["global_step"] for row in run.evaluation] == [run.checkpoint["global_step"]] * 12
    args = script.Args(**run.args)
    agent = script.Agent((4,), 2, args)
    agent.load_state_dict(run.checkpoint["agent"])
    envs = script.make_envs("CartPole-v1", 10)
    again = script.evaluate(envs, agent, 12, seed=4)
    assert again == [(row["return"], row["length"]) for row in run.evaluation]
    mean = np.mean([value for value, _ in again])
    assert run.scalars["eval/episodic_return"][0][1] == pytest.approx(mean)
    assert not (
        launch(script, "--total-timesteps", 512, "--eval-episodes", 0).path / "evaluation.csv"
    ).exists()


def test_evaluation_counts_the_first_episode_of_each_environment(script):
    envs = script.make_envs("tests.probes:Truncated-v0", 3)
    agent = script.Agent((1,), 2, script.Args())
    assert script.evaluate(envs, agent, episodes=5, seed=1) == [(10.0, 10)] * 5


def test_evaluation_ends_where_episodes_do_not(script):
    envs = script.make_envs("CliffWalking-v1", 1)  # no time limit; the agent walks against a wall
    agent = script.Agent((48,), 4, script.Args())
    torch.nn.init.zeros_(agent.head.weight)
    assert script.evaluate(envs, agent, episodes=1, seed=1) == [(-27000.0, 27000)]


@ONE
def test_tracking_goes_through_wandb(script, launch, monkeypatch):
    calls = []
    spec = SimpleNamespace(origin="wandb.py")
    fake = SimpleNamespace(init=lambda **kwargs: calls.append(kwargs), __spec__=spec)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    flags = ("--track", "--wandb-project-name", "mine", "--wandb-entity", "us")
    run = launch(script, "--total-timesteps", 600, *flags)
    (call,) = calls
    assert (call["name"], call["project"], call["entity"]) == (run.path.name, "mine", "us")
    assert call["config"] == run.args and call["sync_tensorboard"]


@ONE
def test_exp_name_stands_in_the_name_of_the_run(script, launch):
    run = launch(script, "--total-timesteps", 512, "--exp-name", "a/b: c", "--eval-episodes", 0)
    assert run.path.name.startswith("CartPole-v1__a-b- c__linear__1__")


@ONE
def test_runs_of_the_same_moment_get_directories_of_their_own(script, launch, monkeypatch):
    monkeypatch.setattr(time, "time", iter([1.0, 1.0, 2.0, *range(3, 9999)]).__next__)
    paths = [launch(script, "--total-timesteps", 512, "--eval-episodes", 0).path for _ in range(2)]
    assert len({*paths, *paths[0].parent.iterdir()}) == 2


# The same again
def test_same_seed_same_run_to_the_last_bit(script, launch):
    runs = [launch(script, "--total-timesteps", 4000, "--etf-head", "--seed", s) for s in (1, 1, 2)]
    first, again, other = map(deterministic, runs)
    assert runs[0].path != runs[1].path
    assert first == again != other
    assert runs[0].evaluation == runs[1].evaluation


def test_every_generator_is_seeded_saved_and_restored(script, launch, tmp_path):
    flags = ("--env-id", "tests.toys:GlobalRandom-v0", "--total-timesteps")
    runs = [launch(script, *flags, 1000, "--seed", 3) for _ in range(2)]
    assert deterministic(runs[0]) == deterministic(runs[1])
    resumed = []
    for name in "ab":
        random.seed(name)
        np.random.seed(ord(name))
        torch.manual_seed(ord(name))
        shutil.copytree(runs[0].path, tmp_path / "runs" / name)
        launch(script, "--resume", tmp_path / "runs" / name / "checkpoint.pt", *flags, 2000)
        resumed.append(deterministic(Run(tmp_path / "runs" / name)))
    assert resumed[0] == resumed[1]


@ONE
def test_random_states_survive_a_checkpoint(script, tmp_path):
    script.save(tmp_path / "state.pt", script.random_state())
    expected = random.random(), np.random.rand(), np.random.randn(), torch.rand(2).tolist()
    script.set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    again = random.random(), np.random.rand(), np.random.randn(), torch.rand(2).tolist()
    assert again == expected


@pytest.mark.parametrize("seed", [0, 1, 2147, 2148, 2**31, 2**32 - 1, -1, -(2**32)])
def test_seeds_lie_in_every_back_end_s_range(script, seed):
    for step in (0, 10**12):
        assert 0 <= script.environment_seed(seed, step) < 2**31


def test_a_large_seed_trains_and_is_evaluated_in_envpool(script, launch):
    flags = ("--env-id", "benchmark.envs:envpool/CartPole-v1", "--seed", 3_000_000_000)
    assert len(launch(script, *flags, "--total-timesteps", 512).evaluation) == 10


# Kill and resume
def test_a_killed_run_resumes_without_a_gap_or_a_double_point(script, tmp_path):
    flags = ["--total-timesteps", 60_000, "--checkpoint-every", 7, "--collapse-every", 5]
    flags += LOG_ALL[script.__name__]
    for _ in range(2):
        process = start(script, tmp_path, *flags)

        def times() -> list[int]:
            return [p.stat().st_mtime_ns for p in tmp_path.glob("runs/*/checkpoint.pt")]

        before = times()
        wait_for(lambda: times() != before, process)  # noqa: B023
        time.sleep(0.3)  # somewhere between two checkpoints
        process.kill()
        process.wait()
        (path,) = tmp_path.glob("runs/*")
        cut = Run(path).checkpoint
        assert 0 < cut["global_step"] < 60_000
        flags = ["--resume", path / "checkpoint.pt"]
    before = Run(path).episodes
    code, _, _ = finished(script, tmp_path, *flags)
    assert code == 0

    run = Run(path)
    assert [*tmp_path.glob("runs/*")] == [path]
    assert run.checkpoint["global_step"] >= 60_000
    kept = [episode for episode in before if episode["global_step"] <= cut["global_step"]]
    assert run.episodes[: len(kept)] == kept
    for column in ("global_step", "seconds"):
        values = [episode[column] for episode in run.episodes]
        assert values == sorted(values)
    assert sum(e["length"] for e in run.episodes) <= run.checkpoint["global_step"]
    logged = recorded_steps(path, "charts/learning_rate")
    assert logged == [step for step, _ in run.scalars["charts/learning_rate"]]
    assert len(logged) == len(set(logged)) == run.checkpoint["iteration"]


def test_resuming_restores_the_optimizer_and_the_schedule(script, launch):
    run = launch(script, "--total-timesteps", 3000, *LOG_ALL[script.__name__])
    end = run.checkpoint
    launch(script, "--resume", run.path / "checkpoint.pt", "--total-timesteps", 6000)
    after = run.checkpoint
    if script.__name__ == "ppo_acpg":
        assert after["optimizer"]["steps"] == 16 * after["iteration"]
    if script.__name__ != "a2c_acpg":
        assert after["optimizer"]["steps"] > end["optimizer"]["steps"] > 0
    rates = dict(run.scalars["charts/learning_rate"])
    next_step = min(step for step in rates if step > end["global_step"])
    expected = run.args["learning_rate"] * (1 - end["global_step"] / 6000)
    assert rates[next_step] == pytest.approx(expected, rel=1e-6)
    assert {row["global_step"] for row in run.evaluation} == {after["global_step"]}


def test_flags_given_on_resume_override(script, launch):
    run = launch(script, "--total-timesteps", 3000)
    flags = ("--total-timesteps", 4000, "--learning-rate", 0.01, "--no-anneal-lr")
    launch(script, "--resume", run.path / "checkpoint.pt", *flags)
    assert run.scalars["charts/learning_rate"][-1][1] == pytest.approx(0.01)
    assert run.args["learning_rate"] == 0.01 and run.args["resume"] is None


def test_resuming_a_finished_run_changes_nothing(script, launch):
    run = launch(script, "--total-timesteps", 1000)
    before = deterministic(run), run.evaluation
    launch(script, "--resume", run.path / "checkpoint.pt")
    assert (deterministic(run), run.evaluation) == before


@ONE
def test_a_checkpoint_without_its_logs_goes_on_with_new_ones(script, launch, tmp_path):
    run = launch(script, "--total-timesteps", 1500)
    (tmp_path / "runs" / "copy").mkdir()
    shutil.copy(run.path / "checkpoint.pt", tmp_path / "runs" / "copy")
    checkpoint = tmp_path / "runs" / "copy" / "checkpoint.pt"
    copy = launch(script, "--resume", checkpoint, "--total-timesteps", 3000)
    assert copy.episodes[0]["global_step"] > run.checkpoint["global_step"]


def refuses(script, capsys, launch, folder: Path, *flags: object) -> str:
    """The one line of a refusal with exit code 2 that leaves `folder` as it is."""
    before = content(folder)
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        launch(script, *flags)
    assert exit.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert content(folder) == before
    return line


@ONE
def test_resume_touches_its_own_files_only(script, launch, capsys):
    run = launch(script, "--total-timesteps", 1024)
    for name in ("evaluation.txt", "eval.csv", "e", "events.txt"):
        (run.path / name).write_text("mine")
    (run.path / "eval_videos").mkdir()
    (run.path / "events.out.tfevents.folder").mkdir()
    (run.path / "events.out.tfevents.1.host.2.3").write_text("another writer's")
    launch(script, "--resume", run.path / "checkpoint.pt", "--total-timesteps", 2048)
    for name in ("evaluation.txt", "eval.csv", "e", "events.txt"):
        assert (run.path / name).read_text() == "mine"
    assert (run.path / "events.out.tfevents.1.host.2.3").read_text() == "another writer's"


@ONE
def test_a_link_in_the_directory_is_refused_and_what_it_leads_to_kept(
    script, launch, capsys, tmp_path
):
    run = launch(script, "--total-timesteps", 1024)
    precious = tmp_path / "precious.csv"
    precious.write_text("mine\n" * 1000)
    (run.path / "episodes.csv").unlink()
    (run.path / "episodes.csv").symlink_to(precious)
    flags = ("--resume", run.path / "checkpoint.pt", "--total-timesteps", 2048)
    line = refuses(script, capsys, launch, run.path, *flags)
    assert line.endswith("episodes.csv is a symbolic link")
    assert precious.read_text() == "mine\n" * 1000


@ONE
def test_a_link_to_a_checkpoint_goes_on_where_the_run_is(script, launch, tmp_path):
    run = launch(script, "--total-timesteps", 1024)
    (tmp_path / "best.pt").symlink_to(run.path / "checkpoint.pt")
    launch(script, "--resume", tmp_path / "best.pt", "--total-timesteps", 2048)
    assert run.checkpoint["global_step"] >= 2048
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "best.pt"}


@ONE
@pytest.mark.parametrize("log", ["episodes.csv", "events"])
@pytest.mark.parametrize("loss", ["cut", "removed"])
def test_logs_that_lack_what_the_checkpoint_counts_are_refused(script, launch, capsys, log, loss):
    run = launch(script, "--total-timesteps", 1024)
    (path,) = run.path.glob(f"{log}*")
    if loss == "cut":
        path.write_bytes(path.read_bytes()[:80])
    else:
        path.unlink()
    flags = ("--resume", run.path / "checkpoint.pt", "--total-timesteps", 2048)
    line = refuses(script, capsys, launch, run.path, *flags)
    assert line.startswith(f"error: --resume {run.path / 'checkpoint.pt'}: {path.name} has ")


@ONE
def test_fewer_steps_than_were_taken_are_refused(script, launch, capsys):
    run = launch(script, "--total-timesteps", 3000)
    flags = ("--resume", run.path / "checkpoint.pt", "--total-timesteps", 1000)
    line = refuses(script, capsys, launch, run.path, *flags)
    step = run.checkpoint["global_step"]
    assert line == f"error: --total-timesteps 1000: but the checkpoint is at step {step}"


@ONE
def test_another_head_or_environment_is_refused(script, launch, capsys):
    run = launch(script, "--total-timesteps", 600, "--etf-head")
    checkpoint = run.path / "checkpoint.pt"
    for flags in ("--env-id Acrobot-v1", "--no-etf-head", "--etf-scale 7.0", "--head-trainable"):
        line = refuses(script, capsys, launch, run.path, "--resume", checkpoint, *flags.split())
        assert line.startswith("error: --") and f"but {checkpoint} was trained with" in line


@ONE
def test_damaged_and_foreign_checkpoints_are_refused(script, launch, capsys, tmp_path):
    run = launch(script, "--total-timesteps", 600)
    checkpoint = run.path / "checkpoint.pt"
    state = run.checkpoint
    (tmp_path / "cut.pt").write_bytes(checkpoint.read_bytes()[:-5000])
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"args": {"seed": 1}}, tmp_path / "other.pt")
    torch.save(SimpleNamespace, tmp_path / "pickle.pt")
    torch.save(state | {"agent": {"x": torch.zeros(1)}}, tmp_path / "weights.pt")
    torch.save(state | {"optimizer": {"x": 1}}, tmp_path / "optimizer.pt")
    reasons = dict.fromkeys(("cut", "list", "other", "pickle", "missing"), "cannot be read")
    reasons |= {"weights": "does not fit this script", "optimizer": "does not fit this script"}
    for name, reason in reasons.items():
        path = tmp_path / f"{name}.pt"
        line = refuses(script, capsys, launch, run.path, "--resume", path, "--total-timesteps", 900)
        assert line.startswith(f"error: --resume {path}: {reason}")


STRANGER = """
print("THEIR CODE RAN")
import gymnasium
gymnasium.register("X-v0", "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=500)
"""


@ONE
def test_a_checkpoint_from_elsewhere_runs_no_code_and_tracks_nothing(script, launch, tmp_path):
    run = launch(script, "--total-timesteps", 600)
    (tmp_path / "theirs.py").write_text(STRANGER)
    state = run.checkpoint
    state["args"] |= {"env_id": "theirs:X-v0", "track": True, "wandb_entity": "them"}
    torch.save(state, run.path / "checkpoint.pt")
    flags = ("--resume", run.path / "checkpoint.pt", "--total-timesteps", 700)
    paths = {"PYTHONPATH": str(tmp_path)}
    before = content(run.path)
    code, out, err = finished(script, tmp_path, *flags, **paths)
    assert code == 2 and len(err) == 1 and "THEIR CODE RAN" not in out
    assert "repeat that --env-id" in err[0] and content(run.path) == before
    code, out, err = finished(script, tmp_path, *flags, "--env-id", "theirs:X-v0", **paths)
    assert code == 0 and "THEIR CODE RAN" in out  # as it was asked for
    assert run.args["track"] is False and run.args["wandb_entity"] is None


@ONE
def test_two_processes_on_one_run(script, launch, tmp_path):
    run = launch(script, "--total-timesteps", 1024)
    flags = ("--resume", run.path / "checkpoint.pt", "--total-timesteps", 400_000)
    first = start(script, tmp_path, *flags, "--checkpoint-every", 1)
    assert "training on" in first.stdout.readline()
    code, _, err = finished(script, tmp_path, *flags)
    reason = "this run is being trained by another process"
    assert (code, err) == (2, [f"error: --resume {run.path / 'checkpoint.pt'}: {reason}"])
    first.communicate(timeout=300)
    assert first.returncode == 0
    steps = [episode["global_step"] for episode in run.episodes]
    assert steps == sorted(steps) and run.checkpoint["global_step"] >= 40_000


# Signals
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(script, tmp_path, number, code):
    process = start(script, tmp_path, "--total-timesteps", 1_000_000)
    wait_for(
        lambda: any(p.stat().st_size > 2000 for p in tmp_path.glob("runs/*/episodes.csv")), process
    )
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    (path,) = tmp_path.glob("runs/*")
    step = Run(path).checkpoint["global_step"]
    how = (
        f"go on with: python {script.__file__} --resume {path.relative_to(tmp_path)}/checkpoint.pt"
    )
    assert (process.returncode, err) == (code, f"stopped at step {step}; {how}\n")
    last = Run(path).episodes[-1]["global_step"]
    assert step - 2000 < last <= step
    flags = ("--resume", path / "checkpoint.pt", "--total-timesteps", step + 1000)
    assert finished(script, tmp_path, *flags)[0] == 0


def test_a_second_signal_does_not_wait_for_the_iteration(script, tmp_path):
    endless = LONG.get(script.__name__, ("--num-steps", 5000))
    process = start(script, tmp_path, "--env-id", "tests.toys:Slow-v0", *endless)
    assert "training on" in process.stdout.readline()
    time.sleep(0.5)  # the iteration has begun
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "stopped at step 0; no checkpoint to go on from\n"


@ONE
def test_a_signal_before_training_leaves_nothing(script, tmp_path):
    (tmp_path / "slow.py").write_text("import time; print('importing', flush=True); time.sleep(30)")
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = start(script, tmp_path, "--env-id", "slow:X-v0", PYTHONPATH=str(tmp_path))
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
        assert process.returncode == code
        assert err == "stopped at step 0; no checkpoint to go on from\n"
        assert not (tmp_path / "runs").exists()


@ONE
def test_paths_with_spaces_are_quoted_where_they_are_to_be_typed(script, tmp_path):
    flags = ("--env-id", "tests.toys:Slow-v0", "--runs-dir", "my runs")
    process = start(script, tmp_path, *flags, *SHORT[script.__name__])
    assert "training on" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    (path,) = tmp_path.glob("my runs/*")
    typed = shlex.split(err.split("go on with: ")[1])
    resume = ["--resume", str(path.relative_to(tmp_path) / "checkpoint.pt")]
    assert typed == ["python", script.__file__, *resume, "--env-id", "tests.toys:Slow-v0"]


@ONE
def test_a_reader_that_goes_away_does_not_end_a_run(script, tmp_path):
    process = start(script, tmp_path, "--total-timesteps", 20_000)
    assert "training on" in process.stdout.readline()
    process.stdout.close()
    process.stderr.read()
    process.wait(timeout=60)
    (path,) = tmp_path.glob("runs/*")
    assert Run(path).checkpoint["global_step"] >= 20_000 and len(Run(path).evaluation) == 10


# Errors of others
@pytest.mark.parametrize(
    ("toy", "where", "error"),
    [
        ("Raises", "step", "ZeroDivisionError('my own mistake')"),
        ("RaisesInReset", "reset", "KeyError('my own mistake')"),
        ("Exits", "step", "SystemExit('bye')"),
        ("Rubbish", "step", "ValueError("),
        ("WrongShape", "step", "ValueError("),
        ("RaisesInClose", "close", "ZeroDivisionError('my own mistake')"),
    ],
)
def test_an_environment_s_error_keeps_its_traceback_and_says_whose_it_is(
    script, tmp_path, toy, where, error
):
    flags = ("--env-id", f"tests.toys:{toy}-v0", "--total-timesteps", 512)
    code, _, err = finished(script, tmp_path, *flags)
    assert code == 1 and any(line.startswith("Traceback") for line in err)
    assert (
        f"EnvironmentFailed: --env-id tests.toys:{toy}-v0: its {where}() ended with {error}"
        in err[-1]
    )
    if toy == "Raises":
        assert any("raise ZeroDivisionError" in line for line in err)
    if where == "reset":
        assert not any(tmp_path.iterdir())
    if where == "close":
        (path,) = tmp_path.glob("runs/*")
        assert Run(path).checkpoint["global_step"] >= 512 and len(Run(path).evaluation) == 10


@ONE
@pytest.mark.parametrize("returned", [(0, 2), (1, 3), (2, 1), (3, 5)])
def test_arrays_of_another_length_are_the_environment_s_mistake(script, monkeypatch, returned):
    """(which, how long) of observations, rewards, terminated, truncated."""
    which, length = returned
    envs = script.make_envs("CartPole-v1", 4)
    envs.reset(seed=1)
    arrays = [np.zeros((4, 4), np.float32), np.zeros(4), np.zeros(4, bool), np.zeros(4, bool)]
    arrays[which] = arrays[which][:1].repeat(length, axis=0)
    monkeypatch.setattr(type(envs.env), "step", lambda *_: (*arrays, {}), raising=False)
    with pytest.raises(script.EnvironmentFailed, match="CartPole-v1: its "):
        envs.step(np.zeros(4, int))


def test_an_environment_that_fails_late_costs_no_more_than_its_rollout(script, tmp_path):
    flags = ("--env-id", "tests.toys:Raises-v0", "--checkpoint-every", 1000)
    code, _, _ = finished(script, tmp_path, *flags, RAISE_AT="700")
    (path,) = tmp_path.glob("runs/*")
    run = Run(path)
    rollout = run.args.get("num_steps", 10)  # REINFORCE's: one episode of each environment
    assert code == 1 and run.checkpoint["global_step"] >= run.args["num_envs"] * (700 - rollout)
    more = ("--total-timesteps", 9000, "--env-id", "tests.toys:Raises-v0")
    code, _, _ = finished(
        script, tmp_path, "--resume", path / "checkpoint.pt", *more, RAISE_AT="99999"
    )
    assert code == 0


@ONE
def test_what_cannot_be_made_keeps_its_traceback(script, tmp_path):
    (tmp_path / "exits.py").write_text("raise SystemExit(3)")
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "needs.py").write_text("import nothing_of_that_name")
    for env_id, error in {
        "tests.toys:RaisesInInit-v0": "LookupError('my own mistake')",
        "exits:X-v0": "SystemExit(3)",
        "broken:X-v0": "ZeroDivisionError('division by zero')",
        "needs:X-v0": "ModuleNotFoundError(\"No module named 'nothing_of_that_name'. ",
    }.items():
        paths = {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
        code, _, err = finished(script, tmp_path, "--env-id", env_id, **paths)
        assert code == 2 and err[0].startswith("Traceback")
        assert err[-1].startswith(f"error: --env-id {env_id}: cannot be made: {error}")
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("first_nan", [300, 1170, 2400])
def test_nan_ends_a_run_before_any_diagnostic(script, tmp_path, first_nan):
    flags = ("--env-id", "tests.toys:NanFrom-v0", "--collapse-every", 1, "--checkpoint-every", 2)
    code, _, err = finished(script, tmp_path, *flags, NAN_FROM=str(first_nan))
    (path,) = tmp_path.glob("runs/*")
    checkpoint = f"{path.relative_to(tmp_path)}/checkpoint.pt"
    run = Run(path)
    rollout = run.args.get("num_steps", 10)  # REINFORCE's: one episode of each environment
    assert run.checkpoint["global_step"] >= run.args["num_envs"] * (first_nan - rollout)
    iteration = run.checkpoint["iteration"]
    assert (run.checkpoint["global_step"] > 0) == (iteration > 1)
    assert code == 1 and len(err) == 1
    assert err[0].startswith("iteration ") and "the observation of environment 0 at step " in err[0]
    assert err[0].endswith(f" is nan; last good checkpoint: {checkpoint}")
    assert err[0].startswith(f"iteration {iteration}: ")


def test_nan_that_nothing_is_learned_from_does_no_harm(script, launch):
    run = launch(script, "--env-id", "tests.toys:NanAtTheEnd-v0", "--total-timesteps", 2000)
    assert run.checkpoint["global_step"] >= 2000


def test_an_infinite_reward_ends_a_run(script, tmp_path):
    code, _, err = finished(
        script, tmp_path, "--env-id", "tests.probes:Diverging-v0", *SHORT[script.__name__]
    )
    assert code == 1 and "the reward of environment " in err[0] and " is inf; last" in err[0]


def test_a_loss_that_is_not_finite_ends_a_run(script, launch, monkeypatch):
    name = "update" if hasattr(script, "update") else "policy_step"
    losses = {"policy_loss": math.nan, "gradient_norm": 1.0}
    monkeypatch.setattr(script, name, lambda *_: dict(losses))
    with pytest.raises(SystemExit) as exit:
        launch(script, "--total-timesteps", 600)
    assert exit.value.code == "iteration 1: policy_loss is nan; last good checkpoint: None"


@pytest.mark.parametrize("script", ["ppo_acpg", "trpo_acpg", "reinforce_acpg"], indirect=True)
def test_equal_advantages_teach_nothing(script, launch):
    """Where advantages are normalized."""
    bonus = () if script.__name__ == "trpo_acpg" else ("--ent-coef", 0)
    flags = ("--env-id", "tests.toys:Constant-v0", "--total-timesteps", 20_000)
    run = launch(script, *flags, *bonus)
    agent = script.Agent((3,), 2, script.Args(**run.args))
    before = script.Agent((3,), 2, script.Args(**run.args))
    script.seed_everything(script.Args(**run.args))
    before = script.Agent((3,), 2, script.Args(**run.args))
    agent.load_state_dict(run.checkpoint["agent"])
    obs = torch.full((1, 3), 0.1)
    torch.testing.assert_close(agent(obs)[1], before(obs)[1])
    moves = run.scalars.get("losses/policy_loss", run.scalars.get("losses/kl"))
    assert moves and all(value == 0 for _, value in moves)


@pytest.mark.parametrize("script", ["ppo_acpg"], indirect=True)
def test_minibatches_without_enough_rows_are_named_once(script, launch, capsys):
    flags = ("--env-id", "tests.toys:Constant-v0", "--num-envs", 1, "--num-steps", 4)
    run = launch(script, *flags, "--num-minibatches", 2, "--total-timesteps", 100)
    assert capsys.readouterr().out.count("steps skipped that teach nothing") == 1
    assert max(value for _, value in run.scalars["losses/skipped"]) > 0


# Disks
@ONE
def test_logs_that_cannot_grow_end_a_run_in_one_line_and_keep_its_checkpoint(script, tmp_path):
    """As a full disk does, by a limit on the size of files."""
    limit = (40_000, 40_000)
    words = [sys.executable, script.__file__, "--hidden-size", "16", "--checkpoint-every", "5"]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    (path,) = tmp_path.glob("runs/*")
    expected = f"error: [Errno 27] File too large; the run is in {path.relative_to(tmp_path)}"
    assert done.returncode == 1 and expected in done.stderr  # beside what TensorBoard's thread says
    assert Run(path).checkpoint["iteration"] % 5 == 0


@ONE
def test_a_failed_write_leaves_the_old_file_and_no_other(script, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    script.save(path, {"step": 1})

    class Full(io.FileIO):
        def write(self, data):
            super().write(data[:4])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("builtins.open", lambda path, mode: Full(path, mode))
    with pytest.raises(OSError, match=r"No space left on device: '.*checkpoint.pt'"):
        script.save(path, {"step": 2})
    monkeypatch.undo()
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [*tmp_path.iterdir()] == [path]


@ONE
def test_a_short_write_is_an_error(script, tmp_path, monkeypatch):
    """A raw file may take less than it is given; what is written is complete, or an error."""
    taken = []

    class Short(io.FileIO):
        def write(self, data):
            taken.append(super().write(bytes(data)[:1000]))
            return taken[-1]

    monkeypatch.setattr("builtins.open", lambda path, mode: io.BufferedWriter(Short(path, mode)))
    script.save(tmp_path / "checkpoint.pt", {"weights": torch.zeros(5000)})
    monkeypatch.undo()
    assert len(taken) > 10
    assert len(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["weights"]) == 5000


@ONE
def test_logs_reach_the_disk_before_the_checkpoint_that_counts_them(script, launch, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace

    def record_sync(descriptor):
        order.append(os.readlink(f"/proc/self/fd/{descriptor}").split("/")[-1].split(".out")[0])
        fsync(descriptor)

    def record_replace(source, target):
        order.append(f"replace {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_replace)
    run = launch(script, "--total-timesteps", 512, "--eval-episodes", 0)
    expected = ["episodes.csv", "events", "checkpoint.pt.tmp", "replace checkpoint.pt"]
    assert order[order.index("episodes.csv") :] == expected
    sizes = run.checkpoint["log_sizes"]
    assert sizes["episodes.csv"] == (run.path / "episodes.csv").stat().st_size
    assert set(sizes) == {p.name for p in run.path.iterdir() if p.name[:2] in ("ep", "ev")}


@ONE
def test_a_directory_that_cannot_be_made_is_refused(script, launch, capsys, tmp_path):
    (tmp_path / "file").write_text("mine")
    line = refuses(script, capsys, launch, tmp_path, "--runs-dir", "file")
    assert line.startswith("error: --runs-dir file: ")


@ONE
def test_signals_are_left_as_they_were_and_threads_do_not_pile_up(script, launch):
    threads = threading.active_count()
    for _ in range(2):
        launch(script, "--total-timesteps", 512, "--eval-episodes", 0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert threading.active_count() <= threads + 1


@ONE
def test_args_json_is_what_the_checkpoint_holds(script, launch):
    run = launch(script, "--total-timesteps", 512, "--gamma", 0.9, "--eval-episodes", 0)
    assert json.loads((run.path / "args.json").read_text()) == run.checkpoint["args"]
    assert run.checkpoint["script"] == script.__name__
