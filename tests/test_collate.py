"""benchmark/collate.py and benchmark/reporting/thresholds.py on runs made up for them."""

import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.collate import Args, main, varying
from benchmark.reporting.measures import COLLAPSE, MEASURES, Unfinished, measure, trailing_means
from benchmark.reporting.thresholds import normalised, plain_id, random_returns, table, threshold
from tests.made_runs import make_planned, make_run, write_plan

TABLES = {"runs", "curves", "counts", "provenance", "episodes"}
STATES = ("planned", "finished", "failed", "damaged", "unfinished")


def read(path: Path) -> list[dict[str, str]]:
    opened = gzip.open(path, "rt") if path.suffix == ".gz" else open(path)
    with opened as file:
        return list(csv.DictReader(file))


def read_all(out: Path) -> dict[str, list[dict[str, str]]]:
    """The tables by their names. There is nothing else."""
    tables = {path.name.split(".")[0]: read(path) for path in out.iterdir()}
    assert tables.keys() == TABLES
    return tables


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def states(counts: list[dict[str, str]], *keys: str) -> dict[tuple[str, ...], list[int]]:
    """By the values of the keys, the numbers in the order of STATES."""
    return {
        tuple(row[key] for key in keys): [int(row[state]) for state in STATES] for row in counts
    }


@pytest.fixture
def collated(tmp_path):
    """collated(): the tables of the runs below tmp_path / "runs", by their names."""

    def collated() -> dict[str, list[dict[str, str]]]:
        main(Args(runs=tmp_path / "runs", out=tmp_path / "out"))
        return read_all(tmp_path / "out")

    return collated


def change_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_checkpoint(run: Path, **changes) -> None:
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    torch.save(state | changes, run / "checkpoint.pt")


# What a run's numbers are


def test_measures_by_hand(tmp_path):
    row, curve, lines = measure(make_run(tmp_path, range(250), greedy=[7.0, 9.0]))
    windows = [[*range(250)][max(0, end - 100) : end] for end in range(10, 251, 10)]
    values = [sum(window) / len(window) for window in windows]
    assert curve[:, 0].tolist() == [*range(100, 2501, 100)]
    assert curve[:, 1] == pytest.approx(values)
    assert np.isnan(curve[:, 2:]).all() and curve.shape == (25, 2 + len(COLLAPSE))
    expected = {
        "best": 199.5,
        "final": 199.5,
        "last_tenth": sum(range(225, 250)) / 25,
        "area": sum(values) / 25,
        "greedy": 8,
        "seconds": 2.5,
        "steps_per_second": 1000,
        "seed": 1,
    }
    assert {key: float(row[key]) for key in expected} == pytest.approx(expected, rel=1e-5)
    assert (row["script"], row["head"]) == ("ppo_acpg", "linear")
    assert len(lines) == 250 and lines[1] == "20,1,10,0.02"
    assert row["threshold"] == row["stop"] == row["normalised"] == row["within_variability"] == ""


def test_best_is_the_curve_s_and_stop_is_the_first_time_the_threshold_is_reached(tmp_path):
    """475 of CartPole-v1 is reached by the mean of 100 when 95 of them are 500; afterwards the
    agent forgets."""
    returns = [0] * 100 + [500] * 100 + [0] * 50
    row, _, _ = measure(make_run(tmp_path, returns, env_id="CartPole-v1"))
    assert (row["threshold"], row["stop"]) == ("475", "1950")
    assert (row["best"], row["final"]) == ("500", "250")
    assert float(row["normalised"]) == pytest.approx((250 - 22.2) / (475 - 22.2), rel=1e-5)
    row, _, _ = measure(make_run(tmp_path, [500] * 99, env_id="CartPole-v1", seed=2))
    assert row["stop"] == ""  # fewer than 100 episodes prove nothing


def test_best_is_of_a_hundred_episodes(tmp_path):
    """Not of a lucky first one."""
    assert measure(make_run(tmp_path, [50] + [0] * 100 + [1] * 99 + [0] * 50))[0]["best"] == "0.99"
    assert measure(make_run(tmp_path, [50, 0], seed=2))[0]["best"] == "25"


def test_a_huge_return_does_not_swallow_later_ones():
    means = trailing_means(np.array([1e30] + [3.0] * 150))
    assert means[99] == pytest.approx(1e28) and (means[100:] == 3).all()
    assert trailing_means(np.empty(0)).shape == (0,)


def test_collapse_measures_are_the_last_at_or_before_the_step(tmp_path):
    """Those that are undefined, by absence or as NaN, are empty."""
    history = [
        {"global_step": 150, "within_variability": 0.15, "actions_seen": 3.0},
        {"global_step": 300, "actions_seen": 3.0, "feature_norm": float("nan")},
        {"global_step": 2400, "within_variability": 2.4, "actions_seen": 3.0},
    ]
    row, curve, _ = measure(make_run(tmp_path, range(250), collapse=history))
    nan = pytest.approx(np.nan, nan_ok=True)
    assert curve[:4, 2 + COLLAPSE.index("within_variability")].tolist() == [nan, 0.15, nan, nan]
    assert curve[-2:, 2 + COLLAPSE.index("within_variability")].tolist() == [2.4, 2.4]
    assert curve[:3, 2 + COLLAPSE.index("actions_seen")].tolist() == [nan, 3, 3]
    assert (row["within_variability"], row["feature_norm"]) == ("2.4", "")


