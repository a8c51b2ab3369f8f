"""benchmark/collate.py on runs made up for it."""

import json

import pytest

from benchmark.collate import collate, markdown, measure, varying


def fake_run(root, seed, returns, steps, total=2500, **flags):
    """A run's directory with one episode per given return."""
    run = root / f"Env-v0__ppo_acpg__linear__{seed}__{len(returns)}"
    run.mkdir(parents=True)
    (run / "checkpoint.pt").touch()
    (run / "args.json").write_text(json.dumps({"env_id": "Env-v0", "seed": seed, "total_timesteps": total, **flags}))
    lines = [f"{step},{value},1,{step / 100}" for step, value in zip(steps, returns)]
    (run / "episodes.csv").write_text("\n".join(["global_step,return,length,seconds", *lines]) + "\n")
    return run


def test_measures_by_hand(tmp_path):
    run = fake_run(tmp_path, 1, returns=[*range(250)], steps=range(10, 2501, 10))
    row = measure(run)
    assert row["final"] == pytest.approx(199.5)
    assert row["last_tenth"] == pytest.approx(sum(range(225, 250)) / 25)
    windows = [[*range(250)][max(0, end - 100) : end] for end in range(10, 251, 10)]
    assert row["area"] == pytest.approx(sum(sum(w) / len(w) for w in windows) / 25)
    assert row["seconds"] == 25


def test_unfinished_and_damaged_runs_are_named_and_skipped(tmp_path, capsys):
    good = fake_run(tmp_path / "a", 1, [1.0] * 100, range(25, 2501, 25), gamma=0.9)
    fake_run(tmp_path / "b", 2, [1.0] * 50, range(25, 1251, 25))
    damaged = fake_run(tmp_path / "c", 3, [1.0] * 100, range(25, 2501, 25))
    (damaged / "episodes.csv").write_text("global_step,return,length,seconds\n1,x\n")
    rows = collate(tmp_path)
    assert [row["seed"] for row in rows] == [1]
    errors = capsys.readouterr().err
    assert "stops at step 1250 of 2500" in errors and str(damaged) in errors and str(good) not in errors


def test_flags_that_a_head_ignores_are_empty(tmp_path):
    fake_run(tmp_path / "a", 1, [1.0] * 100, range(25, 2501, 25), etf_head=False, etf_scale=2.0, head_std=0.5)
    fake_run(tmp_path / "b", 1, [1.0] * 100, range(25, 2501, 25), etf_head=True, etf_scale=4.0, head_std=0.5)
    plain, etf = sorted(collate(tmp_path), key=lambda row: row["etf_head"])
    assert "etf_scale" not in plain and plain["head_std"] == 0.5
    assert "head_std" not in etf and etf["etf_scale"] == 4.0


def test_groups_differ_in_more_than_the_seed(tmp_path):
    for seed, gamma, value in ((1, 0.9, 2.0), (2, 0.9, 4.0), (1, 0.5, 7.0)):
        fake_run(tmp_path / f"{seed}-{gamma}", seed, [value] * 100, range(25, 2501, 25), gamma=gamma, runs_dir=str(seed))
    rows = collate(tmp_path)
    assert varying(rows) == ["env_id", "gamma", "seed"]
    table = markdown(rows).splitlines()
    assert table[2:] == ["| Env-v0 | 0.5 | 1 | 7 ± 0 | 7 ± 0 | 7 ± 0 |", "| Env-v0 | 0.9 | 2 | 3 ± 1 | 3 ± 1 | 3 ± 1 |"]
