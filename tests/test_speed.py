"""benchmark/speed/: flags are checked first, and nothing that was measured is lost."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.speed import __main__ as speed
from benchmark.speed.__main__ import Args, main

PROGRAMS = {"theirs": 500.0, "ours": 1000.0, "ours --fast": 1500.0}  # steps in a second


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """Instead of programs, names are measured. Returns those that were, in order; one that stands
    in `measured.stops` raises what is given there."""

    class Measured(list):
        def __init__(self):
            super().__init__()
            self.stops = {}

    done = Measured()

    def run(program: str) -> dict[str, float]:
        done.append(program)
        if len(done) in done.stops:
            raise done.stops[len(done)]
        return {"steps": PROGRAMS[program], "seconds": 1.0, "learning": 0.25}

    def groups(args: Args, runs: str) -> list[dict]:
        return [{program: lambda program=program: run(program) for program in PROGRAMS}]

    monkeypatch.setattr(speed, "groups", groups)
    return done


def refusal(capsys, args: Args) -> str:
    """The line with which a command is refused."""
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("error: --") and line.count("\n") == 1
    return line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"seconds": float("nan")}, "--seconds nan: must lie in [0.01, 86400]"),
        ({"seconds": float("inf")}, "--seconds inf: must lie in [0.01, 86400]"),
        ({"seconds": 0.0}, "--seconds 0.0: must lie in [0.01, 86400]"),
        ({"steps": 1023}, "--steps 1023: must lie in [1024, "),
        ({"turns": 0}, "--turns 0: must lie in [1, 1000]"),
        ({"turns": 10**9}, "--turns 1000000000: must lie in [1, 1000]"),
        ({"compare": ()}, "--compare : names nothing"),
        ({"compare": ("ppo", "ppo")}, "--compare ppo ppo: names one twice"),
    ],
)
def test_wrong_flags_are_named_and_nothing_is_written(tmp_path, capsys, measured, flags, message):
    assert message in refusal(capsys, Args(out=tmp_path / "new" / "x.csv", **flags))
    assert not [*tmp_path.iterdir()] and not measured


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("folder", "is a directory"),
        ("file/x.csv", "exists"),
        ("/proc/x/y.csv", "No such file"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_bad_out_is_named_before_any_work(tmp_path, capsys, measured, out, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    line = refusal(capsys, Args(out=tmp_path / out))
    assert line.startswith(f"error: --out {tmp_path / out}: ") and message in line
    assert not measured


def test_a_file_that_must_not_be_written_is_left_alone(tmp_path, capsys, measured, monkeypatch):
    """As root may write everywhere, the answer of the system is given here."""
    (tmp_path / "x.csv").write_text("old")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written to" in refusal(capsys, Args(out=tmp_path / "x.csv"))
    assert (tmp_path / "x.csv").read_text() == "old" and not measured


def test_rows_and_medians(tmp_path, capsys, measured):
    """Steps and seconds are given, so that all that is computed from them is known."""
    main(Args(out=tmp_path / "new" / "x.csv", turns=2))
    rows = list(csv.DictReader((tmp_path / "new" / "x.csv").read_text().splitlines()))
    assert [*rows[0]] == [*speed.COLUMNS]
    assert [(row["program"], row["turn"]) for row in rows] == [
        (program, turn) for turn in ("0", "1") for program in PROGRAMS
    ]
    assert [row["ratio"] for row in rows] == ["1.0", "2.0", "3.0"] * 2
    assert [row["steps_per_second"] for row in rows[:3]] == ["500", "1000", "1500"]
    assert {row["learning"] for row in rows} == {"0.25"} and {row["peak_mb"] for row in rows} == {
        ""
    }
    assert {row["cpu"] for row in rows} == {speed.cpu_model()}
    assert [*tmp_path.glob("new/*")] == [tmp_path / "new" / "x.csv"]
    assert "| ours --fast | 1,500 | 3.00 | 0.25 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stop", "code"),
    [
        (KeyboardInterrupt(), 130),
        (OSError(28, "No space left on device"), "No space left on device"),
        (subprocess.CalledProcessError(1, "script"), "non-zero exit status 1"),
    ],
)
def test_the_same_command_goes_on_where_it_was_cut_off(tmp_path, capsys, measured, stop, code):
    args = Args(out=tmp_path / "x.csv", turns=2)
    args.out.write_text("old")
    measured.stops = {5: stop}
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == code or str(code) in stopped.value.code
    assert args.out.read_text() == "old"
    del measured[:]
    measured.stops = {}
    main(args)
    assert measured == ["ours", "ours --fast"]
    assert "4 of 6 turns are in" in capsys.readouterr().out
    rows = list(csv.DictReader(args.out.read_text().splitlines()))
    assert [row["ratio"] for row in rows] == ["1.0", "2.0", "3.0"] * 2
    assert [*tmp_path.iterdir()] == [args.out]


@pytest.fixture
def part(tmp_path, measured) -> Path:
    """OUT.part of a command that was cut off in its second turn."""
    measured.stops = {5: KeyboardInterrupt()}
    with pytest.raises(SystemExit):
        main(Args(out=tmp_path / "x.csv", turns=2))
    measured.stops = {}
    del measured[:]
    return tmp_path / "x.csv.part"


def test_a_line_that_was_cut_off_is_measured_again(tmp_path, part, measured):
    part.write_bytes(part.read_bytes()[:-10])
    main(Args(out=tmp_path / "x.csv", turns=2))
    assert measured == ["theirs", "ours", "ours --fast"]


def test_a_damaged_line_is_named(tmp_path, part, capsys, measured):
    whole = part.read_text()
    for old, new in (('"seconds":1.0', '"seconds":-1'), ('"turn":0,', ""), ("{", "[")):
        first, second, rest = whole.split("\n", 2)
        part.write_text("\n".join([first, second, rest.replace(old, new, 1)]))
        line = refusal(capsys, Args(out=tmp_path / "x.csv", turns=2))
        assert "x.csv.part is damaged in line 3" in line
    part.write_bytes(b"\xff\x00\n" + whole.encode())
    line = refusal(capsys, Args(out=tmp_path / "x.csv", turns=2))
    assert "was measured with a command that cannot be read" in line
    assert not measured


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"turns": 3}, "with turns 2, not 3;"),
        ({"steps": 2048}, "with steps 500000, not 2048;"),
        ({"compare": ("a2c",)}, "with compare ['ppo', 'a2c', 'trpo'], not ['a2c'];"),
    ],
)
def test_other_flags_do_not_join(tmp_path, part, capsys, measured, flags, message):
    line = refusal(capsys, Args(**{"out": tmp_path / "x.csv", "turns": 2, **flags}))
    assert f"{part} was measured {message}" in line and not measured


def test_other_flags_may_follow_where_nothing_was_measured(tmp_path, part, measured):
    first, _ = part.read_text().split("\n", 1)
    part.write_text(first + "\n")
    main(Args(out=tmp_path / "x.csv", turns=1))
    assert measured == [*PROGRAMS] and not part.exists()


def test_another_commit_or_processor_does_not_join(tmp_path, part, capsys, measured, monkeypatch):
    args = Args(out=tmp_path / "x.csv", turns=2)
    with monkeypatch.context() as patch:
        patch.setattr(speed, "surroundings", lambda: {"commit": "1234567"})
        assert ", not 1234567;" in refusal(capsys, args)
    monkeypatch.setattr(speed, "cpu_model", lambda: "another one")
    assert "bfloat16, not another one;" in refusal(capsys, args)
    assert not measured


def test_two_at_once_do_not_mix(tmp_path, capsys, measured):
    out = tmp_path / "x.csv"
    with speed.open_part(out, tmp_path / "x.csv.part", {}, speed.Row):
        assert "another process" in refusal(capsys, Args(out=out))
    assert not measured


def test_a_program_dies_with_the_command_however_that_dies(tmp_path):
    """The program holds the one end of a pipe, which ends when the program does, and would say so
    if it came to its own end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    program = f"import time\nwith open({str(pipe)!r}, 'w', 1) as f: print('on', file=f); "
    program += "time.sleep(20); print('survived', file=f)"
    code = "import sys; from pathlib import Path; from benchmark.speed.__main__ import train; "
    code += f"train([sys.executable, '-c', {program!r}], Path(), 1, 1)"
    command = subprocess.Popen([sys.executable, "-c", code])
    with open(pipe) as file:
        assert file.readline() == "on\n"
        command.send_signal(signal.SIGKILL)
        assert file.read() == ""
    command.wait()


