"""Environment steps per second of whole runs on CartPole-v1, side by side with Stable-Baselines3, and peak memory.

    python -m benchmark.speed --out benchmark/results/speed.csv

Every program trains with the same hyper-parameters (benchmark/sb3.py), logs to TensorBoard, and has one thread. They take
turns, so that a machine whose speed drifts treats them alike; a ratio compares runs of the same turn. Steps per second are the
steps divided by the time of the whole process, start-up and compilation included (the compiler's cache is torch's, so a second
turn compiles faster). Peers are installed into a virtual environment of their own, `.venv-peers`. Leave the machine alone
meanwhile.

Columns: program, turn, steps, seconds, steps_per_second, ratio (to the peer of the same turn), peak_mb (largest resident set).
"""

import csv
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import tyro

PEERS = Path(".venv-peers")
PACKAGES = ("torch==2.13.0", "stable-baselines3==2.9.2", "sb3-contrib==2.9.2", "tensorboard==2.21.0")
COLUMNS = ("program", "turn", "steps", "seconds", "steps_per_second", "ratio", "peak_mb")


@dataclass
class Args:
    out: Path  # CSV to write
    algorithms: tuple[Literal["ppo", "a2c", "trpo"], ...] = ("ppo", "a2c", "trpo")  # what to measure
    steps: int = 500_000  # environment steps of each run
    turns: int = 3  # runs of each program


def install_peers() -> Path:
    """The Python of the peers' virtual environment, made on first use."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


def programs(algorithm: str, runs: str, steps: int) -> dict[str, list[object]]:
    """Commands of the peer, first, and of our script."""
    flags = ["--total-timesteps", steps, "--runs-dir", runs]
    ours = [sys.executable, f"{algorithm}_acpg.py", *flags]
    commands = {
        f"SB3 {algorithm.upper()}": [install_peers(), "benchmark/sb3.py", algorithm, *flags],
        f"{algorithm}_acpg.py": ours,
        f"{algorithm}_acpg.py --etf-head": [*ours, "--etf-head"],
    }
    return commands if algorithm == "trpo" else commands | {f"{algorithm}_acpg.py --compile": [*ours, "--compile"]}


def timed(command: list[object], **kwargs) -> tuple[float, float]:
    """Run a command to its end: wall seconds and peak resident memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, **kwargs)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[:3]} failed with status {status}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main(args: Args) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as runs:
        for turn in range(args.turns):
            for algorithm in args.algorithms:
                peer = None
                for program, command in programs(algorithm, runs, args.steps).items():
                    seconds, peak = timed(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
                    peer = peer or seconds
                    figures = (round(seconds, 2), round(args.steps / seconds), round(peer / seconds, 3), round(peak))
                    rows.append((program, turn, args.steps, *figures))
                    print(*rows[-1], sep="\t", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with open(args.out, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    print("\n| program | steps/s | × SB3 | peak memory |\n|---|---|---|---|")
    for program in dict.fromkeys(row[0] for row in rows):
        speeds, ratios, peaks = zip(*((row[4], row[5], row[6]) for row in rows if row[0] == program))
        print(f"| {program} | {median(speeds):,.0f} | {median(ratios):.2f} | {max(peaks)} MB |")


if __name__ == "__main__":
    main(tyro.cli(Args))