@pytest.mark.parametrize(
    "head", ["linear", "etf", "random", "orthogonal", "etf-trainable", "random-trainable"]
)
def test_heads_have_the_scripts_names(tmp_path, head):
    assert measure(make_run(tmp_path, [1.0], head=head))[0]["head"] == head


def test_a_script_without_heads_has_none(tmp_path):
    assert measure(make_run(tmp_path, [1.0], etf_head=None))[0]["head"] == ""


def test_the_last_tenth_may_have_no_episode(tmp_path, capsys, collated):
    make_run(tmp_path / "runs", [1.0, 2.0], total_timesteps=40, seed=1)
    change_checkpoint(next((tmp_path / "runs").iterdir()), global_step=40)
    (row,) = collated()["runs"]
    assert (row["final"], row["last_tenth"]) == ("1.5", "")
    assert capsys.readouterr().out.splitlines()[-1].endswith("| 1 | 1.5 | – | 1.342 |")


def test_a_run_without_an_episode_is_named_and_has_no_measures(tmp_path, capsys, collated):
    make_run(tmp_path / "runs", [1.0] * 50, seed=1)
    empty = make_run(tmp_path / "runs", [], seed=2, greedy=[4.0])
    tables = collated()
    assert tables["runs"][1]["seed"] == "2" and tables["runs"][1]["greedy"] == "4"
    assert {tables["runs"][1][name] for name in MEASURES if name != "greedy"} == {""}
    assert {row["value"] for row in tables["curves"] if row["seed"] == "2"} == {""}
    assert states(tables["counts"]) == {(): [2, 2, 0, 0, 0]}
    captured = capsys.readouterr()
    assert captured.err == f"no episode ended: {empty}: has no measures\n"
    assert captured.out.splitlines()[2:] == ["| ppo_acpg | Env-v0 | linear | 1 | 1 | 1 | 1 |"]


# What is finished, unfinished, or damaged


def test_runs_that_stop_early_are_unfinished(tmp_path, capsys, collated):
    make_run(tmp_path / "runs", [1.0] * 50, seed=1)
    make_run(tmp_path / "runs", [1.0] * 50, seed=2, total_timesteps=501)
    (make_run(tmp_path / "runs", [1.0] * 50, seed=3) / "checkpoint.pt").unlink()
    stale = make_run(tmp_path / "runs", [1.0] * 50, seed=4, greedy=[1.0])
    (stale / "evaluation.csv").write_text("global_step,return,length\n400,1,10\n")
    tables = collated()
    assert [row["seed"] for row in tables["runs"]] == ["1"]
    counts = states(tables["counts"], "group", "script", "arm")
    assert counts == {
        ("ppo_acpg", "ppo_acpg", "linear"): [3, 1, 0, 0, 2],
        ("", "", "linear"): [1, 0, 0, 0, 1],  # no checkpoint tells its script
    }
    error = capsys.readouterr().err
    assert "stops at step 500 of 501" in error
    assert "no checkpoint" in error
    assert "evaluation.csv is of step 400, not 500" in error
    with pytest.raises(Unfinished):
        measure(stale)


def test_lost_episodes_are_damage(tmp_path, capsys, collated):
    """As after a power cut: the checkpoint has reached the disk, the last episodes have not."""
    make_run(tmp_path / "runs", [1.0] * 50)
    short = make_run(tmp_path / "runs", [1.0] * 50, seed=2) / "episodes.csv"
    short.write_text("\n".join(short.read_text().splitlines()[:-20]) + "\n")
    tables = collated()
    assert [row["seed"] for row in tables["runs"]] == ["1"]
    assert states(tables["counts"]) == {(): [2, 1, 0, 1, 0]}
    assert "bytes, but had" in capsys.readouterr().err


# Bad input: run 2 of two planned ones is damaged in each way, one at a time

WRONG = [None, [], {}, "", "x", -1, 7, 0.5, True, [["nested"]], 10**400]
WRONG += [float("inf"), float("nan")]
JSON_KEYS = {
    "args.json": ("env_id", "seed", "total_timesteps", "etf_head", "head_frame", "gamma"),
    "record.json": ("name", "arm", "seed", "flags", "outcome", "run_dir", "seconds", "versions"),
    "plan.json": ("baseline", "runs"),
}
CHECKPOINT_KEYS = ("script", "args", "global_step", "seconds", "collapse", "log_sizes")
ENTRY = ("name", "group", "script", "env_id", "seed", "flags")  # of plan.json's runs


def set_key(path: Path, key: str, value: object) -> None:
    change_json(path, **{key: value})


def drop_key(path: Path, key: str) -> None:
    entries = json.loads(path.read_text())
    del entries[key]
    path.write_text(json.dumps(entries))


def repeat_key(path: Path, key: str) -> None:
    path.write_text(path.read_text().rstrip().removesuffix("}") + f', "{key}": "other"}}')


def set_entry(path: Path, key: str, value: object) -> None:
    plan = json.loads(path.read_text())
    plan["runs"][1][key] = value
    path.write_text(json.dumps(plan))


def set_state(path: Path, key: str, value: object) -> None:
    change_checkpoint(path.parent, **{key: value})


def drop_state(path: Path, key: str) -> None:
    state = torch.load(path, weights_only=True)
    del state[key]
    torch.save(state, path)


def replace_by(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def cut(path: Path, part: float) -> None:
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])


