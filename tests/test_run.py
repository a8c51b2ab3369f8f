"""benchmark/run.py: the plan, what it refuses, failures, and SIGKILL at any moment. Most runs are tests/stand_in.py's."""

import csv
import errno
import itertools
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmark import run
from benchmark.runner import execute

ROOT = Path(__file__).parents[1]
# Stand-ins leave nothing that could be reported on.
WITHOUT_REPORT = (
    "import tyro; from benchmark import run; run.report = print; run.main(tyro.cli(run.Args))"
)
OUT = Path("out")


def use_stand_ins(monkeypatch, tmp_path) -> None:
    """Make tmp_path the working directory, with stand-ins as scripts and two slots for them; report on nothing."""
    for script in ("ppo_acpg", "a2c_acpg"):
        shutil.copy(ROOT / "tests/stand_in.py", tmp_path / f"{script}.py")
    for slot in ("slot1", "slot2"):
        (tmp_path / slot).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "report", lambda out: None)


@pytest.fixture
def stand_ins(monkeypatch, tmp_path):
    use_stand_ins(monkeypatch, tmp_path)


def start(*flags: object) -> subprocess.Popen:
    """Start benchmark.run on stand-ins in the working directory."""
    words = [sys.executable, "-c", WITHOUT_REPORT, "--out", str(OUT), *map(str, flags)]
    return subprocess.Popen(
        words, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    )


def wait_until(condition) -> None:
    """Return as soon as the condition holds; fail after a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run_all(**flags: object) -> int:
    """The exit code of benchmark.run in this process."""
    try:
        run.main(run.Args(**{"out": OUT, "total_timesteps": 1000} | flags))
    except SystemExit as exit:
        return exit.code
    return 0


def is_free(lock: Path) -> bool:
    """Whether nobody executes the run of this lock."""
    with open(lock, "w") as file:
        return execute.lock(file)


def records(out: Path = OUT) -> dict[str, dict]:
    return {
        path.parent.name: json.loads(path.read_text())
        for path in sorted(out.glob("runs/*/record.json"))
    }


def episodes(name: str, out: Path = OUT) -> list[tuple[str, ...]]:
    """All but the seconds of the one directory that a run's script may have left."""
    (path,) = (out / "runs" / name).glob("*/episodes.csv")
    with open(path) as file:
        return [
            tuple(row[key] for key in ("global_step", "return", "length"))
            for row in csv.DictReader(file)
        ]


def test_a_plan_is_brought_to_its_end_once(stand_ins, capfd):
    plan = {
        "scripts": ("ppo_acpg", "a2c_acpg"),
        "heads": ("linear", "random-trainable"),
        "num_seeds": 2,
        "start_seed": 5,
    }
    assert run_all(**plan) == 0
    first = records()
    names = {
        f"CartPole-v1__{script}__{head}__{seed}"
        for script, head, seed in itertools.product(plan["scripts"], plan["heads"], (5, 6))
    }
    assert (
        first.keys()
        == names
        == {entry["name"] for entry in json.loads((OUT / "plan.json").read_text())["runs"]}
    )
    for name, record in first.items():
        assert (record["outcome"], record["attempts"], record["exit_code"]) == ("finished", 1, 0)
        assert (
            {"python", "torch", "gymnasium"} <= record["versions"].keys()
            and record["machine"]
            and record["started"]
        )
        assert [int(step) for step, *_ in episodes(name)] == [*range(10, 1001, 10)]
        assert shlex.join(record["command"]) in (OUT / "runs" / name / "log.txt").read_text()
        flags = ["--etf-head", "--head-frame", "random", "--head-trainable"]
        assert [flag for flag in record["command"] if flag in flags] == (
            flags if "random" in name else []
        )
    assert "8 of 8 done, 0 running, 0 failed" in capfd.readouterr().err
    assert run_all(**plan) == 0 and records() == first
    assert run_all(**plan | {"num_seeds": 3}) == 0
    assert len(records()) == 12 and first.items() <= records().items()


def test_the_commit_is_recorded(monkeypatch):
    monkeypatch.chdir(ROOT)
    execute.surroundings.cache_clear()
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    assert execute.surroundings()["commit"].removesuffix("-dirty") == head
    execute.surroundings.cache_clear()