@pytest.mark.parametrize(("threads", "seen"), [(1, 1), (None, 0)])
def test_threads_are_set_or_left_to_the_program(tmp_path, monkeypatch, threads, seen):
    """The program tells what it sees as if that were seconds of a stage."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    code = (
        "import json, os; seen = int(os.environ.get('OMP_NUM_THREADS', 0)); "
        f"json.dump({{'learning': seen}}, open({str(tmp_path / 'stages.json')!r}, 'w'))"
    )
    measured = speed.train([sys.executable, "-c", code], tmp_path, 2048, threads)
    assert measured["learning"] == seen and measured["steps"] == 2048
    assert 0 < measured["peak_mb"] < 1000 and measured["seconds"] > 0
    assert not [*tmp_path.iterdir()]


def test_a_failed_program_is_an_error():
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        speed.train([sys.executable, "-c", "raise SystemExit(3)"], Path(), 1, 1)


def test_peers_that_were_half_installed_are_installed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "PEERS", tmp_path)
    commands = []

    def run(command: list, check: bool) -> None:
        commands.append(command)
        if "pip" in command and len(commands) == 2:
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(subprocess.CalledProcessError):
        speed.install_peers()
    assert speed.install_peers() == tmp_path / "bin" / "python"
    assert len(commands) == 4 and commands[-1][-5:] == list(speed.PACKAGES)
    speed.install_peers()
    assert len(commands) == 4


def test_many_seeds_are_compared_with_peers_and_with_one_seed(monkeypatch):
    monkeypatch.setattr(speed, "install_peers", lambda: Path("python"))
    args = speed.Args(Path("x"), steps=1024, num_seeds=7)
    commands = speed.programs("seeds-ppo", [], args)
    many = "seeds/ppo_acpg.py --num-seeds 7"
    assert [*commands] == ["SB3 PPO", "CleanRL PPO", "ppo_acpg.py", many, f"{many} --compile"]
    assert commands[many][-2:] == ["--num-seeds", 7]


def test_the_steps_of_many_seeds_are_those_of_all(tmp_path):
    """Two runs in a process, of 8 and 9 rollouts of ten steps."""
    code = f"""
