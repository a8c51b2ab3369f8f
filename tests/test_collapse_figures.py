"""benchmark/collapse/: its labels, measures and projections on known answers, and the whole command."""

import csv
import math
import subprocess
import sys

import pytest
import torch

from benchmark.collapse.__main__ import (
    Args,
    Look,
    best_view,
    label_states,
    load_checkpoints,
    load_script,
    main,
    measure,
    project,
    restore,
    simplex_coordinates,
    split,
    table,
    train,
)

PPO = load_script("ppo_acpg")


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


def test_a_run_that_was_cut_off_is_made_anew(tmp_path):
    folder = tmp_path / "run"
    (folder / "half-made").mkdir(parents=True)
    (folder / "1.pt").write_text("half")
    train(
        [sys.executable, "ppo_acpg.py", "--total-timesteps", "600", "--checkpoint-every", "1"],
        folder,
    )
    assert not (folder / "half-made").exists() and (folder / "done").exists()
    assert load_checkpoints(folder)[0]["global_step"] == 0
    with pytest.raises(subprocess.CalledProcessError, match="exit status 2") as error:
        train([sys.executable, "ppo_acpg.py", "--gamma", "2"], tmp_path / "wrong")
    assert "--gamma 2" in error.value.stderr and not (tmp_path / "wrong" / "done").exists()


def run(tmp_path, *flags: object) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "benchmark.collapse",
        "--out",
        tmp_path / "out",
        "--runs",
        tmp_path / "runs",
        "--seeds",
        1,
        *flags,
    ]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def test_the_command_measures_draws_and_trains_once(tmp_path, capsys):
    args = Args(out=tmp_path / "out", seeds=1, runs=tmp_path / "runs")
    main(args, ["--total-timesteps", "4000", "--feature-norm", "2"])
    printed, written = capsys.readouterr().out, (tmp_path / "out" / "measures.csv").read_text()
    assert "labels: optimal action" in printed and "frozen simplex ETF, trained" in printed
    for picture in ("measures.png", "cosines.png", "projection.png", "projection.gif"):
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


def test_two_actions_are_marked_trivial(tmp_path, capsys):
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
        (("--script", "dqn"), "dqn"),
        (("--seed", "3"), "error: --seed"),
        (("--no-etf-head",), "error: --no-etf-head"),
        (("--seeds", "0"), "error: --seeds 0: must be at least 1"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_written(tmp_path, flags, message):
    done = run(tmp_path, *flags)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
