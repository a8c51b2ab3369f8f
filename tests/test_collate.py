"""benchmark/collate.py and benchmark/reporting/thresholds.py on runs made up for them."""

import csv
import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.collate import Args, main, varying
from benchmark.reporting.measures import Unfinished, measure
from benchmark.reporting.thresholds import normalised, plain_id, random_returns, table, threshold
from tests.made_runs import make_run


def read(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
        return list(csv.DictReader(file))


@pytest.fixture
def collated(tmp_path):
    """collated(): the tables of the runs below tmp_path / "runs", by their names."""

    def collated() -> dict[str, list[dict[str, str]]]:
        main(Args(runs=tmp_path / "runs", out=tmp_path / "out"))
        assert not list((tmp_path / "out").glob(".*"))
        return {path.name.split(".")[0]: read(path) for path in (tmp_path / "out").iterdir()}

    return collated


def test_measures_by_hand(tmp_path):
    row, points, lines = measure(make_run(tmp_path, range(250)))
    windows = [[*range(250)][max(0, end - 100) : end] for end in range(10, 251, 10)]
    curve = [sum(window) / len(window) for window in windows]
    assert [float(point["value"]) for point in points] == pytest.approx(curve, rel=1e-5)
    assert [point["step"] for point in points] == [str(step) for step in range(100, 2501, 100)]
    expected = {
        "best": 199.5,
        "final": 199.5,
        "last_tenth": sum(range(225, 250)) / 25,
        "area": sum(curve) / 25,
    }
    expected |= {"seconds": 2.5, "steps_per_second": 1000, "seed": 1}
    assert {key: float(row[key]) for key in expected} == pytest.approx(expected, rel=1e-5)
    assert (row["script"], row["head"], len(lines)) == ("ppo_acpg", "linear", 250)
    assert row["threshold"] == row["stop"] == row["normalised"] == row["within_variability"] == ""


def test_best_is_the_curve_s_and_stop_is_the_first_time_the_threshold_is_reached(tmp_path):
    """475 of CartPole-v1 is reached by the mean of 100 when 95 of them are 500; afterwards the agent forgets."""
    row, _, _ = measure(
        make_run(tmp_path, [0] * 100 + [500] * 100 + [0] * 50, env_id="CartPole-v1")
    )
    assert (row["threshold"], row["stop"], row["best"], row["final"]) == (
        "475",
        "1950",
        "500",
        "250",
    )
    assert float(row["normalised"]) == pytest.approx((250 - 22.2) / (475 - 22.2), rel=1e-5)
    row, _, _ = measure(make_run(tmp_path, [500] * 99, env_id="CartPole-v1", seed=2))
    assert row["stop"] == ""  # fewer than 100 episodes prove nothing


def test_collapse_measures_are_the_last_at_or_before_the_step(tmp_path):
    history = [
        {"global_step": step, "within_variability": step / 1000, "actions_seen": 3.0}
        for step in (150, 300, 2400)
    ]
    history[1].pop("within_variability")
    row, points, _ = measure(make_run(tmp_path, range(250), collapse=history))
    assert [point["within_variability"] for point in points[:4]] == ["", "0.15", "", ""]
    assert [point["actions_seen"] for point in points[:3]] == ["", "3", "3"]
    assert (
        points[-2]["within_variability"]
        == points[-1]["within_variability"]
        == row["within_variability"]
        == "2.4"
    )


@pytest.mark.parametrize(
    "head", ["linear", "etf", "random", "orthogonal", "etf-trainable", "random-trainable"]
)
def test_heads_have_the_scripts_names(tmp_path, head):
    assert measure(make_run(tmp_path, [1.0], head=head))[0]["head"] == head


def damage_line(run: Path) -> None:
    (run / "episodes.csv").write_text("global_step,return,length,seconds\n1,x,1,1\n")


def damage_tail(run: Path) -> None:
    text = (run / "episodes.csv").read_text()
    (run / "episodes.csv").write_text(text[: text.rindex(",")])


def damage_order(run: Path) -> None:
    (run / "episodes.csv").write_text("global_step,return,length,seconds\n500,1,1,1\n400,1,1,2\n")


def damage_bytes(run: Path) -> None:
    (run / "episodes.csv").write_bytes(b"\x00\xff\x00")


def damage_nan(run: Path) -> None:
    (run / "episodes.csv").write_text("global_step,return,length,seconds\n500,nan,1,1\n")


def damage_checkpoint(run: Path) -> None:
    (run / "checkpoint.pt").write_bytes((run / "checkpoint.pt").read_bytes()[:500])


def damage_code(run: Path) -> None:
    torch.save(
        {"global_step": 500, "collapse": Path("a class that weights_only refuses")},
        run / "checkpoint.pt",
    )


def damage_json(run: Path) -> None:
    (run / "args.json").write_text('{"env_id": ')


def damage_flags(run: Path) -> None:
    (run / "args.json").write_text("[1]")


def damage_record(run: Path) -> None:
    (run.parent / "record.json").write_text("")


@pytest.mark.parametrize(
    "damage",
    [
        damage_line,
        damage_tail,
        damage_order,
        damage_bytes,
        damage_nan,
        damage_checkpoint,
        damage_code,
        damage_json,
        damage_flags,
        damage_record,
    ],
)
def test_damaged_runs_are_named_skipped_and_counted(tmp_path, capsys, collated, damage):
    good = make_run(tmp_path / "runs" / "a", [1.0] * 50, seed=1)
    damaged = make_run(tmp_path / "runs" / "b", [1.0] * 50, seed=2)
    damage(damaged)
    tables = collated()
    assert [row["seed"] for row in tables["runs"]] == ["1"]
    assert {row["run"] for name in ("episodes", "curves") for row in tables[name]} == {
        f"a/{good.name}"
    }
    error = capsys.readouterr().err
    file = {
        "flags": "args.json",
        "json": "args.json",
        "record": "record.json",
        "checkpoint": "checkpoint.pt",
        "code": "checkpoint.pt",
    }
    named = file.get(damage.__name__.removeprefix("damage_"), "episodes.csv")
    assert error.startswith(f"damaged {damaged}: ValueError: {named}: ") and error.count("\n") == 1
    assert tables["counts"] == [
        {
            "script": "ppo_acpg",
            "env_id": "Env-v0",
            "head": "linear",
            "planned": "2",
            "finished": "1",
        }
        | {"failed": "0", "damaged": "1", "unfinished": "0"}
    ]


def test_unfinished_runs_are_named_and_counted(tmp_path, capsys, collated):
    make_run(tmp_path / "runs", [1.0] * 50, seed=1)
    make_run(tmp_path / "runs", [1.0] * 50, seed=2, total_timesteps=501)
    (make_run(tmp_path / "runs", [1.0] * 50, seed=3) / "checkpoint.pt").unlink()
    recorded = make_run(tmp_path / "runs" / "named", [1.0] * 50, seed=4)
    (recorded.parent / "record.json").write_text(json.dumps({"outcome": "running"}))
    tables = collated()
    assert [row["seed"] for row in tables["runs"]] == ["1"]
    assert [
        tables["counts"][0][state] for state in ("planned", "finished", "damaged", "unfinished")
    ] == ["4", "1", "0", "3"]
    error = capsys.readouterr().err
    assert "stops at step 500 of 501" in error and "no checkpoint" in error and "running" in error
    with pytest.raises(Unfinished):
        measure(recorded)


def test_counts_follow_the_plan(tmp_path, capsys, collated):
    plan = [
        {"name": f"E__ppo_acpg__{head}__{seed}", "head": head, "seed": seed}
        for head in ("linear", "etf")
        for seed in (1, 2, 3)
    ]
    plan = [
        run | {"script": "ppo_acpg", "env_id": "benchmark.envs:MinAtar/Breakout-v1"} for run in plan
    ]
    outcomes = ["finished", "finished", "running", "failed", "finished", None]
    for run, outcome in zip(plan, outcomes):
        folder = tmp_path / "runs" / "runs" / run["name"]
        folder.mkdir(parents=True)
        if outcome:
            (folder / "record.json").write_text(json.dumps({"outcome": outcome}))
        if outcome in ("finished", "running"):
            make_run(folder, [1.0] * 50, env_id=run["env_id"], head=run["head"], seed=run["seed"])
    damaged = next((tmp_path / "runs" / "runs" / plan[1]["name"]).glob("*/args.json"))
    damaged.write_text("{")
    (tmp_path / "runs" / "plan.json").write_text(json.dumps({"runs": plan}))
    tables = collated()
    counts = {
        row["head"]: [int(row[state]) for state in row if state not in ("script", "env_id", "head")]
        for row in tables["counts"]
    }
    assert counts == {
        "linear": [3, 1, 0, 1, 1],
        "etf": [3, 1, 1, 0, 1],
    }  # planned, finished, failed, damaged, unfinished
    assert {row["env_id"] for row in tables["counts"]} == {plan[0]["env_id"]}


def test_plans_at_any_depth_count(tmp_path, collated):
    """An experiment in another's folder, under whose name the same run is planned with other flags."""
    run = {"name": "a", "script": "ppo_acpg", "env_id": "Env-v0", "head": "linear", "seed": 1}
    for folder, std in (("runs", 0.01), ("runs/std", 2.0)):
        make_run(tmp_path / folder / "runs" / "a", [1.0] * 50, head_std=std)
        (tmp_path / folder / "plan.json").write_text(json.dumps({"runs": [run]}))
    tables = collated()
    assert [(row["planned"], row["finished"], row["unfinished"]) for row in tables["counts"]] == [
        ("2", "2", "0")
    ]
    assert [row["head_std"] for row in tables["runs"]] == ["0.01", "2.0"]
    for folder, planned in (
        ("runs/runs", "1"),
        ("runs/std", "1"),
        ("runs/std/runs", "1"),
    ):  # not the other's
        main(Args(runs=tmp_path / folder, out=tmp_path / "out"))
        assert [row["planned"] for row in read(tmp_path / "out" / "counts.csv")] == [planned]


def test_a_copy_of_a_planned_run_counts_by_itself(tmp_path, collated):
    make_run(tmp_path / "runs" / "runs" / "a", [1.0] * 50)
    make_run(tmp_path / "runs" / "old" / "a", [1.0] * 50)
    run = {"name": "a", "script": "ppo_acpg", "env_id": "Env-v0", "head": "linear", "seed": 1}
    (tmp_path / "runs" / "plan.json").write_text(json.dumps({"runs": [run]}))
    assert [
        (row["planned"], row["finished"], row["unfinished"]) for row in collated()["counts"]
    ] == [("2", "2", "0")]


def test_provenance_of_the_planned_runs(tmp_path, collated):
    """Two runs of one commit, of which one was started twice, and one of another, which failed; a fourth has not begun."""
    plan = [
        {"name": f"r{n}", "script": "ppo_acpg", "env_id": "Env-v0", "head": "etf", "seed": n}
        for n in range(4)
    ]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "plan.json").write_text(json.dumps({"runs": plan}))
    common = {
        "machine": "secret-host, x86_64, 2 CPUs, Linux",
        "versions": {"python": "3.11.2", "torch": "2.13.0"},
    }
    for n, commit, attempts, seconds, outcome in (
        (0, "a", 1, 1800, "finished"),
        (1, "a", 2, 2700, "finished"),
        (2, "b", 2, 36, "failed"),
    ):
        record = common | {
            "outcome": outcome,
            "commit": commit,
            "attempts": attempts,
            "seconds": seconds,
            "started": f"2026-0{9 - n}",
        }
        (tmp_path / "runs" / "runs" / f"r{n}").mkdir(parents=True)
        (tmp_path / "runs" / "runs" / f"r{n}" / "record.json").write_text(json.dumps(record))
    assert [list(row.values()) for row in collated()["provenance"]] == [
        [
            "a",
            "x86_64, 2 CPUs",
            "python 3.11.2, torch 2.13.0",
            "2",
            "1",
            "2026-08",
            "2026-09",
            "1.25",
        ],
        [
            "b",
            "x86_64, 2 CPUs",
            "python 3.11.2, torch 2.13.0",
            "1",
            "1",
            "2026-07",
            "2026-07",
            "0.01",
        ],
    ]