from torch.utils.tensorboard import SummaryWriter
for steps in (80, 90):
    with SummaryWriter(f"{tmp_path}/{{steps}}") as writer:
        writer.add_scalar("charts/SPS", 1.0, steps)
"""
    (tmp_path / "former").mkdir()
    measured = speed.train([sys.executable, "-c", code], tmp_path, 85, 1)
    assert measured["steps"] == 170


def test_the_gpu_is_compared_with_the_cpu():
    """Group by group: each first on the CPU, then the same command without --no-cuda."""
    for commands in speed.on_cuda(["--total-timesteps", 9], num_seeds=3):
        (first, on_cpu), (second, on_gpu), *_ = commands.items()
        assert first == f"{second} --no-cuda"
        assert [word for word in on_cpu if word != "--no-cuda"] == on_gpu
        assert not any("--no-cuda" in command for command in [*commands.values()][1:])


@pytest.mark.parametrize(
    ("compare", "line"),
    [
        (("cuda",), "--compare cuda: needs torch to find a CUDA device"),
        (("ppo", "cuda"), "--compare ppo cuda: cuda must stand alone, as others name"),
    ],
)
def test_the_gpu_is_compared_alone_and_where_there_is_one(
    compare, line, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        speed.main(speed.Args(tmp_path / "speed.csv", compare))
    assert f"error: {line}" in capsys.readouterr().err and not any(tmp_path.iterdir())


@pytest.mark.parametrize("bfloat16", [True, False])
def test_atari_is_compared_with_cleanrl(bfloat16, monkeypatch):
    monkeypatch.setattr(speed, "has_bfloat16", lambda: bfloat16)
    commands = speed.programs("atari", [], speed.Args(Path("x")))
    first, second, *_ = commands
    assert (first, second) == ("CleanRL PPO Atari", "ppo_atari_acpg.py")
    assert "benchmark.speed.cleanrl_atari" in commands[first]
    assert any("--amp" in command for command in commands.values()) == bfloat16
    assert all("--no-cuda" in commands[program] for program in [*commands][1:])
