"""benchmark/collapse/: its labels, measures and projections on known answers, and the whole command."""

import csv
import math
import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
import torch

from benchmark.collapse.__main__ import Args, Planned, main, next_command, plan, table, train
from benchmark.collapse.folder import claimed
from benchmark.collapse.measures import (
    Look,
    label_states,
    load_checkpoints,
    measure,
    restore,
    split,
)
from benchmark.collapse.pictures import best_view, project, simplex_coordinates
from benchmark.files import Damaged
from benchmark.runner.check import load

PPO = load("ppo_acpg.py")


def frame(num_actions: int, feature_dim: int, seed: int) -> torch.Tensor:
    return PPO.simplex_etf(num_actions, feature_dim, torch.Generator().manual_seed(seed))


def untrained(env_id: str, num_actions: int, **flags) -> dict:
    return {
        "args": {"env_id": env_id, "seed": 1, **flags},
        "global_step": 0,
        "num_actions": num_actions,
    }


def test_means_and_deviations_by_hand():
    features = torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 4.0]])
    centre, means, deviations = split(features, torch.tensor([1, 1, 3]))
    assert centre.tolist() == [2.5, 2.0]
    assert means.tolist() == [[-1.5, -2.0], [1.5, 2.0]]
    assert deviations.tolist() == [[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("num_actions", [2, 3, 4, 7])
def test_every_frame_is_turned_to_the_same_simplex(num_actions):
    rows = [frame(num_actions, 20, seed).double() for seed in (1, 2)]
    bases = [simplex_coordinates(row) for row in rows]
    assert all(
        torch.allclose(basis.T @ basis, torch.eye(num_actions - 1, dtype=torch.float64), atol=1e-6)
        for basis in bases
    )
    first, second = (row @ basis for row, basis in zip(rows, bases))
    assert torch.allclose(first, second, atol=1e-6) and torch.allclose(
        first.norm(dim=1), torch.ones(num_actions).double()
    )


@pytest.mark.parametrize(("num_actions", "dimensions"), [(2, 2), (3, 2), (4, 3), (6, 3)])
def test_collapsed_activations_lie_on_the_corners(num_actions, dimensions):
    weight, labels = frame(num_actions, 20, 1), torch.arange(num_actions).repeat(3)
    seen = Look(5 + 3 * weight[labels], labels, weight)  # an offset common to all is no obstacle
    points, corners = project(seen, best_view(seen))
    assert points.shape == (3 * num_actions, dimensions) and points == pytest.approx(
        corners[labels], abs=1e-5
    )
    if num_actions <= 4:
        assert (points**2).sum(axis=1) == pytest.approx(9)


def test_the_view_shows_where_means_differ_and_holds_still():
    """Of six actions in five dimensions: three pairs of means are far apart, in directions that the view must contain."""
    weight, labels = frame(6, 20, 1), torch.arange(6).repeat(2)
    far = weight[labels] * torch.tensor([9.0, 9.0, 9.0, 1.0, 1.0, 1.0])[labels][:, None]
    seen = Look(far, labels, weight)
    points, corners = project(seen, best_view(seen))
    assert (points**2).sum() > 0.9 * (far - far.mean(dim=0)).square().sum().item()
    noisy = Look(
        far + 1e-4 * torch.randn(far.shape, generator=torch.Generator().manual_seed(1)),
        labels,
        weight,
    )
    assert project(noisy, best_view(seen))[1] == pytest.approx(corners, abs=1e-2)


def test_the_ideal_walk_is_labelled_by_its_optimum():
    states = label_states(PPO, untrained("benchmark.envs:IdealCliffWalking-v0", 4))
    assert states.source == "optimal" and torch.equal(states.obs.float(), torch.eye(12)[:8])
    assert states.labels.tolist() == [3, 0, 0, 2, 3, 1, 1, 2] and states.meaning.tolist() == [
        0,
        1,
        2,
        3,
    ]


def test_synonyms_share_a_label():
    states = label_states(PPO, untrained("benchmark.envs:SemanticCliffWalking-v0", 5))
    assert states.meaning.tolist() == [0, 1, 2, 3, 0]


@pytest.mark.parametrize(
    ("env_id", "num_actions", "shape"),
    [
        ("FrozenLake-v1", 4, (16,)),
        ("benchmark.envs:envpool/Acrobot-v1", 3, (6,)),
        ("benchmark.envs:MinAtar/Breakout-v1", 3, (4, 10, 10)),
    ],
)
def test_without_an_optimum_the_agents_own_greedy_action_is_the_label(env_id, num_actions, shape):
    checkpoint = untrained(env_id, num_actions, head_std=1.0)
    states = label_states(PPO, checkpoint)
    assert states.source == "greedy" and states.obs.shape == (2000, *shape)
    assert (
        len(states.labels.unique()) > 1
        and measure(PPO, restore(PPO, checkpoint, shape), states)[1]["agreement"] == 1
    )


def test_states_where_nothing_is_decided_are_left_out():
    """FrozenLake's holes and goal are observed, but the next step there only resets."""
    states = label_states(PPO, untrained("FrozenLake-v1", 4))
    cells = set(states.obs.argmax(dim=1).tolist())
    assert cells <= {0, 1, 2, 3, 4, 6, 8, 9, 10, 13, 14} and len(cells) > 5


def test_orthogonal_states_look_collapsed_but_for_the_trace_ratio():
    """Why the trace ratio is there: an untrained network spreads one-hot states evenly, within actions as between them."""
    checkpoint = untrained("benchmark.envs:IdealCliffWalking-v0", 4, etf_head=True)
    _, row = measure(PPO, restore(PPO, checkpoint, (12,)), label_states(PPO, checkpoint))
    assert row["within_variability"] < 0.01 and row["means_maximal_angle"] < 0.05
    assert row["trace_ratio"] > 0.5 and row["self_duality"] > 0.5


def test_identical_activations_have_no_trace_ratio():
    checkpoint = untrained("benchmark.envs:IdealCliffWalking-v0", 4)
    agent, states = restore(PPO, checkpoint, (12,)), label_states(PPO, checkpoint)
    torch.nn.init.zeros_(agent.actor.layers[-2].weight)
    assert not {"trace_ratio", "within_variability"} & {*measure(PPO, agent, states)[1]}


def test_the_table_tells_trivial_from_undefined():
    rows = [
        {
            "etf_head": head,
            "seed": seed,
            "agreement": 1.0,
            "actions_seen": seen,
            "trace_ratio": 0.5 * seed,
        }
        | more
        for head, seen, more in ((False, 2, {}), (True, 3, {"means_equinorm": 0.25}))
        for seed in (1, 3)
    ]
    del rows[-1]["means_equinorm"]
    _, trained = [
        line.split(" | ") for line in table(rows).splitlines() if "| learned head" in line
    ]
    assert trained[1:6] == ["2 of 2", "undefined", "1", "undefined", "trivial for two actions"]
    _, frozen = [line.split(" | ") for line in table(rows).splitlines() if "| frozen" in line]
    assert frozen[2] == "undefined" and frozen[5] == "0.25 (of 1)"


SHORT = ["--total-timesteps", "1500", "--checkpoint-every", "1"]


def test_a_run_without_a_checkpoint_is_made_anew(tmp_path):
    run = Planned([sys.executable, "ppo_acpg.py", "--env-id", "CartPole-v1", *SHORT], tmp_path)
    (tmp_path / "half-made").mkdir()
    deque(train(run), maxlen=0)
    assert not (tmp_path / "half-made").exists() and (tmp_path / "done").exists()
    assert load_checkpoints(tmp_path)[0]["global_step"] == 0


def test_a_run_that_was_cut_off_goes_on_from_its_checkpoint(tmp_path):
    run = Planned([sys.executable, "ppo_acpg.py", "--env-id", "CartPole-v1", *SHORT], tmp_path)
    steps = train(run)
    while not [*tmp_path.glob("*.pt")]:
        next(steps)
    steps.close()
    before = [checkpoint["global_step"] for checkpoint in load_checkpoints(tmp_path)]
    assert len(before) > 1 and not (tmp_path / "done").exists()
    (made,) = (path for path in tmp_path.iterdir() if path.is_dir())
    resumed = ["--resume", str(made / "checkpoint.pt"), "--env-id", "CartPole-v1"]
    assert next_command(run) == [sys.executable, "ppo_acpg.py", *resumed]
    deque(train(run), maxlen=0)
    after = [checkpoint["global_step"] for checkpoint in load_checkpoints(tmp_path)]
    assert {*before} < {*after} and after[-1] >= 1500
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [made]
    assert [*train(run)] == []  # done


def test_a_run_that_fails_tells_why(tmp_path):
    run = Planned([sys.executable, "ppo_acpg.py", "--gamma", "2"], tmp_path)
    with pytest.raises(subprocess.CalledProcessError, match="exit status 2") as error:
        deque(train(run), maxlen=0)
    assert "--gamma 2" in error.value.stderr and not (tmp_path / "done").exists()


def test_a_run_dies_with_the_command_however_that_dies(tmp_path):
    """The script holds the one end of a pipe, which ends when the script does, and would say so if
    it came to its own end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    script = tmp_path / "script.py"
    script.write_text(
        f"import time\nwith open({str(pipe)!r}, 'w', 1) as file:\n"
        "    print('on', file=file)\n    time.sleep(20)\n    print('survived', file=file)\n"
    )
    code = (
        "import sys; from pathlib import Path; from benchmark.collapse.__main__ import *; "
        f"train_all([Planned([sys.executable, {str(script)!r}], Path({str(tmp_path / 'run')!r}))], 1)"
    )
    command = subprocess.Popen([sys.executable, "-c", code])
    with open(pipe) as file:
        assert file.readline() == "on\n"
        command.send_signal(signal.SIGKILL)
        assert file.read() == ""
    command.wait()


def test_an_edit_of_the_script_makes_new_runs(tmp_path, monkeypatch):
    shutil.copy("ppo_acpg.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    args = Args(out=Path("out"))
    folders = [{run.folder for run in plan(args, [])} for _ in range(2)]
    assert folders[0] == folders[1] and len(folders[0]) == 20
    with open("ppo_acpg.py", "a") as file:
        file.write("# edited\n")
    edited = {run.folder for run in plan(args, [])}
    other_flags = {run.folder for run in plan(args, ["--gamma", "0.9"])}
    assert not folders[0] & edited and not edited & other_flags


@pytest.mark.parametrize("damage", ["", "half", None])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    path = tmp_path / "7.pt"
    if damage is None:
        torch.save({"global_step": 3}, path)
    else:
        path.write_text(damage)
    with pytest.raises(Damaged, match=r"7\.pt is damaged"):
        load_checkpoints(tmp_path)
    path.unlink()
    with pytest.raises(Damaged, match="holds no checkpoint"):
        load_checkpoints(tmp_path)


def refusal(capsys, args: Args, *flags: str) -> str:
    """The line with which a command is refused."""
    with pytest.raises(SystemExit) as stopped:
        main(args, [*flags])
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("error: --") and line.count("\n") == 1
    return line


def test_a_damaged_run_is_named_by_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmark.collapse"])
    args = Args(out=tmp_path / "out", seeds=1, runs=tmp_path / "runs")
    for run in plan(args, []):
        run.folder.mkdir(parents=True)
        (run.folder / "done").touch()
        (run.folder / "1.pt").write_text("half")
    line = refusal(capsys, args)
    assert f"--runs {tmp_path / 'runs'}: " in line and "etf-head-1/1.pt is damaged" in line
    assert [*tmp_path.glob("out/*")] == []


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("file", "File exists"),
        ("file/below", "Not a directory"),
        ("/proc/x", "No such file"),
        ("folder", "measures.csv there is a directory"),
    ],
)
def test_a_bad_out_is_named_before_any_run(tmp_path, capsys, monkeypatch, out, message):
    monkeypatch.setattr("sys.argv", ["benchmark.collapse"])
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "measures.csv").mkdir(parents=True)
    line = refusal(capsys, Args(out=tmp_path / out, runs=tmp_path / "runs"))
    assert line.startswith(f"error: --out {tmp_path / out}: ") and message in line
    assert not (tmp_path / "runs").exists()


def test_two_at_once_do_not_mix(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmark.collapse"])
    args = Args(out=tmp_path / "out", runs=tmp_path / "runs")
    for flag, folder in (("out", args.out), ("runs", plan(args, [])[0].folder.parent)):
        with claimed(flag, folder):
            line = refusal(capsys, args)
        assert line == f"error: --{flag} {folder}: another command is at work there\n"
        assert not [*tmp_path.glob("*/lock"), *tmp_path.glob("*/*/lock")]


def run(tmp_path, *flags: object) -> subprocess.CompletedProcess:
    program = [sys.executable, "-m", "benchmark.collapse", "--seeds", 1]
    command = [*program, "--out", tmp_path / "out", "--runs", tmp_path / "runs", *flags]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def test_the_command_measures_draws_and_trains_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmark.collapse"])
    args = Args(out=tmp_path / "out", seeds=1, runs=tmp_path / "runs")
    main(args, ["--total-timesteps", "4000", "--feature-norm", "2"])
    printed, written = capsys.readouterr().out, (tmp_path / "out" / "measures.csv").read_text()
    assert "labels: optimal action" in printed and "frozen simplex ETF, trained" in printed
    for picture in ("measures.png", "cosines.png", "projection.png", "projection.gif", "page.html"):
        assert (tmp_path / "out" / picture).stat().st_size > 10_000
    rows = list(csv.DictReader(written.splitlines()))
    assert [row["global_step"] for row in rows].count("0") == 2 and {
        row["labels"] for row in rows
    } == {"optimal"}
    assert {row["flags"] for row in rows} == {"--total-timesteps 4000 --feature-norm 2"}
    assert all(
        math.isclose(float(row["feature_norm"]), 2, rel_tol=0.1)
        for row in rows
        if row["global_step"] != "0"
    )
    for head, folder in (("True", "etf-head-1"), ("False", "no-etf-head-1")):
        (path,) = tmp_path.glob(f"runs/*/{folder}")
        checkpoints = load_checkpoints(path)
        (final,) = path.glob("*/checkpoint.pt")
        assert (
            checkpoints[-1]["global_step"]
            == torch.load(final, weights_only=True)["global_step"]
            >= 4000
        )
        steps = [int(row["global_step"]) for row in rows if row["etf_head"] == head]
        assert (
            steps == [checkpoint["global_step"] for checkpoint in checkpoints] == sorted(set(steps))
            and len(steps) >= 3
        )
    finished = [path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*/done")]
    main(args, ["--total-timesteps", "4000", "--feature-norm", "2"])
    assert (tmp_path / "out" / "measures.csv").read_text() == written
    assert [path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*/done")] == finished


def test_two_actions_are_marked_trivial(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmark.collapse"])
    main(
        Args(out=tmp_path / "out", env_id="CartPole-v1", seeds=1, runs=tmp_path / "runs"),
        ["--total-timesteps", "3000"],
    )
    printed = capsys.readouterr().out
    assert "greedy action of the trained agent" in printed and printed.count("trivial") >= 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--env-id", "Nowhere-v0"), "error: --env-id Nowhere-v0"),
        (("--feature-norm", "-1"), "error: --feature-norm -1"),
        (("--num-minibatches", "7"), "error: --num-minibatches 7: must divide"),
        (("--feature-dim", "2"), "error: --feature-dim 2: a simplex ETF of 4 actions"),
        (("--no-such-flag", "1"), "--no-such-flag"),
        (("--seed", "3"), "error: --seed"),
        (("--no-etf-head",), "error: --no-etf-head"),
        (("--seeds", "0"), "error: --seeds 0: must lie in [1, 10000]"),
        (("--seeds", "1000000000"), "error: --seeds 1000000000: must lie in [1, 10000]"),
        (("--workers", "0"), "error: --workers 0: must lie in [1, 1024]"),
        (("--checkpoint-every", "-1"), "error: --checkpoint-every -1: must lie in"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_written(tmp_path, flags, message):
    done = run(tmp_path, *flags)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_an_unknown_script_is_named(tmp_path):
    done = run(tmp_path, "--script", "dqn")
    assert done.returncode == 2 and "dqn" in done.stderr and "Traceback" not in done.stderr