def test_a_run_outside_the_plan_counts_as_planned(tmp_path, collated):
    make_run(tmp_path / "runs" / "other", [1.0] * 50, head="etf")
    run = {"name": "a", "script": "ppo_acpg", "env_id": "Env-v0", "head": "linear", "seed": 1}
    (tmp_path / "runs" / "plan.json").write_text(json.dumps({"runs": [run]}))
    counts = {
        row["head"]: (row["planned"], row["finished"], row["unfinished"])
        for row in collated()["counts"]
    }
    assert counts == {"linear": ("1", "0", "1"), "etf": ("1", "1", "0")}


def test_lost_episodes_are_damage(tmp_path, capsys, collated):
    """As after a power cut: the checkpoint has reached the disk, the last episodes have not."""
    make_run(tmp_path / "runs", [1.0] * 50)
    short = make_run(tmp_path / "runs", [1.0] * 50, seed=2) / "episodes.csv"
    short.write_text("\n".join(short.read_text().splitlines()[:-20]) + "\n")
    tables = collated()
    assert [row["seed"] for row in tables["runs"]] == ["1"] and tables["counts"][0][
        "damaged"
    ] == "1"
    assert "when the checkpoint was written" in capsys.readouterr().err


def test_best_is_of_a_hundred_episodes(tmp_path):
    """Not of a lucky first one."""
    assert measure(make_run(tmp_path, [50] + [0] * 100 + [1] * 99 + [0] * 50))[0]["best"] == "0.99"
    assert measure(make_run(tmp_path, [50, 0], seed=2))[0]["best"] == "25"


