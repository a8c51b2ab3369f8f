"""Figures of benchmark/run.py that need a quiet machine, so they are taken by hand:

    python -m tests.run_checks --out checks

overhead: seconds per run that the runner takes beyond the scripts: 40 runs of tests/stand_in.py by
it, one at a time, without report, against the same commands one after the other.
workers: 8 runs of PPO on CartPole-v1 by two workers and by one, without report: how many times as
fast (5 minutes).
kills: 10 runs of PPO while the runner is killed at 20 random moments, then the same command, against
an undisturbed execution: which runs are equal to its, and the steps of the others (10 minutes).
"""

import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from tests.test_run import ROOT, WITHOUT_REPORT, episodes, records, run_dir


@dataclass
class Args:
    out: Path  # a new directory
    checks: tuple[Literal["overhead", "workers", "kills"], ...] = (
        "overhead",
        "workers",
        "kills",
    )  # which of them
    kills: int = 20  # SIGKILLs
    timesteps: int = 100_000  # steps of PPO's runs


def start(*flags: object, cwd: Path = ROOT, **options: object) -> subprocess.Popen:
    """Start benchmark.run without its report."""
    words = [sys.executable, "-c", WITHOUT_REPORT, *map(str, flags)]
    return subprocess.Popen(words, cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)}, **options)


def seconds(*flags: object, **options: object) -> float:
    """How long benchmark.run takes."""
    begin = time.perf_counter()
    assert start(*flags, **options).wait() == 0
    return time.perf_counter() - begin


def overhead(out: Path) -> float:
    """Seconds per run that the runner takes beyond the scripts."""
    out.mkdir(parents=True)
    shutil.copy(ROOT / "tests/stand_in.py", out / "ppo_acpg.py")
    (out / "slot").touch()
    flags = ("--num-seeds", 20, "--total-timesteps", 100, "--workers", 1, "--out")
    dry = start(*flags, "direct", "--dry-run", cwd=out, stdout=subprocess.PIPE, text=True)
    lines = dry.communicate()[0].splitlines()
    begin = time.perf_counter()
    for line in lines:
        subprocess.run(shlex.split(line), cwd=out, check=True, stdout=subprocess.DEVNULL)
    direct = time.perf_counter() - begin
    return (seconds(*flags, "runner", cwd=out) - direct) / len(lines)


def workers(out: Path, timesteps: int) -> float:
    """How many times as fast two workers are as one."""
    flags = ("--num-seeds", 4, "--total-timesteps", timesteps)
    one, two = (seconds(*flags, "--workers", n, "--out", out / str(n)) for n in (1, 2))
    return one / two


def kills(out: Path, count: int, timesteps: int) -> None:
    """Kill the runner that often, then let it finish; print how each run compares with an
    undisturbed one."""
    flags = ["--num-seeds", 5, "--total-timesteps", timesteps]
    flags += ["--flags", "all --checkpoint-every 10", "--out"]
    moments = random.Random(1)
    for _ in range(count):
        runner = start(*flags, out / "killed")
        time.sleep(moments.uniform(0.5, 12))
        runner.kill()
        runner.wait()
    seconds(*flags, out / "killed")
    seconds(*flags, out / "undisturbed")
    for name, record in records(out / "killed").items():
        ends = episodes(name, out / "killed")
        undisturbed = episodes(name, out / "undisturbed")
        steps = [int(step) for step, *_ in ends]
        checkpoint = run_dir(name, out / "killed") / "checkpoint.pt"
        total = torch.load(checkpoint, weights_only=True)["global_step"]
        left = total - sum(int(length) for *_, length in ends)
        assert record["outcome"] == "finished" and steps == sorted(steps)
        # it ends with a rollout, and holds no step twice
        assert timesteps <= total < timesteps + 4 * 128 and left < 4 * 500
        assert ends == undisturbed or record["attempts"] > 1
        how = "equal to the undisturbed"
        if ends != undisturbed:
            how = f"undisturbed {undisturbed[-1][0]}"
        last = f"last episode at step {steps[-1]} ({how}), {left} steps after it"
        print(f"{name}: {record['attempts']} attempts, {last}")


def main(args: Args) -> None:
    for check in args.checks:
        if check == "overhead":
            print(f"overhead: {overhead(args.out / check):.3f} s per run")
        elif check == "workers":
            print(
                f"two workers: {workers(args.out / check, args.timesteps):.2f} times as fast as one"
            )
        else:
            kills(args.out / check, args.kills, args.timesteps)


if __name__ == "__main__":
    main(tyro.cli(Args))