def test_all_that_is_wrong_is_named_at_once(stand_ins, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    before = sorted(tmp_path.iterdir())
    wrong = {
        "scripts": ("ppo_acpg", "sarsa", "../stand_in"),
        "heads": ("etf", "simplex"),
        "env_ids": (
            "CartPol-v1",
            "nomodule:X-v0",
            "benchmark.envs:MinAtar/Brekout-v1",
            "CartPole-v1",
        ),
        "flags": ("ppo_acpg --seed 3 --no_etf_head --runs-dir=/", "dqn --gamma 1", "all 'x", ""),
        "num_seeds": 0,
        "workers": -1,
        "cluster": "slurm",
        "partition": "a\ntouch pwned",
    }
    assert run_all(**wrong) == 2
    lines = capsys.readouterr().err.splitlines()
    for expected in (
        "--scripts sarsa: is none of a2c_acpg, ppo_acpg in this directory",
        "--scripts ../stand_in: is none of",
        "--heads simplex: is none of linear, etf, random,",
        "--env-ids CartPol-v1: Environment `CartPol` doesn't exist. Did you mean: `CartPole`? (ppo_acpg)",
        "--env-ids nomodule:X-v0: No module named 'nomodule'",
        "--env-ids benchmark.envs:MinAtar/Brekout-v1: Environment `Brekout` doesn't exist",
        "--seed is for benchmark.run to set",
        "--etf-head is for benchmark.run to set",
        "--runs-dir is for benchmark.run to set",
        "--flags dqn --gamma 1: must begin with all or with one of",
        "--flags all 'x: No closing quotation",
        "--flags : ",
        "--num-seeds 0: must be at least 1",
        "--workers -1: must be at least 1",
        "--cluster slurm: there is no sbatch on the PATH",
        "--partition a touch pwned: must not have a line break",
    ):
        assert sum(expected in line and line.startswith("error: --") for line in lines) == 1, (
            expected
        )
    assert len(lines) == 16
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_to_run_is_refused(stand_ins, capsys):
    assert run_all(env_ids=(), heads=()) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: --env-ids: names none",
        "error: --heads: names none",
    ]


def test_atari_games_are_looked_up_where_their_backend_has_them():
    games = ("Breakout-v5", "ALE/Breakout-v5", "CartPole-v1")
    for flags, known in {
        "": games[0],
        "--backend ale": games[1],
        "--backend=ale": games[1],
    }.items():
        assert [
            game
            for game in games
            if not run.unknown_environment("ppo_atari_acpg", game, flags.split())
        ] == [known]


def test_a_dry_run_prints_lines_for_a_shell_and_writes_nothing(stand_ins, capsys, tmp_path):
    before = sorted(tmp_path.iterdir())
    assert run_all(dry_run=True, flags=("all --track-name '$(touch pwned); x'",), num_seeds=1) == 0
    output = capsys.readouterr()
    plain, etf = map(shlex.split, output.out.splitlines())
    flags = [
        "--env-id",
        "CartPole-v1",
        "--seed",
        "1",
        "--total-timesteps",
        "1000",
        "--track-name",
        "$(touch pwned); x",
    ]
    assert plain == [
        sys.executable,
        "ppo_acpg.py",
        *flags,
        "--runs-dir",
        "out/runs/CartPole-v1__ppo_acpg__linear__1",
    ]
    assert set(etf) - set(plain) == {"--etf-head", "out/runs/CartPole-v1__ppo_acpg__etf__1"}
    assert "2 runs in out, 0 of them finished, 2 at a time" in output.err
    assert sorted(tmp_path.iterdir()) == before


def test_names_stay_below_out_and_apart(stand_ins):
    ids = (
        "benchmark.envs:MinAtar/Breakout-v1",
        "benchmark.envs:IdealCliffWalking-v0",
        "CartPole-v1",
    )
    names = {
        entry.name for entry in run.planned(run.Args(env_ids=ids, num_seeds=1, heads=("etf",)))
    }
    assert len(names) == 3 and not any(
        set(name) & set("/:\\ ") or name.startswith(".") for name in names
    )
    assert run.quote("../a", safe="") == "..%2Fa" and run.quote("a:b", safe="") != run.quote(
        "a/b", safe=""
    )


def test_a_failing_run_is_retried_once_and_reported(stand_ins, capfd):
    Path("crashes").write_text("1\n2\n2\n2\n")
    assert run_all(heads=("linear",)) == 1
    one, two, three = records().values()
    assert (one["outcome"], one["attempts"]) == ("finished", 2) and (
        three["outcome"],
        three["attempts"],
    ) == ("finished", 1)
    assert (two["outcome"], two["attempts"], two["exit_code"]) == ("failed", 2, 3)
    errors = capfd.readouterr().err
    assert (
        "__2 (exit code 3); the end of out/runs/CartPole-v1__ppo_acpg__linear__2/log.txt:" in errors
    )
    assert (
        "    Traceback: this seed crashes" in errors
        and "1 of 3 runs failed: CartPole-v1__ppo_acpg__linear__2" in errors
    )
    assert run_all(heads=("linear",)) == 0 and records()[two["name"]]["attempts"] == 4
    for name in records():
        assert [int(step) for step, *_ in episodes(name)] == [*range(10, 1001, 10)]