def test_a_plan_without_runs_makes_empty_tables(tmp_path, collated):
    (tmp_path / "runs").mkdir()
    run = {"name": "a", "script": "ppo_acpg", "env_id": "CartPole-v1", "head": "etf", "seed": 1}
    (tmp_path / "runs" / "plan.json").write_text(json.dumps({"runs": [run]}))
    tables = collated()
    assert tables["runs"] == tables["curves"] == tables["episodes"] == []
    assert tables["counts"][0]["unfinished"] == "1"


def test_flags_that_a_head_ignores_are_empty(tmp_path, collated):
    make_run(tmp_path / "runs", [1.0] * 50, etf_scale=2.0, head_std=0.5)
    make_run(tmp_path / "runs", [1.0] * 50, head="etf", etf_scale=4.0, head_std=0.5)
    make_run(tmp_path / "runs", [1.0] * 50, head="etf", seed=2, etf_scale=1.0, head_std=0.5)
    assert [(row["head"], row["etf_scale"]) for row in collated()["runs"]] == [
        ("etf", "4.0"),
        ("etf", "1.0"),
        ("linear", ""),
    ]


def test_groups_differ_in_more_than_the_seed(tmp_path, capsys, collated):
    for seed, gamma, value in ((1, 0.9, 2.0), (2, 0.9, 4.0), (1, 0.5, 7.0)):
        make_run(
            tmp_path / "runs" / f"{seed}-{gamma}",
            [value] * 50,
            seed=seed,
            gamma=gamma,
            runs_dir=str(seed),
        )
    rows = collated()["runs"]
    assert varying(rows) == ["gamma"]
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| ppo_acpg | Env-v0 | linear | 0.5 | 1 | 7 | 7 | 7 |",
        "| ppo_acpg | Env-v0 | linear | 0.9 | 2 | 3 ± 1.4 | 3 ± 1.4 | 3 ± 1.4 |",
    ]


