"""benchmark/run.py: the plan, what it refuses, failures, and SIGKILL at any moment. Most runs are
tests/stand_in.py's."""

import csv
import errno
import io
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
from rich.console import Console

from benchmark import run
from benchmark.files import Planned
from benchmark.runner import execute, jobs, plan, progress

ROOT = Path(__file__).parents[1]
PPO = frozenset({"ppo_acpg.py"})  # the programs of a job of one run
# Stand-ins leave nothing that could be reported on.
WITHOUT_REPORT = """
import tyro
from benchmark import run

run.report = lambda out: None
run.main(tyro.cli(run.Args))
"""
OUT = Path("out")


def use_stand_ins(monkeypatch, tmp_path) -> None:
    """Make tmp_path the working directory, with stand-ins as scripts and two slots for them; report
    on nothing."""
    for script in ("ppo_acpg.py", "a2c_acpg.py"):
        shutil.copy(ROOT / "tests/stand_in.py", tmp_path / script)
    for slot in ("slot1", "slot2"):
        (tmp_path / slot).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(run, "report", lambda out: None)


@pytest.fixture
def stand_ins(monkeypatch, tmp_path):
    use_stand_ins(monkeypatch, tmp_path)


def start(*flags: object) -> subprocess.Popen:
    """Start benchmark.run on stand-ins in the working directory."""
    words = [sys.executable, "-c", WITHOUT_REPORT, "--out", str(OUT), *map(str, flags)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)


def wait_until(condition) -> None:
    """Return as soon as the condition holds; fail after two minutes."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def arguments(**flags: object) -> run.Args:
    return run.Args(**{"out": OUT, "total_timesteps": 1000} | flags)


def run_all(**flags: object) -> int:
    """The exit code of benchmark.run in this process."""
    try:
        run.main(arguments(**flags))
    except SystemExit as exit:
        return exit.code
    return 0


def refused(capsys, **flags: object) -> list[str]:
    """What benchmark.run says against these flags, without having written anything."""
    before = contents(Path())
    assert run_all(**flags) == 2
    assert contents(Path()) == before
    lines = capsys.readouterr().err.splitlines()
    assert lines and all(line.startswith("error: ") for line in lines)
    return [line.removeprefix("error: ") for line in lines]


def contents(folder: Path) -> dict[Path, bytes]:
    """All files below the folder, but for the lock of --out."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if path != OUT / "lock"}


def is_free(lock: Path) -> bool:
    """Whether nobody executes the run of this lock."""
    with open(lock, "w") as file:
        return execute.lock(file)


