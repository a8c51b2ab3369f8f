"""Environment steps per second: whole runs beside their peers, by stage and by number of
environments; environments alone.

    python -m benchmark.speed --out benchmark/results/speed.csv --compare ppo

`--compare ppo a2c trpo`: whole runs on CartPole-v1 beside Stable-Baselines3's (sb3-contrib's) with
the same hyper-parameters (sb3.py), with logs, each on one thread; PPO also beside CleanRL's
(cleanrl.py) and SBX's, in JAX. Peers that are packages get a virtual environment of their own,
`.venv-peers`.
`--compare stages`: the four scripts on CartPole-v1, by stage (stages.py).
`--compare num-envs`: ppo_acpg.py on CartPole-v1 with more and more environments, whose steps make
larger batches.
`--compare atari`: whole runs of ppo_atari_acpg.py on Breakout, as it comes and with one thing
changed.
`--compare environments`: environments of benchmark/envs.py, stepped with random actions, eight at a
time and on all cores, beside Gymnasium's one after the other and in processes ("async"), with
Gymnasium's wrappers where ours shows other pixels.

Programs take turns, so that a machine whose speed drifts treats them alike; a ratio compares a run
with that of the first program of its group in the same turn. Steps per second are the steps divided
by the time of the whole process, start-up and compilation included (the compiler's cache is
torch's, so a second turn compiles faster). Leave the machine alone meanwhile.

Columns: program, turn, steps, seconds, steps_per_second, ratio, peak_mb (largest resident set of
the process); where they are known, the seconds that a run spent on environment, inference, learning
and collapse (the measurement of it); cpu, the processor's model as the system names it.
"""

import csv
import itertools
import json
import os
import platform
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
import torch
import tyro
from gymnasium.vector import VectorEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmark.algorithms import ALGORITHMS

PEERS = Path(".venv-peers")
PACKAGES = (
    "torch==2.13.0",
    "stable-baselines3==2.9.2",
    "sb3-contrib==2.9.2",
    "sbx-rl==0.28.0",
    "tensorboard==2.21.0",
)
NUM_ENVS = 8
STAGES = ("environment", "inference", "learning", "collapse")
COLUMNS = (
    *("program", "turn", "steps", "seconds", "steps_per_second", "ratio", "peak_mb"),
    *STAGES,
    "cpu",
)
MANY = (1, 2, 4, 8, 16, 32, 64)  # of --compare num-envs
ATARI = (  # flags of --compare atari
    "",
    "--no-channels-last",
    "--compile",
    "--amp",
    "--compile --amp",
    "--num-threads 1",
    "--backend ale",
    "--etf-head",
)
Comparison = Literal["ppo", "a2c", "trpo", "stages", "num-envs", "atari", "environments"]


@dataclass
class Args:
    out: Path  # CSV to write
    compare: tuple[Comparison, ...] = ("ppo", "a2c", "trpo")
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


def programs(comparison: str, runs: str, steps: int) -> dict[str, list[object]]:
    """Commands of the program to compare with, first, and of the others."""
    python = sys.executable
    flags = ["--total-timesteps", steps, "--runs-dir", runs]
    if comparison == "atari":
        ours = [python, "ppo_atari_acpg.py", *flags, "--eval-episodes", 0]
        bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # else --amp is refused
        chosen = [extra for extra in ATARI if bfloat16 or "--amp" not in extra]
        return {f"ppo_atari_acpg.py {extra}": [*ours, *extra.split()] for extra in chosen}
    if comparison == "stages":
        timed = [python, "-m", "benchmark.speed.stages"]
        return {f"{script}.py": [*timed, script, *flags] for script in ALGORITHMS}
    if comparison == "num-envs":
        ours = [python, "ppo_acpg.py", *flags, "--num-envs"]
        return {f"ppo_acpg.py --num-envs {number}": [*ours, number] for number in MANY}
    return peers(comparison, flags) | scripts(f"{comparison}_acpg.py", flags)


def peers(algorithm: str, flags: list[object]) -> dict[str, list[object]]:
    """Commands of other people's programs."""
    packaged = [install_peers(), "benchmark/speed/sb3.py"]
    commands = {f"SB3 {algorithm.upper()}": [*packaged, algorithm, *flags]}
    if algorithm == "ppo":
        commands["CleanRL PPO"] = [sys.executable, "-m", "benchmark.speed.cleanrl", *flags]
        commands["SBX PPO"] = [*packaged, "sbx-ppo", *flags]
    return commands