def test_all_episodes_are_kept_and_the_same_runs_make_the_same_bytes(tmp_path, collated):
    for seed, returns in ((1, [1.5, 2.5]), (2, [-3.0])):
        make_run(tmp_path / "runs", returns, seed=seed)
    episodes = collated()["episodes"]
    assert [(row["run"].split("__")[3], float(row["return"])) for row in episodes] == [
        ("1", 1.5),
        ("1", 2.5),
        ("2", -3.0),
    ]
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert before["episodes.csv.gz"][3:8] == bytes(5)  # neither flags, such as for a name, nor time
    collated()
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("named", [True, False], ids=["by-the-checkpoint", "by-the-directory"])
def test_an_environment_s_id_may_hold_what_separates_names(tmp_path, collated, named):
    """In runs.csv as in counts.csv, be a run finished, unfinished or damaged, planned or not."""
    plan = []
    for seed, outcome in enumerate(
        ("finished", "unfinished", "damaged", "finished", "unfinished", "damaged")
    ):
        name = f"toy%3AMy__Env-v0__ppo_acpg__etf__{seed}"
        run = make_run(
            tmp_path / "runs" / name, [1.0] * 50, env_id="toy:My__Env-v0", head="etf", seed=seed
        )
        if named:
            state = torch.load(run / "checkpoint.pt", weights_only=True)
            torch.save(state | {"script": "ppo_acpg"}, run / "checkpoint.pt")
        if outcome == "unfinished":
            flags = json.loads((run / "args.json").read_text())
            (run / "args.json").write_text(json.dumps(flags | {"total_timesteps": 501}))
        if outcome == "damaged":
            (run / "episodes.csv").unlink()
        if seed < 3:
            plan.append(
                {
                    "name": name,
                    "script": "ppo_acpg",
                    "env_id": "toy:My__Env-v0",
                    "head": "etf",
                    "seed": seed,
                }
            )
    (tmp_path / "plan.json").write_text(json.dumps({"runs": plan}))
    tables = collated()
    group = ["ppo_acpg", "toy:My__Env-v0", "etf"]
    assert [[row["script"], row["env_id"], row["head"]] for row in tables["runs"]] == [group, group]
    assert [list(row.values()) for row in tables["counts"]] == [
        [*group, "6", "2", "0", "2", "2"]  # planned, finished, failed, damaged, unfinished
    ]