def test_a_run_goes_on_in_its_environment(tmp_path):
    """Its id is repeated, as a script imports an environment's module only if the command line names it."""
    (entry,) = run.planned(
        run.Args(env_ids=("benchmark.envs:IdealCliffWalking-v0",), heads=("etf",), num_seeds=1)
    )
    assert execute.next_command(tmp_path, entry) == execute.command(tmp_path, entry)
    checkpoint = tmp_path / "runs" / entry.name / "a" / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    flags = ["--resume", str(checkpoint), "--env-id", "benchmark.envs:IdealCliffWalking-v0"]
    assert execute.next_command(tmp_path, entry) == [sys.executable, "ppo_acpg.py", *flags]


def test_wrong_flags_are_not_tried_twice(stand_ins, capfd):
    assert run_all(heads=("linear",), num_seeds=1, flags=("all --no-such-flag",)) == 1
    (record,) = records().values()
    assert (record["outcome"], record["attempts"], record["exit_code"]) == ("failed", 1, 2)
    assert "unrecognized arguments: --no-such-flag" in capfd.readouterr().err


def test_another_experiment_is_refused(stand_ins, capsys):
    assert run_all(num_seeds=1) == 0
    plan = (OUT / "plan.json").read_text()
    assert run_all(num_seeds=1, total_timesteps=500) == 2
    line = "error: --out out: holds another experiment, ppo_acpg on CartPole-v1 with `--total-timesteps 1000` instead of `"
    assert line in capsys.readouterr().err
    assert (OUT / "plan.json").read_text() == plan
    assert run_all(num_seeds=1, total_timesteps=500, env_ids=("Acrobot-v1",)) == 0
    assert len(json.loads((OUT / "plan.json").read_text())["runs"]) == 4


@pytest.mark.parametrize("damage", ['{"runs": [{"name": 1}]}', '{"runs"', "[]"])
def test_a_damaged_plan_is_named(stand_ins, capsys, damage):
    OUT.mkdir()
    (OUT / "plan.json").write_text(damage)
    assert run_all() == 2
    assert "error: --out out: its plan.json is damaged" in capsys.readouterr().err


def test_an_unwritable_out_is_one_line(stand_ins, capsys):
    OUT.touch()
    assert run_all() == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith("error: --out out: [Errno 20] Not a directory")
    )


def test_a_full_disk_is_one_line_and_loses_nothing(stand_ins, capsys, monkeypatch):
    """The disk fills up when the first run's end is to be recorded."""

    files = iter(("plan.json", "record.json", "record.json at the end"))

    def fsync(descriptor):
        if "end" in next(files):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fsync)
        assert run_all(workers=1, num_seeds=1) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "error: --out out: [Errno 28] No space left on device"
    )
    (record,) = records().values()
    assert record["outcome"] == "running"
    assert run_all(workers=1, num_seeds=1) == 0
    assert {record["outcome"] for record in records().values()} == {"finished"}


def test_a_damaged_record_is_not_taken_for_finished(stand_ins):
    assert run_all(num_seeds=1) == 0
    (OUT / "runs/CartPole-v1__ppo_acpg__etf__1/record.json").write_text('{"outcome": "fini')
    assert run_all(num_seeds=1) == 0
    assert {record["outcome"] for record in records().values()} == {"finished"}


def test_a_run_that_somebody_else_executes_is_waited_for(stand_ins):
    (entry,) = run.planned(run.Args(heads=("etf",), num_seeds=1, total_timesteps=1000))
    folder = OUT / "runs" / entry.name
    folder.mkdir(parents=True)
    steps = execute.execute(OUT, entry)
    with open(folder / "lock", "w") as other:
        assert execute.lock(other)
        assert next(steps) is None and not (folder / "record.json").exists()
    assert next(steps) is None and records()[entry.name]["outcome"] == "running"
    assert not is_free(folder / "lock")
    for _ in steps:
        time.sleep(0.01)
    assert records()[entry.name]["outcome"] == "finished"