def remove(path: Path) -> None:
    path.unlink()


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def save_class(path: Path) -> None:
    torch.save({"global_step": 1200, "collapse": Path("weights_only refuses this class")}, path)


def save_list(path: Path) -> None:
    torch.save([1, 2], path)


def unsized(path: Path) -> None:
    """The table's own check is to find what is wrong, and not its size."""
    change_checkpoint(path.parent, log_sizes={})


def set_cell(path: Path, column: str, text: str) -> None:
    unsized(path)
    header, *lines = path.read_text().splitlines()
    cells = lines[-1].split(",")
    cells[header.split(",").index(column)] = text
    path.write_text("\n".join([header, *lines[:-1], ",".join(cells)]) + "\n")


def change_lines(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    unsized(path)
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def rename_column(lines: list[str]) -> list[str]:
    return [lines[0].replace("return", "reward"), *lines[1:]]


def drop_column(lines: list[str]) -> list[str]:
    return [line.rpartition(",")[0] for line in lines]


def repeat_column(lines: list[str]) -> list[str]:
    return [f"{line},{line.rpartition(',')[2]}" for line in lines]


def swap_columns(lines: list[str]) -> list[str]:
    return [",".join(reversed(line.split(","))) for line in lines]


def cut_a_line(lines: list[str]) -> list[str]:
    return [*lines[:-1], lines[-1].rpartition(",")[0]]


def add_a_cell(lines: list[str]) -> list[str]:
    return [*lines[:-1], lines[-1] + ",1"]


def add_an_empty_line(lines: list[str]) -> list[str]:
    return [*lines, ""]


def repeat_the_header(lines: list[str]) -> list[str]:
    return [*lines, lines[0]]


def reverse(lines: list[str]) -> list[str]:
    return [lines[0], *reversed(lines[1:])]


LINES = (rename_column, drop_column, repeat_column, swap_columns, cut_a_line, add_a_cell)
LINES += (add_an_empty_line, repeat_the_header)


def mutations() -> list[tuple]:
    """File, what is done to it, and the arguments of that."""
    all_of_them = []
    for file in (*JSON_KEYS, "checkpoint.pt", "episodes.csv", "evaluation.csv"):
        for data in (b"", b"\0\xff\xfe", b"{", b"[1]", b"null", b"NaN", b"[" * 100_000):
            all_of_them.append((file, replace_by, data))
        all_of_them += [(file, cut, part) for part in (0.2, 0.5, 0.9, 0.99)]
        all_of_them += [(file, make_directory), (file, remove)]
    for file, keys in JSON_KEYS.items():
        for key in keys:
            all_of_them += [(file, set_key, key, value) for value in WRONG]
            all_of_them += [(file, drop_key, key), (file, repeat_key, key)]
    for key in ENTRY:
        all_of_them += [("plan.json", set_entry, key, value) for value in WRONG]
    all_of_them += [("plan.json", set_entry, "name", name) for name in ("..", "a/b", "\0")]
    all_of_them.append(("record.json", set_key, "run_dir", "../elsewhere"))
    for key in CHECKPOINT_KEYS:
        all_of_them += [("checkpoint.pt", set_state, key, value) for value in WRONG]
        all_of_them.append(("checkpoint.pt", drop_state, key))
    for entry in ({}, {"global_step": "x"}, {"global_step": 9, "feature_norm": None}):
        all_of_them.append(("checkpoint.pt", set_state, "collapse", [entry]))
    backwards = [{"global_step": 9.0}, {"global_step": 8.0}]
    all_of_them.append(("checkpoint.pt", set_state, "collapse", backwards))
    all_of_them += [("checkpoint.pt", save_class), ("checkpoint.pt", save_list)]
    for file in ("episodes.csv", "evaluation.csv"):
        all_of_them += [(file, change_lines, change) for change in LINES]
        for column in ("global_step", "return", "length"):
            wrong = ["", "x", "nan", "inf", "1e309", "1e200", "1;2", '"1"', "1_0", "0x1", "\0"]
            wrong += ["-1"] if column != "return" else []
            all_of_them += [(file, set_cell, column, text) for text in wrong]
    all_of_them.append(("episodes.csv", change_lines, reverse))
    all_of_them.append(("episodes.csv", set_cell, "global_step", "1201"))
    all_of_them.append(("episodes.csv", set_cell, "seconds", "1e50"))
    return all_of_them


def label(part: object) -> str:
    return getattr(part, "__name__", repr(part)[:16])


# what a file may say without anybody's being able to know better
VALID = {
    ("evaluation.csv", remove),
    ("checkpoint.pt", set_state, "collapse"),
    ("checkpoint.pt", drop_state, "collapse"),
}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> tuple[Path, list[dict[str, str]]]:
    """An experiment of two runs, and their rows of runs.csv."""
    root = tmp_path_factory.mktemp("experiment")
    history = [{"global_step": 600, "feature_norm": 2.0}, {"global_step": 1200, "self_duality": 1}]
    runs = []
    for seed in (1, 2):
        returns = np.arange(120) + seed
        common = {"arm": "etf", "env_id": "CartPole-v1", "collapse": history, "gamma": 0.9}
        runs.append(make_planned(root / "made", returns, seed=seed, greedy=[seed], **common))
    write_plan(root / "made", runs)
    main(Args(runs=root / "made", out=root / "out"))
    return root / "made", read(root / "out" / "runs.csv")


@pytest.mark.parametrize("mutation", mutations(), ids=lambda parts: "-".join(map(label, parts)))
def test_bad_input_is_named_and_harms_no_other_run(
    experiment, tmp_path, capsys, collated, mutation
):
    """No traceback; the run is as it was, or named and left out; the other is as it was."""
    made, rows = experiment
    shutil.copytree(made, tmp_path / "runs")
    file, change, *arguments = mutation
    folder = sorted((tmp_path / "runs" / "runs").iterdir())[1]
    places = {"plan.json": tmp_path / "runs", "record.json": folder}
    path = places.get(file, next(folder.glob("*__*"))) / file
    change(path, *arguments)

    tables = collated()
    error = capsys.readouterr().err
    by_seed = {row["seed"]: row for row in tables["runs"]}
    told = set(rows[0]) - {"run"}
    if file == "plan.json":  # the runs may be in no plan, or have another baseline
        told -= {"baseline"}
    if change is set_state and arguments[0] == "script":
        told -= {"script"}
    if mutation[:3] in VALID:
        told -= {*COLLAPSE, "greedy"}
    assert {key: by_seed["1"][key] for key in told} == {key: rows[0][key] for key in told}
    if "2" in by_seed:
        assert {key: by_seed["2"][key] for key in told} == {key: rows[1][key] for key in told}
    else:
        named = [str(path.parent), str(folder)]
        assert any(name in error for name in named) or not (folder / "record.json").exists()
    lines = error.splitlines()
    assert len(lines) <= 2
    kinds = ("damaged: ", "unfinished: ", "failed: ", "left out: ")
    assert all(line.startswith(kinds) and str(tmp_path) in line for line in lines)
    by_arm = states(tables["counts"], "group", "script", "env_id", "arm")
    total = np.sum([*by_arm.values()], axis=0)
    assert total[0] == sum(total[1:]) >= 2 and total[1] == len(by_seed)


@pytest.mark.parametrize(
    ("file", "change", "arguments", "reason"),
    [
        ("args.json", set_key, ("seed", 7), "seed: 7, but the run's planned says 2"),
        ("args.json", set_key, ("seed", True), "seed: Input should be a valid integer"),
        ("args.json", drop_key, ("env_id",), "env_id: Field required"),
        ("args.json", set_key, ("etf_head", False), "etf_head: False, but the run's flags says"),
        ("args.json", make_directory, (), "Is a directory"),
        ("record.json", set_key, ("arm", "x"), "arm: 'x', but the run's planned says 'etf'"),
        ("record.json", set_key, ("name", "x"), "is the record of x"),
        ("record.json", set_key, ("run_dir", "../x"), "'../x' cannot name a directory"),
        ("record.json", set_key, ("run_dir", None), "run_dir: null where a finished run has"),
        ("checkpoint.pt", save_list, (), "the file: Input should be a valid dictionary"),
        ("checkpoint.pt", save_class, (), "UnpicklingError: Weights only load failed"),
        ("checkpoint.pt", set_state, ("global_step", 0.5), "global_step: Input should be a valid"),
        ("episodes.csv", set_cell, ("return", "nan"), "a number is not finite, or beyond 1e+100"),
        ("episodes.csv", set_cell, ("return", "1e200"), "a number is not finite, or beyond 1e+100"),
        ("episodes.csv", set_cell, ("length", "-1"), "a length is negative"),
        ("episodes.csv", set_cell, ("seconds", "x"), "could not convert string 'x'"),
        ("episodes.csv", set_cell, ("seconds", "1e50"), "ends after the checkpoint"),
        ("episodes.csv", change_lines, (reverse,), "a global_step is smaller than the one before"),
        ("episodes.csv", change_lines, (add_an_empty_line,), "there is an empty line"),
        ("episodes.csv", change_lines, (repeat_column,), "the first line is not global_step,"),
        ("episodes.csv", cut, (0.5,), "the last line is cut off"),
        ("evaluation.csv", replace_by, (b"global_step,return,length\n",), "has no episode"),
        ("evaluation.csv", change_lines, (add_a_cell,), "the lines have 4 columns, the first 3"),
    ],
)
def test_what_is_said_of_damage(
    experiment, tmp_path, capsys, collated, file, change, arguments, reason
):
    """One line: the file and what is wrong with it."""
    shutil.copytree(experiment[0], tmp_path / "runs")
    folder = sorted((tmp_path / "runs" / "runs").iterdir())[1]
    path = folder / file if file == "record.json" else next(folder.glob("*__*")) / file
    change(path, *arguments)
    counts = states(collated()["counts"], "group", "script", "env_id", "arm")
    assert counts == {("ppo_acpg", "ppo_acpg", "CartPole-v1", "etf"): [2, 1, 0, 1, 0]}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("damaged: ") and str(path) in line and reason in line


def test_a_file_that_may_not_be_read_is_damaged(tmp_path, capsys, collated, monkeypatch):
    make_run(tmp_path / "runs", [1.0] * 50, seed=1)
    locked = make_run(tmp_path / "runs", [1.0] * 50, seed=2) / "episodes.csv"
    read_text = Path.read_text

    def guarded(path: Path, *args, **kwargs) -> str:
        if path == locked:  # as the tests may run as root, whom no mode stops
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", guarded)
    assert states(collated()["counts"]) == {(): [2, 1, 0, 1, 0]}
    assert capsys.readouterr().err == f"damaged: [Errno 13] Permission denied: '{locked}'\n"


# Plans, arms, and whose run is whose


def test_arms_are_as_planned(tmp_path, collated):
    """Of a run in no plan the group is its script, the arm its head, the baseline the learned
    one."""
    plan = [
        make_planned(
            tmp_path / "runs", [1.0], group="arms", arm="mine", script="my_ppo", head="etf"
        ),
        make_planned(tmp_path / "runs", [1.0], group="arms", arm="ppo", head="linear"),
    ]
    write_plan(tmp_path / "runs", plan, "ppo")
    make_run(tmp_path / "runs" / "other", [1.0], head="etf", seed=3)
    columns = ("group", "script", "arm", "baseline", "head")
    rows = collated()["runs"]
    assert all((tmp_path / "runs" / row["run"] / "episodes.csv").exists() for row in rows)
    assert sorted(tuple(row[key] for key in columns) for row in rows) == [
        ("arms", "my_ppo", "mine", "ppo", "etf"),
        ("arms", "ppo_acpg", "ppo", "ppo", "linear"),
        ("ppo_acpg", "ppo_acpg", "etf", "linear", "etf"),
    ]


def test_counts_follow_the_plan(tmp_path, capsys, collated):
    """Be a run finished, running, failed, damaged, or not begun."""
    root = tmp_path / "runs"
    common = {"env_id": "benchmark.envs:MinAtar/Breakout-v1"}
    plan = [
        make_planned(root, [1.0], arm="linear", seed=1, **common),
        make_planned(root, [1.0], arm="linear", seed=2, **common),
        make_planned(root, [1.0], arm="linear", seed=3, outcome="running", **common),
        make_planned(
            root, arm="etf:4", seed=1, outcome="failed", record={"reason": "exit code 3"}, **common
        ),
        make_planned(root, [1.0], arm="etf:4", seed=2, **common),
        make_planned(root, [1.0], arm="etf:4", seed=3, outcome=None, **common),
    ]
    write_plan(root, plan)
    next((root / "runs" / plan[1].name).glob("*/args.json")).write_text("{")
    counts = collated()["counts"]
    assert states(counts, "group", "script", "arm") == {
        ("ppo_acpg", "ppo_acpg", "linear"): [3, 1, 0, 1, 1],
        ("ppo_acpg", "ppo_acpg", "etf:4"): [3, 1, 1, 0, 1],
    }
    assert {row["env_id"] for row in counts} == {common["env_id"]}
    error = capsys.readouterr().err
    assert f"failed: {root / 'runs' / plan[3].name}: exit code 3\n" in error
    assert f"unfinished: {root / 'runs' / plan[2].name}: running\n" in error
    assert plan[5].name not in error


def test_runs_below_a_damaged_plan_are_in_no_plan(tmp_path, capsys, collated):
    common = {"group": "arms", "arm": "mine", "head": "linear"}
    plan = [make_planned(tmp_path / "runs", [1.0], seed=1, **common)]
    plan.append(make_planned(tmp_path / "runs", seed=2, outcome=None, **common))
    path = write_plan(tmp_path / "runs", [*plan, plan[0]])
    tables = collated()
    assert [row["arm"] for row in tables["runs"]] == ["linear"]
    assert states(tables["counts"], "group", "arm") == {("ppo_acpg", "linear"): [1, 1, 0, 0, 0]}
    assert capsys.readouterr().err == f"damaged: {path}: two runs are named {plan[0].name}\n"


@pytest.mark.parametrize("outcome", ["failed", "running"])
def test_a_record_tells_of_a_run_in_no_plan_too(tmp_path, capsys, collated, outcome):
    make_planned(tmp_path / "runs", [1.0], outcome=outcome)
    make_run(tmp_path / "runs" / "other", [1.0])
    expected = [2, 1, 1, 0, 0] if outcome == "failed" else [2, 1, 0, 0, 1]
    assert states(collated()["counts"]) == {(): expected}


def test_of_a_planned_run_s_directories_the_recorded_one_counts(tmp_path, capsys, collated):
    planned = make_planned(tmp_path / "runs", [1.0])
    write_plan(tmp_path / "runs", [planned])
    folder = tmp_path / "runs" / "runs" / planned.name
    other = make_run(folder, [2.0], seed=2)
    tables = collated()
    assert [row["final"] for row in tables["runs"]] == ["1"]
    assert states(tables["counts"]) == {(): [1, 1, 0, 0, 0]}
    assert capsys.readouterr().err == (
        f"left out: {other}: {folder / 'record.json'} names another\n"
    )


def test_plans_at_any_depth_count(tmp_path, collated):
    """An experiment in another's folder, in which the same run is planned with other flags."""
    for folder, std in (("runs", 0.01), ("runs/std", 2.0)):
        write_plan(tmp_path / folder, [make_planned(tmp_path / folder, [1.0], head_std=std)])
    tables = collated()
    assert states(tables["counts"]) == {(): [2, 2, 0, 0, 0]}
    assert [row["head_std"] for row in tables["runs"]] == ["0.01", "2.0"]
    for folder in ("runs/runs", "runs/std", "runs/std/runs"):  # not the other's
        main(Args(runs=tmp_path / folder, out=tmp_path / "out"))
        assert states(read(tmp_path / "out" / "counts.csv")) == {(): [1, 1, 0, 0, 0]}


def test_runs_outside_the_plan_count_by_themselves(tmp_path, collated):
    """Also copies of planned ones."""
    planned = make_planned(tmp_path / "runs", [1.0])
    write_plan(tmp_path / "runs", [planned, make_planned(tmp_path / "runs", seed=2, outcome=None)])
    make_run(tmp_path / "runs" / "other", [1.0], head="etf")
    shutil.copytree(tmp_path / "runs" / "runs" / planned.name, tmp_path / "runs" / planned.name)
    assert states(collated()["counts"], "arm") == {
        ("linear",): [3, 2, 0, 0, 1],
        ("etf",): [1, 1, 0, 0, 0],
    }


def test_a_plan_without_runs_makes_empty_tables(tmp_path, collated):
    write_plan(tmp_path / "runs", [make_planned(tmp_path / "runs", outcome=None)])
    tables = collated()
    assert tables["runs"] == tables["curves"] == tables["episodes"] == []
    assert states(tables["counts"]) == {(): [1, 0, 0, 0, 1]}


@pytest.mark.parametrize("planned", [True, False])
def test_facts_come_from_the_files_and_not_from_names(tmp_path, capsys, collated, planned):
    """An environment's id may hold what separates the parts of a name, and a name may lie; in
    runs.csv as in counts.csv, be a run finished, unfinished or damaged."""
    plan = []
    for seed in (1, 2, 3):
        common = {"arm": "etf", "env_id": "toy:My__Env-v0", "seed": seed}
        plan.append(make_planned(tmp_path / "runs", [1.0] * 50, **common))
        folder = tmp_path / "runs" / "runs" / plan[-1].name
        renamed = next(folder.glob("*__*")).rename(folder / "A__b__c__9__0")
        change_json(folder / "record.json", run_dir=renamed.name)
        if seed == 2:
            change_json(renamed / "args.json", total_timesteps=501)
        if seed == 3:
            (renamed / "episodes.csv").unlink()
    if planned:
        write_plan(tmp_path / "runs", plan)
    tables = collated()
    keys = ("group", "script", "env_id", "arm")
    arm = ("ppo_acpg", "ppo_acpg", "toy:My__Env-v0", "etf")
    assert [tuple(row[key] for key in keys) for row in tables["runs"]] == [arm]
    assert states(tables["counts"], *keys) == {arm: [3, 1, 0, 1, 1]}


def test_a_run_s_script_is_its_checkpoint_s(tmp_path, capsys, collated):
    make_run(tmp_path / "runs", [1.0], script="my_acpg").rename(tmp_path / "runs" / "mine")
    nameless = make_run(tmp_path / "runs", [1.0])
    change_checkpoint(nameless, script=None)
    assert [(row["run"], row["script"]) for row in collated()["runs"]] == [("mine", "my_acpg")]
    assert capsys.readouterr().err == (
        f"damaged: {nameless / 'checkpoint.pt'}: script: does not tell the program's name\n"
    )


def test_a_peer_s_run_needs_no_checkpoint_of_ours(tmp_path):
    """It says in args.json what it is."""
    run = make_run(tmp_path, [1.0] * 50, script="x")
    (run / "checkpoint.pt").write_bytes(b"Stable-Baselines3's own")
    change_json(run / "args.json", script="sb3-a2c")
    row, _, _ = measure(run)
    assert (row["script"], row["head"], row["final"]) == ("sb3-a2c", "linear", "1")
    (run / "checkpoint.pt").unlink()
    with pytest.raises(Unfinished):
        measure(run)


# Flags


def test_flags_that_a_head_ignores_are_empty(tmp_path, collated):
    make_run(tmp_path / "runs", [1.0], etf_scale=2.0, head_std=0.5)
    make_run(tmp_path / "runs", [1.0], head="etf", etf_scale=4.0, head_std=0.5)
    make_run(tmp_path / "runs", [1.0], head="etf", seed=2, etf_scale=1.0, head_std=0.5)
    assert [(row["head"], row["etf_scale"]) for row in collated()["runs"]] == [
        ("etf", "4.0"),
        ("etf", "1.0"),
        ("linear", ""),
    ]


def test_a_flag_named_as_a_column_stands_beside_it(tmp_path, collated):
    """As reinforce_acpg's --baseline and every script's --feature-norm."""
    for seed, baseline, norm in ((1, "none", 0.0), (2, "value", 3.0)):
        history = [{"global_step": 10, "feature_norm": 9.0}]
        flags = {"baseline": baseline, "feature_norm": norm, "collapse": history}
        make_run(tmp_path / "runs", [1.0], seed=seed, **flags)
    columns = ("baseline", "--baseline", "feature_norm", "--feature_norm")
    assert [tuple(row[key] for key in columns) for row in collated()["runs"]] == [
        ("linear", "none", "9", "0.0"),
        ("linear", "value", "9", "3.0"),
    ]


def test_groups_differ_in_more_than_the_seed(tmp_path, capsys, collated):
    """The table on stdout shows the flags in which runs of one arm differ."""
    for seed, gamma, value in ((1, 0.9, 2.0), (2, 0.9, 4.0), (1, 0.5, 7.0)):
        folder = tmp_path / "runs" / f"{seed}-{gamma}"
        make_run(folder, [value] * 50, seed=seed, gamma=gamma, runs_dir=str(folder))
    make_run(tmp_path / "runs", [5.0] * 50, script="a2c_acpg", gamma=0.9, num_envs=8)
    make_run(tmp_path / "runs", [5.0] * 50, script="trpo_acpg", gamma=0.9, num_envs=4)
    assert varying(collated()["runs"]) == ["gamma", "num_envs"]
    assert capsys.readouterr().out.splitlines() == [
        "| group | env_id | arm | gamma | seeds | final | last_tenth | area |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| a2c_acpg | Env-v0 | linear | 0.9 | 1 | 5 | 5 | 5 |",
        "| ppo_acpg | Env-v0 | linear | 0.5 | 1 | 7 | 7 | 7 |",
        "| ppo_acpg | Env-v0 | linear | 0.9 | 2 | 3 ± 1.4 | 3 ± 1.4 | 3 ± 1.4 |",
        "| trpo_acpg | Env-v0 | linear | 0.9 | 1 | 5 | 5 | 5 |",
    ]


def test_an_experiment_s_name_tells_runs_apart_only_if_it_was_given(tmp_path, collated):
    for script in ("ppo_acpg", "a2c_acpg"):
        make_run(tmp_path / "runs", [1.0], script=script, exp_name=script)
    assert "exp_name" not in collated()["runs"][0]
    make_run(tmp_path / "runs", [1.0], seed=2, exp_name="wider")
    assert sorted(row["exp_name"] for row in collated()["runs"]) == ["", "", "wider"]


@pytest.mark.parametrize("name", ["a,b", 'a"b', "a|b", "a\nb", os.fsdecode(b"a\xff")], ids=ascii)
def test_names_may_hold_any_character(tmp_path, capsys, collated, name):
    planned = make_planned(tmp_path / "runs", [1.0, 2.0], arm="a|b,c\nd", head="etf")
    write_plan(tmp_path / "runs", [planned])
    peer = make_run(tmp_path / "runs" / name, [3.0], env_id="E|v")
    change_json(peer / "args.json", script="peer")
    tables = collated()
    arms = [(row["arm"], row["final"]) for row in tables["runs"]]
    assert sorted(arms) == [("a|b,c\nd", "1.5"), ("linear", "3")]
    names = {row["run"] for row in tables["runs"]}
    assert len(names) == 2
    assert {row["run"] for row in tables["episodes"]} == names
    assert any(run.startswith(name.replace("\udcff", r"\udcff")) for run in names)
    assert r"| E\|v |" in capsys.readouterr().out


# The tables


def test_provenance_of_the_planned_runs(tmp_path, collated):
    """Two runs of one commit, of which one was started twice, and one of another, which failed; a
    fourth has not begun."""
    common = {
        "machine": "secret-host, x86_64, 2 CPUs, Linux",
        "versions": {"python": "3.11.2", "torch": "2.13.0"},
    }
    started = [
        ("a", 1, 1800, "finished", "2026-09"),
        ("a", 2, 2700, "finished", "2026-08"),
        ("b", 2, 36, "failed", "2026-07"),
    ]
    plan = [make_planned(tmp_path / "runs", seed=9, outcome=None)]
    for seed, (commit, attempts, seconds, outcome, start) in enumerate(started):
        record = {"commit": commit, "attempts": attempts, "seconds": seconds, "started": start}
        options = {"outcome": outcome, "record": common | record}
        plan.append(make_planned(tmp_path / "runs", [1.0], seed=seed, **options))
    write_plan(tmp_path / "runs", plan)
    place = ["x86_64, 2 CPUs", "python 3.11.2, torch 2.13.0"]
    assert [list(row.values()) for row in collated()["provenance"]] == [
        ["a", *place, "2", "1", "2026-08", "2026-09", "1.25"],
        ["b", *place, "1", "1", "2026-07", "2026-07", "0.01"],
    ]


def test_all_episodes_are_kept_and_the_same_runs_make_the_same_bytes(tmp_path, collated):
    for seed, returns in ((1, [1.5, 2.5]), (2, [-3.0])):
        make_run(tmp_path / "runs" / str(seed), returns, seed=seed)
    episodes = collated()["episodes"]
    assert [(row["run"][0], row["global_step"], row["return"]) for row in episodes] == [
        ("1", "10", "1.5"),
        ("1", "20", "2.5"),
        ("2", "10", "-3.0"),
    ]
    before = contents(tmp_path / "out")
    assert before["episodes.csv.gz"][3:8] == bytes(5)  # neither flags, such as for a name, nor time
    collated()
    assert contents(tmp_path / "out") == before


def test_many_runs_take_little_memory(tmp_path):
    """Of a run with 2,000 episodes, which are 64 kB, less than 12 kB are kept."""
    random = np.random.default_rng(0)
    peaks = []
    for seed in range(100):
        returns = random.normal(size=2000).round(3)
        make_run(tmp_path / "runs" / str(seed // 50), returns, seed=seed)
    for runs in ("runs/0", "runs"):
        tracemalloc.start()
        main(Args(runs=tmp_path / runs, out=tmp_path / "out"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 50 * 12_000


# What cannot work


@pytest.mark.parametrize("runs", ["missing", "empty", "file"])
def test_no_runs_are_one_line_of_error(tmp_path, capsys, runs):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as exit:
        main(Args(runs=tmp_path / runs, out=tmp_path / "out"))
    assert exit.value.code == 2 and not (tmp_path / "out").exists()
    assert capsys.readouterr().err == f"error: --runs {tmp_path / runs}: holds no run\n"


def test_a_damaged_plan_alone_leaves_the_old_tables(tmp_path, capsys, collated):
    plan = write_plan(tmp_path / "runs", [make_planned(tmp_path / "runs", outcome=None)])
    collated()
    before = contents(tmp_path / "out")
    plan.write_text("{")
    with pytest.raises(SystemExit) as exit:
        collated()
    assert exit.value.code == 2 and contents(tmp_path / "out") == before
    damaged, error = capsys.readouterr().err.splitlines()
    assert damaged.startswith(f"damaged: {plan}: ")
    assert error == f"error: --runs {tmp_path / 'runs'}: holds no run that can be read"


def make_file(out: Path) -> None:
    out.write_text("a file")


def make_parent_file(out: Path) -> None:
    out.parent.write_text("a file")


def make_table_directory(out: Path) -> None:
    (out / "runs.csv").mkdir(parents=True)


@pytest.mark.parametrize("block", [make_file, make_parent_file, make_table_directory])
def test_an_out_that_cannot_be_written_to_is_refused_before_any_work(
    tmp_path, capsys, monkeypatch, block
):
    make_run(tmp_path / "runs", [1.0])
    out = tmp_path / "parent" / "out" if block is make_parent_file else tmp_path / "out"
    block(out)
    monkeypatch.setattr("benchmark.collate.collate", None)  # calling it would raise
    with pytest.raises(SystemExit) as exit:
        main(Args(runs=tmp_path / "runs", out=out))
    assert exit.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --out {out}: ")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_an_interrupt_leaves_the_old_tables(
    tmp_path, collated, monkeypatch, capsys, error
):
    make_run(tmp_path / "runs", [1.0])
    collated()
    before = contents(tmp_path / "out")
    make_run(tmp_path / "runs", [2.0], seed=2)

    def stop(*args) -> None:
        raise error

    monkeypatch.setattr("benchmark.collate.write_curves", stop)  # after runs.csv
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        collated()
    assert contents(tmp_path / "out") == before
    if isinstance(error, OSError):
        assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_nobody_need_read_what_is_said(tmp_path, stream):
    """As in `python -m benchmark.collate ... | head -1`."""
    make_run(tmp_path / "runs", [1.0])
    (make_run(tmp_path / "runs", [1.0], seed=2) / "args.json").write_text("")
    command = [sys.executable, "-m", "benchmark.collate"]
    command += ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    reader, writer = os.pipe()
    os.close(reader)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writer}
    result = subprocess.run(command, **pipes)
    os.close(writer)
    assert result.returncode == 0 and len(read_all(tmp_path / "out")["runs"]) == 1
    assert b"Error" not in (result.stderr or b"")


# Thresholds


@pytest.mark.parametrize(
    ("env_id", "known", "solved"),
    [
        ("CartPole-v1", "CartPole-v1", 475),
        ("mypkg:CartPole-v1", "CartPole-v1", 475),
        ("benchmark.envs:envpool/Acrobot-v1", "Acrobot-v1", -100),
        ("benchmark.envs:envpool/LunarLander-v3", "LunarLander-v3", 200),
        ("benchmark.envs:IdealCliffWalking-v0", "IdealCliffWalking-v0", -1),
        ("benchmark.envs:MinAtar/Breakout-v1", "MinAtar/Breakout-v1", None),
        ("benchmark.envs:Atari/Breakout-v5", "Breakout-v5", None),
        ("ALE/Breakout-v5", "Breakout-v5", None),
        ("nobody.knows:This-v0", "This-v0", None),
        ("nobody.knows:ns/This__or__that-v0", "ns/This__or__that-v0", None),
    ],
)
def test_thresholds(env_id, known, solved):
    assert (plain_id(env_id), threshold(env_id)) == (known, solved)


@pytest.mark.parametrize("env_id", ["CartPole-v99", "a b", ":", "/", "ns/", "x:y:z", "\0", "é-v1"])
def test_nobody_says_when_what_is_no_environment_is_solved(env_id):
    assert threshold(env_id) is None and normalised(env_id, 1.0) is None


def test_every_reference_has_a_source_and_stands_below_what_is_good():
    for name, row in table().items():
        for key in ("threshold", "random", "best"):
            assert bool(row[key]) == bool(row[f"{key}_source"])
        if normalised(name, 0.0) is not None:
            good = float(row["best"]) if row["best"] else threshold(name)
            assert normalised(name, float(row["random"])) == 0 and normalised(name, good) == 1
            assert good > float(row["random"])


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--env-ids", "Nobody-v0"], "error: --env-ids Nobody-v0: "),
        (["--env-ids", "CartPole-v1", "--episodes", "1"], "error: --episodes 1: "),
    ],
)
def test_what_cannot_be_measured_is_one_line_of_error(flags, named):
    command = [sys.executable, "-m", "benchmark.reporting.thresholds", *flags]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith(named) and result.stderr.count("\n") == 1


def test_the_random_policy_is_measured_as_the_table_says():
    expected = float(table()["CartPole-v1"]["random"])
    returns = random_returns("CartPole-v1", 200)
    assert abs(returns.mean() - expected) < 4 * returns.std() / 200**0.5
    assert (random_returns("CartPole-v1", 3) == returns[:3]).all()