def test_a_renamed_run_is_known_by_its_files(tmp_path, capsys, collated):
    run = make_run(tmp_path / "runs", [1.0] * 50, head="etf")
    mine, nameless = run.with_name("mine"), tmp_path / "runs" / "nameless"
    shutil.copytree(run, nameless)
    torch.save(
        torch.load(run / "checkpoint.pt", weights_only=True) | {"script": "my_acpg"},
        run / "checkpoint.pt",
    )
    run.rename(mine)
    assert [(row["run"], row["script"], row["head"]) for row in collated()["runs"]] == [
        ("mine", "my_acpg", "etf")
    ]
    assert capsys.readouterr().err.startswith(
        f"damaged {nameless}: ValueError: neither checkpoint.pt nor"
    )


def test_an_experiment_s_name_tells_runs_apart_only_if_it_was_given(tmp_path, collated):
    for script in ("ppo_acpg", "a2c_acpg"):
        make_run(tmp_path / "runs", [1.0] * 50, script=script, exp_name=script)
    assert "exp_name" not in collated()["runs"][0]
    make_run(tmp_path / "runs", [1.0] * 50, seed=2, exp_name="wider")
    assert sorted(row["exp_name"] for row in collated()["runs"]) == ["", "", "wider"]


def test_a_peer_s_run_needs_no_checkpoint_of_ours(tmp_path):
    run = make_run(tmp_path, [1.0] * 50, script="sb3-a2c")
    (run / "checkpoint.pt").write_bytes(b"Stable-Baselines3's own")
    assert measure(run)[0]["final"] == "1"