def records(out: Path = OUT) -> dict[str, dict]:
    files = sorted(out.glob("runs/*/record.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in files}


def outcomes() -> set[str]:
    return {record["outcome"] for record in records().values()}


def run_dir(name: str, out: Path = OUT) -> Path:
    return out / "runs" / name / records(out)[name]["run_dir"]


def episodes(name: str, out: Path = OUT) -> list[tuple[str, ...]]:
    """All but the seconds of a run's episodes."""
    with open(run_dir(name, out) / "episodes.csv") as file:
        rows = list(csv.DictReader(file))
    return [(row["global_step"], row["return"], row["length"]) for row in rows]


def steps(name: str) -> list[int]:
    return [int(step) for step, *_ in episodes(name)]


def ppo(seed: int, head: str = "linear") -> str:
    """The name of a run."""
    return f"CartPole-v1__ppo_acpg__{head}__{seed}"


ALL_STEPS = list(range(10, 1001, 10))


# The plan
def test_a_plan_is_brought_to_its_end_once(stand_ins, capfd):
    asked = {
        "scripts": ("ppo_acpg", "a2c_acpg.py"),
        "heads": ("linear", "random-trainable"),
        "num_seeds": 2,
        "start_seed": 5,
    }
    assert run_all(**asked) == 0
    first = records()
    combinations = itertools.product(("ppo_acpg", "a2c_acpg"), asked["heads"], (5, 6))
    names = {f"CartPole-v1__{script}__{head}__{seed}" for script, head, seed in combinations}
    planned = json.loads((OUT / "plan.json").read_text())
    assert planned["baseline"] == "linear"
    assert first.keys() == names == {entry["name"] for entry in planned["runs"]}
    for name, record in first.items():
        assert (record["outcome"], record["attempts"], record["exit_code"]) == ("finished", 1, 0)
        assert (record["group"], record["arm"]) == tuple(name.split("__")[1:3])
        assert {"python", "torch", "gymnasium"} <= record["versions"].keys()
        assert record["machine"] and record["started"]
        assert record["script_hash"] == execute.hash_of({"ppo_acpg.py"})
        assert steps(name) == ALL_STEPS
        assert shlex.join(record["command"]) in (OUT / "runs" / name / "log.txt").read_text()
        flags = ["--etf-head", "--head-frame", "random", "--head-trainable"]
        used = [flag for flag in record["command"] if flag in flags]
        assert used == (flags if "random" in name else [])
    assert "8 of 8 done, 0 running, 0 failed" in capfd.readouterr().err
    assert run_all(**asked) == 0 and records() == first
    assert run_all(**asked | {"num_seeds": 3}) == 0
    assert len(records()) == 12 and first.items() <= records().items()


def planned_flags(**flags: object) -> dict[tuple[str, str], str]:
    """The flags of each arm on each environment."""
    runs = plan.asked_for(arguments(total_timesteps=None, num_seeds=1, **flags))
    return {(entry.arm, entry.env_id): shlex.join(entry.flags) for entry in runs}


def test_heads_take_norms(stand_ins):
    heads = ("linear", "linear:2", "etf:4", "orthogonal-trainable:0.5")
    flags = planned_flags(heads=heads)
    assert flags == {
        ("linear", "CartPole-v1"): "",
        ("linear:2", "CartPole-v1"): "--head-std 2",
        ("etf:4", "CartPole-v1"): "--etf-head --etf-scale 4",
        ("orthogonal-trainable:0.5", "CartPole-v1"): (
            "--etf-head --head-frame orthogonal --head-trainable --etf-scale 0.5"
        ),
    }


def test_arms_are_scripts_of_any_name_with_any_flags(stand_ins):
    Path("dir").mkdir()
    shutil.copy("ppo_acpg.py", "dir/my-own.py")
    shutil.copy("ppo_acpg.py", "plain")
    arms = ("ppo=ppo_acpg", "mine=dir/my-own.py --etf-head --gamma=0.9", "plain=plain")
    assert run_all(arms=arms, num_seeds=1, baseline="mine") == 0
    assert json.loads((OUT / "plan.json").read_text())["baseline"] == "mine"
    named = {name: record["script"] for name, record in records().items()}
    assert named == {
        "CartPole-v1__arms__ppo__1": "ppo_acpg.py",
        "CartPole-v1__arms__mine__1": "dir/my-own.py",
        "CartPole-v1__arms__plain__1": "plain",
    }
    assert {record["group"] for record in records().values()} == {"arms"}
    args = json.loads((run_dir("CartPole-v1__arms__mine__1") / "args.json").read_text())
    assert (args["etf_head"], args["gamma"]) == (True, 0.9)


def test_what_is_more_specific_prevails(stand_ins):
    flags = (
        "etf@A-v1 --gamma 0.6",
        "ppo_acpg@A-v1 --gamma 0.4 --total-timesteps 7",
        "etf --gamma 0.5",
        "ppo_acpg.py --gamma 0.3",
        "all --gamma 0.2",
    )
    runs = plan.asked_for(
        arguments(
            scripts=("ppo_acpg", "a2c_acpg"),
            heads=("linear", "etf:2", "etf"),
            env_ids=("A-v1", "B-v1"),
            num_seeds=1,
            flags=flags,
        )
    )
    words = {(entry.group, entry.arm, entry.env_id): entry.flags for entry in runs}
    last = {key: value[len(value) - value[::-1].index("--gamma")] for key, value in words.items()}
    assert last == {
        ("ppo_acpg", "linear", "A-v1"): "0.4",
        ("ppo_acpg", "linear", "B-v1"): "0.3",
        ("ppo_acpg", "etf:2", "A-v1"): "0.4",
        ("ppo_acpg", "etf:2", "B-v1"): "0.3",
        ("ppo_acpg", "etf", "A-v1"): "0.6",
        ("ppo_acpg", "etf", "B-v1"): "0.5",
        ("a2c_acpg", "linear", "A-v1"): "0.2",
        ("a2c_acpg", "linear", "B-v1"): "0.2",
        ("a2c_acpg", "etf:2", "A-v1"): "0.2",
        ("a2c_acpg", "etf:2", "B-v1"): "0.2",
        ("a2c_acpg", "etf", "A-v1"): "0.6",
        ("a2c_acpg", "etf", "B-v1"): "0.5",
    }
    steps = words["ppo_acpg", "linear", "A-v1"]
    assert steps[:2] == ("--total-timesteps", "1000") and steps[-2:] == ("--total-timesteps", "7")


def test_an_arms_own_flags_prevail_over_its_scripts(stand_ins):
    flags = planned_flags(arms=("a=ppo_acpg", "b=ppo_acpg --gamma 0.9"), flags=("all --gamma 0.1",))
    assert flags["a", "CartPole-v1"] == "--gamma 0.1"
    assert flags["b", "CartPole-v1"] == "--gamma 0.1 --gamma 0.9"


def test_steps_per_task_are_those_of_the_run(stand_ins):
    flags = ("all@CartPole-v1 --total-timesteps 300",)
    assert run_all(heads=("linear",), num_seeds=1, flags=flags) == 0
    assert steps(ppo(1)) == list(range(10, 301, 10))


def test_the_commit_is_recorded(monkeypatch):
    monkeypatch.chdir(ROOT)
    execute.surroundings.cache_clear()
    words = ["git", "rev-parse", "HEAD"]
    head = subprocess.run(words, capture_output=True, text=True).stdout.strip()
    assert execute.surroundings()["commit"].removesuffix("-dirty") == head
    execute.surroundings.cache_clear()


def test_a_dry_run_prints_lines_for_a_shell_and_writes_nothing(stand_ins, capsys, tmp_path):
    before = sorted(tmp_path.iterdir())
    assert run_all(dry_run=True, flags=("all --exp-name '$(touch pwned); x'",), num_seeds=1) == 0
    output = capsys.readouterr()
    plain, etf = map(shlex.split, output.out.splitlines())
    steps = ["--total-timesteps", "1000"]
    flags = ["--env-id", "CartPole-v1", "--seed", "1", *steps, "--exp-name", "$(touch pwned); x"]
    assert plain == [sys.executable, "ppo_acpg.py", *flags, "--runs-dir", f"out/runs/{ppo(1)}"]
    assert set(etf) - set(plain) == {"--etf-head", f"out/runs/{ppo(1, 'etf')}"}
    assert "2 runs in out, 0 of them finished, 2 at a time" in output.err
    assert sorted(tmp_path.iterdir()) == before


def test_names_stay_below_out_and_apart(stand_ins):
    ids = ("benchmark.envs:MinAtar/Breakout-v1", "..:X-v0", "a b\\c-v1", "CartPole-v1")
    runs = plan.asked_for(arguments(env_ids=ids, num_seeds=1, heads=("etf:2",)))
    names = {entry.name for entry in runs}
    assert len(names) == 4
    assert not any(set(name) & set("/:\\ ") for name in names)
    assert "..%3AX-v0__ppo_acpg__etf%3A2__1" in names


def test_another_experiment_is_refused(stand_ins, capsys):
    assert run_all(num_seeds=1) == 0
    capsys.readouterr()
    line, _ = refused(capsys, num_seeds=1, total_timesteps=500)
    old = "linear on CartPole-v1 by `ppo_acpg.py --total-timesteps 1000`"
    assert line.startswith(f"--out out: holds another experiment, {old}, not `")
    (line,) = refused(capsys, num_seeds=1, baseline="etf", heads=("linear", "etf:2"))
    assert line == "--baseline etf: is none of the arms linear etf:2"
    assert run_all(num_seeds=1, total_timesteps=500, env_ids=("Acrobot-v1",)) == 0
    assert len(json.loads((OUT / "plan.json").read_text())["runs"]) == 4


def test_a_baseline_stays_unless_another_is_named(stand_ins, capsys):
    assert run_all(num_seeds=1, heads=("linear", "etf")) == 0
    assert run_all(num_seeds=1, heads=("etf:2",)) == 0
    assert json.loads((OUT / "plan.json").read_text())["baseline"] == "linear"
    assert run_all(num_seeds=1, heads=("etf", "etf:2"), baseline="etf:2") == 0
    assert json.loads((OUT / "plan.json").read_text())["baseline"] == "etf:2"
    capsys.readouterr()
    (line,) = refused(capsys, num_seeds=1, arms=("a=ppo_acpg", "b=ppo_acpg --gamma 0"))
    assert line == "--baseline etf:2: is none of a b (arms in out)"


# What is refused
def test_all_that_is_wrong_is_named_at_once(stand_ins, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    lines = refused(
        capsys,
        scripts=("ppo_acpg", "sarsa", "../stand_in"),
        heads=("etf", "simplex"),
        flags=("ppo_acpg --seed 3 --no_etf_head --runs-dir=/", "dqn --gamma 1", "all 'x", ""),
        num_seeds=0,
        workers=-1,
        cluster="slurm",
        partition="a\ntouch pwned",
        devices=("0",),
    )
    for expected in (
        "--scripts sarsa: there is no such file (this directory has a2c_acpg, ppo_acpg)",
        "--scripts ../stand_in: there is no such file",
        "--heads simplex: is none of linear, etf, random,",
        ": --seed is for benchmark.run to set",
        ": --etf-head is for benchmark.run to set",
        ": --runs-dir is for benchmark.run to set",
        "--flags dqn --gamma 1: must begin with one of all ppo_acpg etf",
        "--flags all 'x: No closing quotation",
        "--flags : must begin with one of",
        "--num-seeds 0: must be at least 1",
        "--workers -1: must be at least 1",
        "--cluster slurm: there is no sbatch on the PATH",
        "--partition a touch pwned: must be one line of text",
        "--devices: are for local runs",
    ):
        assert sum(expected in line for line in lines) == 1, expected
    assert len(lines) == 14


BAD = {
    "nothing to run": ({"env_ids": (), "heads": (), "scripts": ()}, "--env-ids: names none"),
    "no environment": ({"env_ids": ("CartPol-v1",)}, "--env-ids CartPol-v1: Environment `CartPol`"),
    "no version": ({"env_ids": ("CartPole",)}, "--env-ids CartPole: has no version; the newest is"),
    "empty id": ({"env_ids": ("",)}, "--env-ids : "),
    "no module": ({"env_ids": ("nomodule:X-v0",)}, "nomodule:X-v0: No module named 'nomodule'"),
    "module exits": (
        {"env_ids": ("exits:X-v0",)},
        "--env-ids exits:X-v0: SystemExit('no licence')",
    ),
    "module raises": ({"env_ids": ("raises:X-v0",)}, "--env-ids raises:X-v0: ZeroDivisionError("),
    "module aborts": ({"env_ids": ("aborts:X-v0",)}, "ppo_acpg.py: reading its flags ended with 7"),
    "empty module": ({"env_ids": (":A-v1",)}, "--env-ids :A-v1: Empty module name"),
    "script binary": ({"scripts": ("/bin/ls",)}, "/bin/ls: cannot be imported: SyntaxError("),
    "Args no class": ({"scripts": ("three",)}, "three.py: 'int' object has no attribute"),
    "module killed": ({"env_ids": ("k9:X-v0",)}, "ppo_acpg.py: reading its flags ended with -9"),
    "relative module": ({"env_ids": (".x:X-v0",)}, "--env-ids .x:X-v0: "),
    "no image game": (
        {"env_ids": ("benchmark.envs:MinAtar/Brekout-v1",)},
        "--env-ids benchmark.envs:MinAtar/Brekout-v1: Environment `Brekout` doesn't exist",
    ),
    "long id": ({"env_ids": ("A" * 300 + "-v1",)}, "makes with arm linear too long a file name"),
    "unknown flag": ({"flags": ("all --no-such-flag",)}, "Unrecognized options: --no-such-flag"),
    "abbreviated flag": ({"flags": ("all --gam 1",)}, "Unrecognized options: --gam, 1"),
    "no number": ({"flags": ("all --gamma x",)}, "ppo_acpg.py: Error parsing --gamma: could not"),
    "out of bounds": (
        {"flags": ("all --gamma 3",)},
        "ppo_acpg.py: --gamma 3.0: must lie in [0, 1]",
    ),
    "NaN": ({"flags": ("all --gamma nan",)}, "ppo_acpg.py: --gamma nan: must lie in [0, 1]"),
    "a stray word": ({"flags": ("all --gamma 1 2",)}, "ppo_acpg.py: Unrecognized options: 2"),
    "no value": ({"flags": ("all --gamma",)}, "ppo_acpg.py: Missing value for argument '--gamma'"),
    "help": ({"flags": ("all --help",)}, "ppo_acpg.py: --help and the like start no run"),
    "other task": ({"flags": ("all@A-v1 --gamma 1",)}, "A-v1 is none of --env-ids"),
    "own flag": ({"flags": ("all --env_id=A-v1",)}, "--env-id is for benchmark.run to set"),
    "resume": ({"flags": ("all --resume x",)}, "--resume is for benchmark.run to set"),
    "head no number": ({"heads": ("etf:x",)}, "--heads etf:x: must have a number after the colon"),
    "head NaN": ({"heads": ("etf:nan",)}, "--heads etf:nan: must have a number after the colon"),
    "head no norm": ({"heads": ("linear:",)}, "--heads linear:: must have a number"),
    "head a flag": ({"heads": ("etf:--seed",)}, "--heads etf:--seed: must have a number"),
    "no head": ({"heads": ("",)}, "--heads : is none of linear, etf, random"),
    "directory": ({"scripts": (".",)}, "--scripts .: there is no such file"),
    "NUL": ({"scripts": ("a\0b",)}, "there is no such file"),
    "same stem": ({"scripts": ("ppo_acpg", "sub/ppo_acpg")}, "has the name of ppo_acpg.py; use"),
    "syntax error": ({"scripts": ("broken",)}, "broken.py: cannot be imported: SyntaxError("),
    "script exits": ({"scripts": ("exits",)}, "exits.py: cannot be imported: SystemExit("),
    "no Args": ({"scripts": ("empty",)}, "empty.py: cannot be imported: has no class Args"),
    "few flags": ({"arms": ("a=few.py",), "total_timesteps": None}, "few.py: Unrecognized options"),
    "no arm": ({"arms": ()}, "--arms: names none"),
    "arm no script": ({"arms": ("a=",)}, "--arms a=: must be NAME=SCRIPT"),
    "arm no name": ({"arms": ("ppo_acpg.py",)}, "--arms ppo_acpg.py: must be NAME=SCRIPT"),
    "arm all": ({"arms": ("all=ppo_acpg",)}, "--arms all=ppo_acpg: the name must be a word"),
    "arm of two words": (
        {"arms": ("a b=ppo_acpg",)},
        "--arms a b=ppo_acpg: the name must be a word",
    ),
    "arm twice": ({"arms": ("a=ppo_acpg", "a=a2c_acpg")}, "there is another arm of this name"),
    "arm quote": ({"arms": ("a=ppo_acpg 'x",)}, "--arms a=ppo_acpg 'x: No closing quotation"),
    "arm seed": ({"arms": ("a=ppo_acpg --seed 3",)}, "--seed is for benchmark.run to set"),
    "arm and heads": ({"arms": ("a=ppo_acpg",), "heads": ("etf",)}, "--heads etf: cannot go with"),
    "baseline": ({"baseline": "random"}, "--baseline random: is none of the arms"),
    "many seeds": ({"num_seeds": 10**9}, "--num-seeds 1000000000: makes 2,000,000,000 runs;"),
    "negative seed": ({"start_seed": -1}, "--start-seed -1: must be at least 0"),
    "negative steps": ({"total_timesteps": -5}, "--total-timesteps -5: must be at least 1"),
    "timeout 0": ({"run_timeout": 0.0}, "--run-timeout 0: must be more than 0"),
    "timeout NaN": ({"run_timeout": float("nan")}, "--run-timeout nan: must be more than 0"),
    "out of two lines": ({"out": Path("a\nb")}, "--out a b: must be one line of text"),
}


@pytest.mark.parametrize("flags, expected", BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_a_line(stand_ins, capsys, monkeypatch, flags, expected):
    Path("exits.py").write_text("raise SystemExit('no licence')")
    Path("raises.py").write_text("print('[]')\n1 / 0")
    Path("aborts.py").write_text("import os\nos._exit(7)")
    Path("broken.py").write_text("def f(:")
    Path("k9.py").write_text("import os\nos.kill(os.getpid(), 9)")
    Path("three.py").write_text("Args = 3")
    Path("empty.py").write_text("")
    Path("few.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Args:\n    seed: int = 1\n"
    )
    Path("sub").mkdir()
    shutil.copy("ppo_acpg.py", "sub/ppo_acpg.py")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    lines = refused(capsys, **flags)
    assert any(expected in line for line in lines)
    assert len(lines) <= 3


def test_atari_games_are_looked_up_where_their_backend_has_them(monkeypatch):
    monkeypatch.chdir(ROOT)
    games = ("Breakout-v5", "ALE/Breakout-v5", "CartPole-v1")
    for flags, known in {
        "": games[0],
        "all --backend ale": games[1],
        "all --backend=ale": games[1],
    }.items():
        args = arguments(
            scripts=("ppo_atari_acpg",),
            heads=("linear",),
            env_ids=games,
            flags=(flags,) if flags else (),
            num_seeds=1,
        )
        with pytest.raises(plan.Refused) as refusal:
            plan.ask_scripts(plan.asked_for(args))
        named = [line.split(": ")[0].removeprefix("--env-ids ") for line in refusal.value.args]
        assert named == [game for game in games if game != known]


def test_scripts_own_checks_and_defaults_are_heard(monkeypatch):
    monkeypatch.chdir(ROOT)
    wrong = arguments(num_seeds=1, flags=("all --feature-activation relu",))
    with pytest.raises(plan.Refused) as refusal:
        plan.ask_scripts(plan.asked_for(wrong))
    reason = "ppo_acpg.py: --feature-activation relu: cannot align with --etf-head"
    assert refusal.value.args == (reason,)
    (task,) = plan.asked_for(arguments(total_timesteps=None, num_seeds=1, heads=("etf",)))
    assert plan.ask_scripts([task]) == {plan.task_of(task): 500_000}


@pytest.mark.parametrize(
    "damage",
    [
        '{"runs": [{"name": 1}]}',
        '{"runs"',
        "[]",
        "",
        '{"baseline": "linear", "runs": [{"name": "../x"}]}',
        "\0",
    ],
)
def test_a_damaged_plan_is_named_and_kept(stand_ins, capsys, damage):
    OUT.mkdir()
    (OUT / "plan.json").write_text(damage)
    (line,) = refused(capsys)
    assert line.startswith("--out out: out/plan.json: ")


def test_an_edited_plan_is_refused(stand_ins, capsys):
    assert run_all(num_seeds=1) == 0
    text = (OUT / "plan.json").read_text()
    capsys.readouterr()
    for old, new, expected in (
        ('"seed": 1', '"seed": 2', "--out out: its plan.json has another run named"),
        ('"1000"', '"2000"', "--out out: holds another experiment"),
        (ppo(1), ppo(1, "etf"), "--out out: out/plan.json: two runs are named"),
    ):
        (OUT / "plan.json").write_text(text.replace(old, new))
        assert expected in refused(capsys, num_seeds=1)[0]
    (OUT / "plan.json").write_text(text)
    assert run_all(num_seeds=1) == 0


def test_an_unwritable_out_is_one_line(stand_ins, capsys):
    OUT.touch()
    (line,) = refused(capsys)
    assert line.startswith("--out out: [Errno 20] Not a directory")
    (line,) = refused(capsys, out=Path("/proc/out"))
    assert line.startswith("--out /proc/out: [Errno 2]")
    Path("plan/plan.json").mkdir(parents=True)
    (line,) = refused(capsys, out=Path("plan"))
    assert line.startswith("--out plan: [Errno 21] Is a directory")


def test_a_held_out_is_refused_before_any_work(stand_ins, capsys):
    OUT.mkdir()
    with open(OUT / "lock", "w") as other:
        assert execute.lock(other)
        (line,) = refused(capsys)
    assert line == "--out out: another benchmark.run is at work there"


def test_a_full_disk_is_one_line_and_loses_nothing(stand_ins, capsys, monkeypatch):
    """The disk fills up when the first run's end is to be recorded."""

    def write_model(path, model):
        if getattr(model, "outcome", "") == "finished":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(path, model)

    whole = execute.write_model
    with monkeypatch.context() as full:
        full.setattr(execute, "write_model", write_model)
        Path("pause").write_text("0.005")
        assert run_all(workers=1, num_seeds=1) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "error: --out out: [Errno 28] No space left on device"
    (record,) = records().values()
    assert record["outcome"] == "running" and record["run_dir"]
    assert run_all(workers=1, num_seeds=1) == 0
    assert outcomes() == {"finished"}
    assert "--resume" in (OUT / "runs" / record["name"] / "log.txt").read_text()


def test_nobody_reads_on(stand_ins):
    """As in `... | head`: no traceback, wherever the pipe ends."""
    words = [sys.executable, "-m", "benchmark.run", "--dry-run", "--num-seeds", "2000"]
    runner = subprocess.Popen(
        words,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "--seed 1 " in runner.stdout.readline()
    runner.stdout.close()
    (summary,) = runner.stderr.read().splitlines()
    assert summary.startswith("4000 runs in")
    assert runner.wait() == 1
    shut = ["sh", "-c", '"$0" "$@" >&-', sys.executable, "-c", WITHOUT_REPORT]
    done = subprocess.run(
        [*shut, "--num-seeds", "1", "--total-timesteps", "10"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr


# Failures
def test_a_failing_run_is_retried_once_and_reported(stand_ins, capfd):
    Path("crashes").write_text("1\n2\n2\n2\n")
    assert run_all(heads=("linear",)) == 1
    one, two, three = records().values()
    assert (one["outcome"], one["attempts"]) == ("finished", 2)
    assert (three["outcome"], three["attempts"]) == ("finished", 1)
    assert (two["outcome"], two["attempts"], two["exit_code"]) == ("failed", 2, 3)
    assert two["reason"] == "exit code 3"
    errors = capfd.readouterr().err
    assert f"failed: {ppo(2)} (exit code 3); the end of out/runs/{ppo(2)}/log.txt:" in errors
    assert "    Traceback: this seed crashes" in errors
    assert f"1 of 3 runs failed: {ppo(2)}" in errors
    assert run_all(heads=("linear",)) == 0 and records()[ppo(2)]["attempts"] == 4
    for name in records():
        assert steps(name) == ALL_STEPS


@pytest.mark.parametrize(
    "habit, reason",
    [
        ("forget", "ended with exit code 0 but without a checkpoint"),
        ("early", "stops at step 510 of 1000"),
        ("hang", "took longer than --run-timeout 0.01 minutes"),
    ],
)
def test_a_run_that_ends_otherwise_than_it_should_has_failed(stand_ins, capfd, habit, reason):
    Path("habit").write_text(habit)
    assert run_all(heads=("linear",), num_seeds=1, run_timeout=0.01) == 1
    (record,) = records().values()
    assert (record["outcome"], record["attempts"], record["reason"]) == ("failed", 1, reason)
    assert f"failed: {ppo(1)} ({reason})" in capfd.readouterr().err
    assert is_free(OUT / "runs" / ppo(1) / "lock")
    Path("habit").unlink()
    assert run_all(heads=("linear",), num_seeds=1) == 0
    assert outcomes() == {"finished"} and steps(ppo(1)) == ALL_STEPS


def test_a_damaged_checkpoint_is_no_success(stand_ins):
    assert run_all(heads=("linear",), num_seeds=1) == 0
    folder = run_dir(ppo(1))
    assert execute.shortfall(folder) == ""
    args = (folder / "args.json").read_text()
    (folder / "args.json").write_text("{}")
    assert execute.shortfall(folder).startswith(f"{folder}/args.json: env_id: Field required")
    (folder / "args.json").write_text(args)
    (folder / "checkpoint.pt").write_bytes(b"no checkpoint")
    assert execute.shortfall(folder).startswith(f"{folder}/checkpoint.pt: ")


def test_a_finished_run_without_its_checkpoint_is_executed_anew(stand_ins):
    assert run_all(heads=("linear",), num_seeds=1) == 0
    shutil.rmtree(run_dir(ppo(1)))
    assert run_all(heads=("linear",), num_seeds=1) == 0
    assert records()[ppo(1)]["attempts"] == 2 and steps(ppo(1)) == ALL_STEPS


def test_a_damaged_record_is_named_kept_and_not_taken_for_finished(stand_ins, capsys):
    assert run_all(num_seeds=1) == 0
    record = OUT / "runs" / ppo(1, "etf") / "record.json"
    for damage in ('{"outcome": "fini', "[]"):
        record.write_text(damage)
        capsys.readouterr()
        assert run_all(num_seeds=1) == 0
        assert f"damaged, so not finished: {record}: " in capsys.readouterr().err
        assert outcomes() == {"finished"}
    assert record.with_name("record.json.damaged").read_text() == '{"outcome": "fini'
    assert record.with_name("record.json.damaged.2").read_text() == "[]"


def test_what_is_not_the_runners_stays(stand_ins):
    folder = OUT / "runs" / ppo(1)
    notes = folder / "my-plots/notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("hours of work")
    copy = folder / "copy"
    copy.mkdir()
    (copy / "args.json").write_text("{}")
    Path("crashes").write_text("1\n1\n")
    assert run_all(heads=("linear",), num_seeds=1) == 1
    assert run_all(heads=("linear",), num_seeds=1) == 0
    assert notes.read_text() == "hours of work" and copy.exists()
    assert run_dir(ppo(1)) not in (copy, notes.parent)
    assert steps(ppo(1)) == ALL_STEPS


# Edited scripts
def edit(script: str = "ppo_acpg.py") -> None:
    with open(script, "a") as file:
        file.write("# another line\n")


def test_an_edited_script_makes_no_stale_results(stand_ins, capsys):
    both = {"scripts": ("ppo_acpg", "a2c_acpg"), "heads": ("linear",), "num_seeds": 2}
    assert run_all(**both) == 0
    before = records()
    files = contents(OUT / "runs" / ppo(1))
    edit()
    capsys.readouterr()
    (line,) = refused(capsys, **both)
    assert line == (
        "--out out: ppo_acpg.py was edited since 2 of these runs were started; "
        "--rerun executes them anew, or take another --out"
    )
    assert run_all(**both, rerun=True) == 0
    after = records()
    for name in before:
        again = "ppo" in name
        assert (after[name] != before[name]) == again
        assert (after[name]["script_hash"] != before[name]["script_hash"]) == again
    kept = contents(OUT / "replaced" / ppo(1))
    assert list(kept.values()) == list(files.values())
    assert steps(ppo(1)) == ALL_STEPS
    edit()
    assert run_all(**both, rerun=True) == 0
    assert (OUT / "replaced" / f"{ppo(1)}.2" / "record.json").exists()
    assert run_all(**both) == 0


def test_a_rerun_is_dry_if_it_shall(stand_ins, capsys):
    assert run_all(heads=("linear",), num_seeds=1) == 0
    edit()
    before = contents(Path())
    capsys.readouterr()
    assert run_all(heads=("linear",), num_seeds=1, rerun=True, dry_run=True) == 0
    assert "--seed 1 " in capsys.readouterr().out
    assert contents(Path()) == before


def test_an_edit_while_the_command_runs_starts_nothing_more(stand_ins):
    args = arguments(heads=("linear",), num_seeds=2, workers=1)
    runs = plan.asked_for(args)
    execution = execute.Execution(OUT, {PPO: execute.hash_of(PPO)})
    for _ in execution.run((runs[0],)):
        pass
    edit()
    for _ in execution.run((runs[1],)):
        pass
    one, two = records().values()
    assert (one["outcome"], two["outcome"]) == ("finished", "failed")
    assert two["reason"] == "ppo_acpg.py was edited since"
    assert not (OUT / "runs" / two["name"] / "log.txt").exists()


# Cut off
def test_a_run_goes_on_in_its_environment(stand_ins):
    """Its id is repeated, as a script imports an environment's module only if the command line
    names it."""
    env_id = "benchmark.envs:IdealCliffWalking-v0"
    (entry,) = plan.asked_for(arguments(env_ids=(env_id,), heads=("etf",), num_seeds=1))
    job = (entry,)
    assert execute.next_command(OUT, job) == execute.command(OUT, job)
    record = execute.record_of_attempt(OUT, entry, job, "0").model_copy(update={"run_dir": "a"})
    checkpoint = OUT / "runs" / entry.name / "a" / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True)
    execute.write_model(OUT / "runs" / entry.name / "record.json", record)
    assert execute.next_command(OUT, job) == execute.command(OUT, job)
    checkpoint.touch()
    flags = ["--resume", str(checkpoint), "--env-id", env_id]
    assert execute.next_command(OUT, job) == [sys.executable, "ppo_acpg.py", *flags]


def test_a_run_that_somebody_else_executes_is_waited_for(stand_ins):
    (entry,) = plan.asked_for(arguments(heads=("etf",), num_seeds=1))
    folder = OUT / "runs" / entry.name
    folder.mkdir(parents=True)
    execution = execute.Execution(OUT, {PPO: execute.hash_of(PPO)})
    steps = execution.run((entry,))
    with open(folder / "lock", "w") as other:
        assert execute.lock(other)
        assert next(steps) is None and not (folder / "record.json").exists()
        assert not execute.set_aside(OUT, entry)
    assert next(steps) is None and records()[entry.name]["outcome"] == "running"
    assert not is_free(folder / "lock")
    for _ in steps:
        time.sleep(0.01)
    assert records()[entry.name]["outcome"] == "finished"


def both_run() -> bool:
    """Whether two runs have a checkpoint, and their directories are known."""
    known = [record for record in records().values() if record["run_dir"]]
    return len(known) == len(list(OUT.glob("runs/*/*/checkpoint.pt"))) == 2


def test_a_second_runner_is_refused_and_ctrl_c_stops_the_scripts(stand_ins):
    Path("pause").write_text("0.1")
    flags = ("--total-timesteps", 1000)
    runner = start(*flags)
    wait_until(both_run)
    second = start(*flags)
    last = second.communicate()[1].splitlines()[-1]
    assert last == "error: --out out: another benchmark.run is at work there"
    assert second.returncode == 2
    runner.send_signal(signal.SIGINT)
    errors = runner.communicate()[1]
    assert runner.returncode == 130
    assert errors.endswith("stopped; the same command goes on in out\n")
    assert all(is_free(path) for path in OUT.glob("runs/*/lock"))
    assert outcomes() == {"running"}
    Path("pause").unlink()
    assert run_all() == 0
    assert [record["attempts"] for record in records().values()].count(2) == 2
    for name in records():
        assert steps(name) == ALL_STEPS


def test_the_scripts_of_a_killed_runner_die(stand_ins):
    Path("pause").write_text("0.1")
    runner = start("--total-timesteps", 1000)
    wait_until(both_run)
    Path("longer").write_text("600")
    os.replace("longer", "pause")
    time.sleep(0.2)  # now they would live for hours
    runner.kill()
    runner.communicate()
    wait_until(lambda: all(is_free(path) for path in OUT.glob("runs/*/lock")))


def test_twenty_kills_at_random_moments(stand_ins):
    flags = ("--num-seeds", 6, "--total-timesteps", 1000)
    Path("pause").write_text("0.02")
    # As fast as the machine is: the first kill comes with the first finished run.
    started = time.monotonic()
    runner = start(*flags)
    wait_until(lambda: any(record["outcome"] == "finished" for record in records().values()))
    first_finished = time.monotonic() - started
    runner.kill()
    runner.communicate()
    moments = random.Random(1)
    for _ in range(19):
        runner = start(*flags)
        time.sleep(moments.uniform(0.2, 1.2) * first_finished)
        runner.kill()
        runner.communicate()
    Path("pause").unlink()
    cut_off = records()
    assert start(*flags).wait() == 0
    assert run_all(out=Path("undisturbed"), num_seeds=6) == 0
    ended = records()
    undisturbed = records(Path("undisturbed"))
    assert ended.keys() == undisturbed.keys() and len(ended) == 12
    assert sum(record["attempts"] for record in ended.values()) > 12
    was_finished = 0
    for name, record in ended.items():
        before = cut_off.get(name, {}).get("outcome")
        assert record["outcome"] == "finished" and before in (None, "running", "finished")
        if before == "finished":
            was_finished += 1
            assert cut_off[name] == record
        assert episodes(name) == episodes(name, Path("undisturbed"))
        assert "more run at a time" not in (OUT / "runs" / name / "log.txt").read_text()
    assert was_finished > 0


# Where it runs, and what one sees
def test_local_runs_are_spread_over_devices(stand_ins):
    assert run_all(heads=("linear",), num_seeds=4, workers=2, devices=("3", "GPU-5a,1")) == 0
    logs = [(OUT / "runs" / ppo(seed) / "log.txt").read_text() for seed in (1, 2, 3, 4)]
    devices = [log.splitlines()[1] for log in logs]
    assert devices[:2] == ["3", "GPU-5a,1"] and set(devices) == {"3", "GPU-5a,1"}


def test_a_device_of_more_workers_than_devices_is_shared_evenly(stand_ins, monkeypatch):
    used = []

    class Execution:
        def run(self, job, device):
            used.append(device)
            yield

    runs = plan.asked_for(arguments(heads=("linear",), num_seeds=6))
    args = arguments(workers=4, devices=("0", "1"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    states = run.work(Execution(), [(entry,) for entry in runs], args)
    assert len(next(states)[0]) == 4 and used == []
    *_, (_, ended) = states
    assert ended == runs and used == ["0", "1", "0", "1", "0", "1"]


def test_the_status_is_the_last_line_of_the_log(stand_ins):
    (entry,) = plan.asked_for(arguments(heads=("etf",), num_seeds=1))
    assert progress.status(OUT, entry).value == "starting"
    (OUT / "runs" / entry.name).mkdir(parents=True)
    lines = [
        f"step {step}/1000: return {step / 10} (last 9 episodes), 77 steps/s"
        for step in range(0, 751, 5)
    ]
    (OUT / "runs" / entry.name / "log.txt").write_text("\n".join([*lines, "a warning"]))
    now = progress.status(OUT, entry)
    assert now == (750, 1000, "return 75.0", 77)
    assert now.left == 250 / 77


def test_eighty_columns_show_arm_seed_bar_return_and_time_left():
    screen = io.StringIO()
    console = Console(file=screen, width=80, force_terminal=True, color_system=None)
    entry = Planned(
        name="x",
        group="reinforce_acpg",
        arm="orthogonal-trainable:0.5",
        script="reinforce_acpg.py",
        env_id="benchmark.envs:MinAtar/SpaceInvaders-v1",
        seed=123,
        flags=(),
    )
    display = progress.Display(console, 100)
    now = progress.Status(1000, 4000, "return -1234.5", 10)
    display.show({entry: now}, 30, "30 of 100, 12 failed", 86_400)
    rendered = console.render_lines(display.get_renderable(), console.options)
    lines = ["".join(segment.text for segment in line) for line in rendered]
    all_runs, line = lines
    assert {len(line) for line in lines} == {80}
    assert "30 of 100, 12 failed" in all_runs and "24.0 h" in all_runs
    for part in ("orthogonal-trainable:0.5", "seed 123", "━", "return -1234.5", "5.0 min", "re"):
        assert part in line


def test_the_time_is_estimated_by_cores_images_and_finished_runs():
    left = 10 * [("ppo_acpg.py CartPole-v1", 100_000)]
    one = 4 + 100_000 / 8000
    assert progress.estimate([], left, 2) == pytest.approx(5 * one)
    assert progress.estimate([], left, 100) == pytest.approx(one)
    assert progress.estimate([], left, 20, 10) == pytest.approx(4 + 2 * 100_000 / 8000)
    images = [("ppo_acpg.py benchmark.envs:MinAtar/Breakout-v1", 100_000)]
    assert progress.estimate([], images, 1) == pytest.approx(4 + 100_000 / 2500)
    atari = [("ppo_atari_acpg.py Pong-v5", 1500)]
    assert progress.estimate([], atari, 1) == pytest.approx(4 + 10)
    finished = [("ppo_acpg.py CartPole-v1", 100_000, 30.0), ("ppo_acpg.py Acrobot-v1", 10, 1e9)]
    assert progress.estimate(finished, left, 5) == pytest.approx(60)
    assert progress.in_words(90) == "1.5 min" and progress.in_words(7200) == "2.0 h"


def test_the_time_left_goes_by_what_is_running(stand_ins):
    one, two, three = plan.asked_for(arguments(heads=("linear",)))
    forecast = progress.Forecast(OUT, dict.fromkeys((one, two, three), 1000), 2)
    running = {one: progress.Status(500, 1000, "return 1.0", 10), two: progress.Status()}
    # 10 steps/s, and 500 + 1000 + 1000 steps for two at a time
    assert forecast.seconds([three], running) == pytest.approx(125)
    assert forecast.seconds([], {}) == 0


def test_the_real_script_killed_and_continued(tmp_path):
    """From the project's directory, as users do, with the report."""
    out = tmp_path / "out"
    plan_of_two = ["--heads", "etf", "--num-seeds", "2", "--total-timesteps", "10000"]
    flags = ["--workers", "1", "--out", str(out), "--flags", "all --checkpoint-every 4"]
    words = [sys.executable, "-m", "benchmark.run", *plan_of_two, *flags]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": ROOT}
    runner = subprocess.Popen(words, **quiet)
    wait_until(lambda: any(out.glob("runs/*__2/*/checkpoint.pt")))
    runner.kill()
    runner.wait()
    one, two = records(out).values()
    assert (one["outcome"], two["outcome"]) == ("finished", "running")
    assert subprocess.run(words, **quiet).returncode == 0
    assert records(out)[one["name"]] == one
    again = records(out)[two["name"]]
    assert (again["outcome"], again["attempts"]) == ("finished", 2)

    undisturbed = tmp_path / "reference"
    words = [*one["command"][:-1], str(undisturbed)]
    subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (path,) = undisturbed.glob("*/episodes.csv")
    with open(path) as file:
        rows = [(row["global_step"], row["return"], row["length"]) for row in csv.DictReader(file)]
    assert episodes(one["name"], out) == rows
    for name in (one["name"], two["name"]):
        checkpoint = torch.load(run_dir(name, out) / "checkpoint.pt", weights_only=True)
        step = checkpoint["global_step"]
        lengths = [int(length) for _, _, length in episodes(name, out)]
        ends = [int(end) for end, _, _ in episodes(name, out)]
        assert ends == sorted(ends) and 0 <= step - sum(lengths) <= 4 * 500
        assert 10000 <= step < 10000 + 4 * 128
    assert (out / "results" / "runs.csv").exists() and (out / "results" / "report.md").exists()


# Many seeds in a process
def many(out: Path, *flags: str) -> list[str]:
    """A command of five seeds, three and two in a process."""
    plan_of_five = ["--heads", "etf", "--num-seeds", "5", "--total-timesteps", "20000"]
    flags = ("--seeds-per-process", "3", "--out", str(out), *flags)
    return [sys.executable, "-m", "benchmark.run", *plan_of_five, *flags]


def test_seeds_of_a_process_are_runs_like_others(tmp_path):
    out = tmp_path / "out"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": ROOT}
    words = many(out, "--flags", "all --checkpoint-every 4")
    runner = subprocess.Popen(words, **quiet)
    wait_until(lambda: any(out.glob("runs/*__2/*/checkpoint.pt")))
    runner.kill()
    runner.wait()
    (out / "runs" / ppo(4, "etf") / "mine").mkdir(parents=True)
    listed = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert all("benchmark/seeds/ppo_acpg.py" in line for line in listed.stdout.splitlines())
    assert len(listed.stdout.splitlines()) == 2 and "--resume" in listed.stdout
    assert subprocess.run(words, **quiet).returncode == 0

    found = records(out)
    assert [record["seed"] for record in found.values()] == [1, 2, 3, 4, 5]
    for record in found.values():
        assert record["outcome"] == "finished"
        assert len(record["beside"]) == (3 if record["seed"] <= 3 else 2)
        checkpoint = torch.load(run_dir(record["name"], out) / "checkpoint.pt", weights_only=True)
        assert 20000 <= checkpoint["global_step"] < 20000 + 4 * 128
        ends = [int(end) for end, _, _ in episodes(record["name"], out)]
        assert ends == sorted(ends)
        assert (run_dir(record["name"], out) / "evaluation.csv").exists()
    with open(out / "results" / "counts.csv") as file:
        (row,) = csv.DictReader(file)
    assert (row["planned"], row["finished"]) == ("5", "5")

    more = [*words, "--num-seeds", "6"]
    assert subprocess.run(more, **quiet).returncode == 0
    assert {name: records(out)[name] for name in found} == found
    assert records(out)[ppo(6, "etf")]["command"][1] == "ppo_acpg.py"


def started(out: Path, job: tuple, **changes: object) -> None:
    """Records of a job that was cut off, and checkpoints."""
    for entry in job:
        record = execute.record_of_attempt(out, entry, job, "0")
        folder = out / "runs" / entry.name
        (folder / "a").mkdir(parents=True)
        (folder / "a" / "checkpoint.pt").touch()
        changed = record.model_copy(update={"run_dir": "a"} | changes)
        execute.write_model(folder / "record.json", changed)


def test_what_began_together_goes_on_together_whatever_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    one, two, three, four = plan.asked_for(arguments(heads=("linear",), num_seeds=4))
    started(tmp_path, (one, two, three))
    assert jobs.jobs_of(tmp_path, [one, two, three, four], set(), 1) == [(one, two, three), (four,)]
    assert jobs.jobs_of(tmp_path, [two], set(), 1) == [(one, two, three)]
    assert jobs.jobs_of(tmp_path, [one, two], {one, two}, 1) == [(one,), (two,)]
    # without its checkpoint a seed begins anew, in the process of the others
    (tmp_path / "runs" / one.name / "a" / "checkpoint.pt").unlink()
    assert jobs.jobs_of(tmp_path, [one, two, three], set(), 1) == [(one, two, three)]
    # and without a readable record it is alone, as are those beside it that nobody can name
    (tmp_path / "runs" / one.name / "record.json").write_text("{")
    assert jobs.jobs_of(tmp_path, [one, two, three], set(), 1) == [(one,), (two, three)]


def test_after_a_failure_each_seed_goes_on_alone_as_one_may_fail_all(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    runs = plan.asked_for(arguments(heads=("linear",), num_seeds=3))
    started(tmp_path, tuple(runs), outcome="failed")
    assert jobs.jobs_of(tmp_path, runs, set(), 3) == [(entry,) for entry in runs]
    assert execute.next_command(tmp_path, (runs[0],))[1] == "ppo_acpg.py"


def test_a_record_is_of_the_programs_that_train(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    runs = tuple(plan.asked_for(arguments(heads=("linear",), num_seeds=2)))
    both = frozenset({"ppo_acpg.py", "benchmark/seeds/ppo_acpg.py"})
    assert execute.programs_of(runs) == both and execute.programs_of(runs[:1]) == PPO
    assert execute.hash_of(both) != execute.hash_of(PPO)


def test_a_variant_is_refused_when_its_script_was_edited(monkeypatch):
    monkeypatch.chdir(ROOT)
    runs = plan.asked_for(arguments(heads=("linear",), num_seeds=2))
    monkeypatch.setitem(execute.VARIANTS, "ppo_acpg.py", "0")
    with pytest.raises(plan.Refused, match=r"^--seeds-per-process: ppo_acpg.py was edited, and"):
        jobs.jobs_of(OUT, runs, set(), 2)
    assert len(jobs.jobs_of(OUT, runs, set(), 1)) == 2


def test_fewer_seeds_than_share_a_process_are_brought_to_their_end(tmp_path):
    out = tmp_path / "out"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": ROOT}
    words = many(out, "--flags", "all --checkpoint-every 4", "--num-seeds", "2")
    runner = subprocess.Popen(words, **quiet)
    wait_until(lambda: len(list(out.glob("runs/*/*/checkpoint.pt"))) == 2)
    runner.kill()
    runner.wait()
    assert subprocess.run([*words, "--num-seeds", "1"], **quiet).returncode == 0
    assert [record["outcome"] for record in records(out).values()] == 2 * ["finished"]


def test_what_has_no_variant_runs_seed_by_seed(stand_ins):
    runs = plan.asked_for(arguments(heads=("linear",), num_seeds=3))
    assert jobs.jobs_of(OUT, runs, set(), 3) == [(entry,) for entry in runs]


def test_seeds_that_do_not_follow_each_other_share_no_process(monkeypatch):
    monkeypatch.chdir(ROOT)
    runs = plan.asked_for(arguments(heads=("linear", "etf"), num_seeds=5))
    left = [entry for entry in runs if (entry.arm, entry.seed) != ("etf", 3)]
    found = jobs.jobs_of(OUT, left, set(), 3)
    seeds = {tuple((entry.arm, entry.seed) for entry in job) for job in found}
    assert seeds == {
        (("linear", 1), ("linear", 2), ("linear", 3)),
        (("linear", 4), ("linear", 5)),
        (("etf", 1), ("etf", 2)),
        (("etf", 4), ("etf", 5)),
    }
