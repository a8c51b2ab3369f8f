"""Environment steps per second: whole runs beside their peers, by stage and by number of environments; environments alone.

    python -m benchmark.speed --out benchmark/results/speed.csv --compare ppo

`--compare ppo a2c trpo`: whole runs on CartPole-v1 beside Stable-Baselines3's (sb3-contrib's; PPO also beside SBX's, in JAX)
with the same hyper-parameters (benchmark/sb3.py), with logs, each on one thread. Peers get a virtual environment of their
own, `.venv-peers`.
`--compare stages`: the four scripts on CartPole-v1, by stage (benchmark/stages.py).
`--compare num-envs`: ppo_acpg.py on CartPole-v1 with more and more environments, whose steps make larger batches.
`--compare atari`: whole runs of ppo_atari_acpg.py on Breakout, as it comes and with one thing changed.
`--compare environments`: environments of benchmark/envs.py, stepped with random actions, eight at a time and on all cores,
beside Gymnasium's one after the other and in processes ("async"), with Gymnasium's wrappers where ours shows other pixels.

Programs take turns, so that a machine whose speed drifts treats them alike; a ratio compares a run with that of the first
program of its group in the same turn. Steps per second are the steps divided by the time of the whole process, start-up and
compilation included (the compiler's cache is torch's, so a second turn compiles faster). Leave the machine alone meanwhile.

Columns: program, turn, steps, seconds, steps_per_second, ratio, peak_mb (largest resident set of the process); where they are
known, the seconds that a run spent on environment, inference, learning and collapse (the measurement of it).
"""

import csv
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal

import gymnasium as gym
import numpy as np
import tyro
from gymnasium.vector import VectorEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

PEERS = Path(".venv-peers")
PACKAGES = ("torch==2.13.0", "stable-baselines3==2.9.2", "sb3-contrib==2.9.2", "sbx-rl==0.28.0", "tensorboard==2.21.0")
NUM_ENVS = 8
STAGES = ("environment", "inference", "learning", "collapse")
COLUMNS = ("program", "turn", "steps", "seconds", "steps_per_second", "ratio", "peak_mb", *STAGES)
MANY = (1, 2, 4, 8, 16, 32, 64)  # of --compare num-envs
ATARI = ("", "--no-channels-last", "--compile", "--amp", "--compile --amp", "--num-threads 1", "--backend ale", "--etf-head")


@dataclass
class Args:
    out: Path  # CSV to write
    compare: tuple[Literal["ppo", "a2c", "trpo", "stages", "num-envs", "atari", "environments"], ...] = ("ppo", "a2c", "trpo")
    steps: int = 500_000  # environment steps of each training run
    seconds: float = 10.0  # for which each environment is stepped
    turns: int = 3  # runs of each program