def test_many_runs_take_no_memory(tmp_path):
    """Memory that is in use after 100 runs of 2,000 episodes was in use after 50."""
    import tracemalloc

    random, peaks = np.random.default_rng(0), []
    for seed in range(100):
        make_run(tmp_path / "runs" / str(seed // 50), random.normal(size=2000).round(3), seed=seed)
    for runs in ("runs/0", "runs"):
        tracemalloc.start()
        main(Args(runs=tmp_path / runs, out=tmp_path / "out"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 50 * 2000  # a byte per episode more


@pytest.mark.parametrize("runs", ["missing", "empty"])
def test_no_runs_are_one_line_of_error(tmp_path, capsys, runs):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as exit:
        main(Args(runs=tmp_path / runs, out=tmp_path / "out"))
    assert exit.value.code == 2 and not (tmp_path / "out").exists()
    assert capsys.readouterr().err == f"error: --runs {tmp_path / runs}: holds no run\n"


def test_a_directory_that_cannot_be_written_to_is_one_line_of_error(tmp_path, capsys):
    make_run(tmp_path / "runs", [1.0] * 50)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SystemExit) as exit:
        main(Args(runs=tmp_path / "runs", out=tmp_path / "out"))
    assert exit.value.code == 2 and capsys.readouterr().err.startswith(
        f"error: --out {tmp_path / 'out'}: "
    )


def test_a_full_disk_leaves_the_old_tables(tmp_path, collated, monkeypatch, capsys):
    make_run(tmp_path / "runs", [1.0] * 50)
    collated()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    make_run(tmp_path / "runs", [2.0] * 50, seed=2)

    def full(*args) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("csv.DictWriter.writerow", full)
    with pytest.raises(SystemExit) as exit:
        collated()
    assert exit.value.code == 2 and "No space left on device" in capsys.readouterr().err
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {key: after[key] for key in ("runs.csv", "curves.csv")} == {
        key: before[key] for key in ("runs.csv", "curves.csv")
    }
    assert after.keys() == before.keys()


@pytest.mark.parametrize(
    ("env_id", "known", "solved"),
    [
        ("CartPole-v1", "CartPole-v1", 475),
        ("benchmark.envs:envpool/Acrobot-v1", "Acrobot-v1", -100),
        ("benchmark.envs:envpool/LunarLander-v3", "LunarLander-v3", 200),
        ("benchmark.envs:IdealCliffWalking-v0", "IdealCliffWalking-v0", -1),
        ("benchmark.envs:MinAtar/Breakout-v1", "MinAtar/Breakout-v1", None),
        ("benchmark.envs:Atari/Breakout-v5", "Breakout-v5", None),
        ("ALE/Breakout-v5", "Breakout-v5", None),
        ("nobody.knows:This-v0", "This-v0", None),
    ],
)
def test_thresholds(env_id, known, solved):
    assert (plain_id(env_id), threshold(env_id)) == (known, solved)


def test_every_reference_has_a_source_and_stands_below_what_is_good():
    for name, row in table().items():
        assert all(
            bool(row[key]) == bool(row[f"{key}_source"]) for key in ("threshold", "random", "best")
        )
        if normalised(name, 0.0) is not None:
            good = float(row["best"]) if row["best"] else threshold(name)
            assert (
                normalised(name, float(row["random"])) == 0
                and normalised(name, good) == 1
                and good > float(row["random"])
            )


def test_the_random_policy_is_measured_as_the_table_says():
    expected = float(table()["CartPole-v1"]["random"])
    returns = random_returns("CartPole-v1", 200)
    assert abs(returns.mean() - expected) < 4 * returns.std() / 200**0.5
    assert (random_returns("CartPole-v1", 3) == returns[:3]).all()