def test_a_second_runner_is_refused_and_ctrl_c_stops_the_scripts(stand_ins):
    Path("pause").write_text("0.1")
    flags = ("--total-timesteps", 1000)
    runner = start(*flags)
    wait_until(lambda: len(list(OUT.glob("runs/*/*/checkpoint.pt"))) == 2)
    second = start(*flags)
    assert (
        second.communicate()[1].splitlines()[-1]
        == "error: --out out: another benchmark.run is at work there"
    )
    assert second.returncode == 2
    runner.send_signal(signal.SIGINT)
    errors = runner.communicate()[1]
    assert runner.returncode == 130 and errors.endswith(
        "stopped; the same command goes on in out\n"
    )
    assert all(is_free(path) for path in OUT.glob("runs/*/lock"))
    assert {record["outcome"] for record in records().values()} == {"running"}
    Path("pause").unlink()
    assert run_all() == 0
    assert [record["attempts"] for record in records().values()].count(2) == 2


def test_the_scripts_of_a_killed_runner_die(stand_ins):
    Path("pause").write_text("0.1")
    runner = start("--total-timesteps", 1000)
    wait_until(lambda: len(list(OUT.glob("runs/*/*/checkpoint.pt"))) == 2)
    Path("longer").write_text("600")
    os.replace("longer", "pause")
    time.sleep(0.2)  # now they would live for hours
    runner.kill()
    runner.communicate()
    wait_until(lambda: all(is_free(path) for path in OUT.glob("runs/*/lock")))


def test_the_status_is_the_last_line_of_the_log(stand_ins):
    (entry,) = run.planned(run.Args(heads=("etf",), num_seeds=1))
    assert run.status(OUT, entry) == (0.0, "starting")
    (OUT / "runs" / entry.name).mkdir(parents=True)
    lines = [
        f"step {step}/1000: return {step / 10} (last 9 episodes), 77 steps/s"
        for step in range(0, 751, 5)
    ]
    (OUT / "runs" / entry.name / "log.txt").write_text("\n".join([*lines, "a warning"]))
    assert run.status(OUT, entry) == (0.75, "return 75.0, 77 steps/s")


def test_twenty_kills_at_random_moments(stand_ins):
    flags = ("--num-seeds", 6, "--total-timesteps", 1000)
    Path("pause").write_text("0.02")
    moments = random.Random(1)
    for _ in range(20):
        runner = start(*flags)
        time.sleep(moments.uniform(0.4, 2))
        runner.kill()
        runner.communicate()
    Path("pause").unlink()
    cut_off = records()
    assert start(*flags).wait() == 0
    assert run_all(out=Path("undisturbed"), num_seeds=6) == 0
    ended, undisturbed = records(), records(Path("undisturbed"))
    assert ended.keys() == undisturbed.keys() and len(ended) == 12
    assert sum(record["attempts"] for record in ended.values()) > 12
    for name, record in ended.items():
        assert record["outcome"] == "finished" and cut_off.get(name, {}).get("outcome") in (
            None,
            "running",
            "finished",
        )
        assert cut_off.get(name, {}).get("outcome") != "finished" or cut_off[name] == record
        assert episodes(name) == episodes(name, Path("undisturbed"))
        assert "more run at a time" not in (OUT / "runs" / name / "log.txt").read_text()


def test_the_real_script_killed_and_continued(tmp_path):
    """From the project's directory, as users do, with the report."""
    out = tmp_path / "out"
    flags = [
        "--heads",
        "etf",
        "--num-seeds",
        "2",
        "--total-timesteps",
        "10000",
        "--workers",
        "1",
        "--out",
        str(out),
    ]
    command = [sys.executable, "-m", "benchmark.run", *flags, "--flags", "all --checkpoint-every 4"]
    runner = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: any(out.glob("runs/*__2/*/checkpoint.pt")))
    runner.kill()
    runner.wait()
    one, two = records(out).values()
    assert (one["outcome"], two["outcome"]) == ("finished", "running")
    assert subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0
    assert records(out)[one["name"]] == one
    assert (records(out)[two["name"]]["outcome"], records(out)[two["name"]]["attempts"]) == (
        "finished",
        2,
    )

    reference = [*one["command"][:-1], str(tmp_path / "reference/runs" / one["name"])]
    subprocess.run(reference, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert episodes(one["name"], out) == episodes(one["name"], tmp_path / "reference")
    steps = []
    for name in (one["name"], two["name"]):
        (path,) = (out / "runs" / name).glob("*/checkpoint.pt")
        steps.append(torch.load(path, weights_only=True)["global_step"])
        lengths = [int(length) for _, _, length in episodes(name, out)]
        ends = [int(step) for step, _, _ in episodes(name, out)]
        assert ends == sorted(ends) and 0 <= steps[-1] - sum(lengths) <= 4 * 500
    assert all(10000 <= step < 10000 + 4 * 128 for step in steps)
    assert (out / "results" / "runs.csv").exists() and (out / "results" / "report.md").exists()