def scripts(script: str, flags: list[object]) -> dict[str, list[object]]:
    """Commands of a script of ours with each flag that may change its speed."""
    ours = [sys.executable, script, *flags]
    return {
        script: ours,
        f"{script} --etf-head": [*ours, "--etf-head"],
        f"{script} --compile": [*ours, "--compile"],
    }


def train(command: list[object], runs: Path, steps: int, threads: int | None) -> dict[str, float]:
    """Run a command to its end: steps, wall seconds, peak resident memory, and seconds by stage
    where they are known."""
    start = time.perf_counter()
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    process = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.DEVNULL, env=environment
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[:3]} failed with status {status}")
    measured = {
        "steps": steps,
        "seconds": time.perf_counter() - start,
        "peak_mb": round(usage.ru_maxrss / 1024),
    }
    if (stages := runs / "stages.json").exists():
        measured |= json.loads(stages.read_text())
        stages.unlink()
        return measured
    run = max(runs.iterdir(), key=lambda path: path.stat().st_mtime)
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    for stage in STAGES:
        if f"seconds/{stage}" in events.Tags()["scalars"]:
            seconds = sum(event.value for event in events.Scalars(f"seconds/{stage}"))
            measured[stage] = round(seconds, 2)
    return measured


def environments() -> dict[str, dict[str, Callable[[], VectorEnv]]]:
    """For each task, makers of Gymnasium's environments, first, and of ours."""
    grey = [
        gym.wrappers.GrayscaleObservation,
        partial(gym.wrappers.FrameStackObservation, stack_size=4),
    ]
    pairs = {
        "DiscreteCarRacing-v0": ("CarRacing-v3", {"continuous": False, "wrappers": grey}),
        "envpool/Acrobot-v1": ("Acrobot-v1", {}),
        "envpool/LunarLander-v3": ("LunarLander-v3", {}),
    }
    makers = {}
    for ours, (theirs, flags) in pairs.items():
        gymnasium = partial(gym.make_vec, theirs, NUM_ENVS, **flags)
        makers[ours] = {
            f"Gymnasium {theirs}": partial(gymnasium, vectorization_mode="sync"),
            f"Gymnasium {theirs}, async": partial(gymnasium, vectorization_mode="async"),
            ours: partial(gym.make_vec, f"benchmark.envs:{ours}", NUM_ENVS),
        }
    return makers


def step_randomly(make: Callable[[], VectorEnv], seconds: float) -> dict[str, float]:
    """Step new environments with random actions for that long: steps of all of them together, and
    seconds taken."""
    envs = make()
    envs.reset(seed=1)
    rng = np.random.default_rng(0)
    steps = 0
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
                yield {
                    name: partial(step_randomly, make, args.seconds)
                    for name, make in makers.items()
                }
        else:
            threads = None if comparison == "atari" else 1
            yield {
                name: partial(train, command, Path(runs), args.steps, threads)
                for name, command in programs(comparison, runs, args.steps).items()
            }


def cpu_model() -> str:
    """The model of the processor, and whether it has instructions for bfloat16, which --amp needs."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return f"{model}, {'with' if bfloat16 else 'without'} bfloat16"


def main(args: Args) -> None:
    cpu = cpu_model()
    rows = []
    with tempfile.TemporaryDirectory() as runs:
        for turn, group in itertools.product(range(args.turns), groups(args, runs)):
            first = None
            for program, run in group.items():
                row = {"program": program.strip(), "turn": turn} | run()
                speed = row["steps"] / row["seconds"]
                first = first or speed
                row["seconds"] = round(row["seconds"], 2)
                row["steps_per_second"] = round(speed)
                row["ratio"] = round(speed / first, 3)
                row["cpu"] = cpu
                rows.append(row)
                print(*row.values(), sep="\t", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with open(args.out, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print_table(rows)


def print_table(rows: list[dict[str, object]]) -> None:
    """Medians over turns, a line per program."""
    shown = [column for column in COLUMNS[4:-1] if any(column in row for row in rows)]
    print("\n| program | " + " | ".join(shown) + " |\n|---" + "|---" * len(shown) + "|")
    for program in dict.fromkeys(row["program"] for row in rows):
        turns = [row for row in rows if row["program"] == program]
        cells = [cell([row[column] for row in turns if column in row]) for column in shown]
        print(f"| {program} | " + " | ".join(cells) + " |")


def cell(values: list[float]) -> str:
    """Their median; of none, nothing."""
    if not values:
        return ""
    middle = median(values)
    return f"{middle:,.2f}" if middle < 10 else f"{middle:,.0f}"


if __name__ == "__main__":
    main(tyro.cli(Args))