def install_peers() -> Path:
    """The Python of the peers' virtual environment, made on first use."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


def programs(script: str, runs: str, steps: int) -> dict[str, list[object]]:
    """Commands of the program to compare with, first, and of the others."""
    flags = ["--total-timesteps", steps, "--runs-dir", runs]
    if script == "atari":
        return {f"ppo_atari_acpg.py {extra}": [sys.executable, "ppo_atari_acpg.py", *flags, *extra.split()] for extra in ATARI}
    if script == "stages":
        names = [f"{algorithm}_acpg" for algorithm in ("ppo", "a2c", "trpo", "reinforce")]
        return {f"{name}.py": [sys.executable, "-m", "benchmark.stages", name, *flags] for name in names}
    if script == "num-envs":
        ours = [sys.executable, "ppo_acpg.py", *flags, "--num-envs"]
        return {f"ppo_acpg.py --num-envs {number}": [*ours, number] for number in MANY}
    ours, peer = [sys.executable, f"{script}_acpg.py", *flags], [install_peers(), "benchmark/sb3.py"]
    commands = {f"SB3 {script.upper()}": [*peer, script, *flags]}
    commands |= {"SBX PPO": [*peer, "sbx-ppo", *flags]} if script == "ppo" else {}
    commands |= {f"{script}_acpg.py": ours, f"{script}_acpg.py --etf-head": [*ours, "--etf-head"]}
    return commands if script == "trpo" else commands | {f"{script}_acpg.py --compile": [*ours, "--compile"]}


def train(command: list[object], runs: Path, steps: int, threads: int | None) -> dict[str, float]:
    """Run a command to its end: steps, wall seconds, peak resident memory, and seconds by stage where they are known."""
    start = time.perf_counter()
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[:3]} failed with status {status}")
    measured = {"steps": steps, "seconds": time.perf_counter() - start, "peak_mb": round(usage.ru_maxrss / 1024)}
    if (stages := runs / "stages.json").exists():
        measured |= json.loads(stages.read_text())
        stages.unlink()
        return measured
    run = max(runs.iterdir(), key=lambda path: path.stat().st_mtime)
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    logged = [stage for stage in STAGES if f"seconds/{stage}" in events.Tags()["scalars"]]
    return measured | {stage: round(sum(event.value for event in events.Scalars(f"seconds/{stage}")), 2) for stage in logged}


def environments() -> dict[str, dict[str, Callable[[], VectorEnv]]]:
    """For each task, makers of Gymnasium's environments, first, and of ours."""
    grey = [gym.wrappers.GrayscaleObservation, partial(gym.wrappers.FrameStackObservation, stack_size=4)]
    pairs = {
        "DiscreteCarRacing-v0": ("CarRacing-v3", {"continuous": False, "wrappers": grey}),
        "envpool/Acrobot-v1": ("Acrobot-v1", {}),
        "envpool/LunarLander-v3": ("LunarLander-v3", {}),
    }
    return {
        ours: {
            f"Gymnasium {theirs}": partial(gym.make_vec, theirs, NUM_ENVS, vectorization_mode="sync", **flags),
            f"Gymnasium {theirs}, async": partial(gym.make_vec, theirs, NUM_ENVS, vectorization_mode="async", **flags),
            ours: partial(gym.make_vec, f"benchmark.envs:{ours}", NUM_ENVS),
        }
        for ours, (theirs, flags) in pairs.items()
    }


def step_randomly(make: Callable[[], VectorEnv], seconds: float) -> dict[str, float]:
    """Step new environments with random actions for that long: steps of all of them together, and seconds taken."""
    envs, rng, steps = make(), np.random.default_rng(0), 0
    envs.reset(seed=1)
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        envs.step(rng.integers(envs.single_action_space.n, size=NUM_ENVS))
        steps += NUM_ENVS
    seconds = time.perf_counter() - start
    envs.close()
    return {"steps": steps, "seconds": seconds}


def groups(args: Args, runs: str) -> Iterator[dict[str, Callable[[], dict[str, float]]]]:
    """What to measure: of each group the first program is what the others are compared with."""
    for comparison in args.compare:
        if comparison == "environments":
            for makers in environments().values():
                yield {name: partial(step_randomly, make, args.seconds) for name, make in makers.items()}
        else:
            commands, threads = programs(comparison, runs, args.steps), None if comparison == "atari" else 1
            yield {name: partial(train, command, Path(runs), args.steps, threads) for name, command in commands.items()}


def main(args: Args) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as runs:
        for turn, group in itertools.product(range(args.turns), groups(args, runs)):
            first = None
            for program, run in group.items():
                row = {"program": program.strip(), "turn": turn} | run()
                speed, row["seconds"] = row["steps"] / row["seconds"], round(row["seconds"], 2)
                first = first or speed
                row |= {"steps_per_second": round(speed), "ratio": round(speed / first, 3)}
                rows.append(row)
                print(*row.values(), sep="\t", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with open(args.out, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    shown = [column for column in COLUMNS[4:] if any(column in row for row in rows)]
    print("\n| program | " + " | ".join(shown) + " |\n|---" + "|---" * len(shown) + "|")
    for program in dict.fromkeys(row["program"] for row in rows):
        turns = [row for row in rows if row["program"] == program]
        medians = [median(row[column] for row in turns) if column in turns[0] else math.nan for column in shown]
        medians = [f"{value:,.2f}" if value < 10 else f"{value:,.0f}".replace("nan", "") for value in medians]
        print(f"| {program} | " + " | ".join(medians) + " |")


if __name__ == "__main__":
    main(tyro.cli(Args))
