"""Environment steps per second of whole runs on CartPole-v1, side by side with Stable-Baselines3, and peak memory.

    python -m benchmark.speed --out benchmark/results/speed.csv

Every program trains with the same hyper-parameters, logs to TensorBoard, and has one thread. They take turns, so that a
machine whose speed drifts treats them alike; a ratio compares runs of the same turn. Steps per second are the steps
divided by the time of the whole process, start-up and compilation included. Peers are installed into a virtual
environment of their own, `.venv-peers`. Leave the machine alone meanwhile.

Columns: program, turn, steps, seconds, steps_per_second, peak_mb (largest resident set of the process).
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

import tyro

PEERS = Path(".venv-peers")
SB3_PPO = """
import sys
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
torch.set_num_threads(1)
steps, lr = int(sys.argv[1]), lambda remaining: 2.5e-4 * remaining
ppo = PPO("MlpPolicy", make_vec_env("CartPole-v1", n_envs=4, seed=1), learning_rate=lr, n_steps=128, batch_size=128,
          n_epochs=4, gamma=0.99, gae_lambda=0.95, clip_range=0.2, clip_range_vf=0.2, ent_coef=0.01, vf_coef=0.5,
          max_grad_norm=0.5, seed=1, device="cpu", tensorboard_log=sys.argv[2])
ppo.learn(steps)
"""


@dataclass
class Args:
    out: Path  # CSV to write
    steps: int = 500_000  # environment steps of each run
    turns: int = 3  # runs of each program


def install_peers() -> Path:
    """The Python of the peers' virtual environment, made on first use."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "torch==2.13.0", "stable-baselines3==2.9.2", "tensorboard"], check=True
        )
    return python


def timed(command: list[object], **kwargs) -> tuple[float, float]:
    """Run a command to its end: wall seconds and peak resident memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, **kwargs)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[:3]} failed with status {status}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main(args: Args) -> None:
    ours = [sys.executable, "ppo_acpg.py", "--total-timesteps", args.steps, "--runs-dir"]
    rows = []
    with tempfile.TemporaryDirectory() as runs:
        programs = {
            "SB3 PPO": [install_peers(), "-c", SB3_PPO, args.steps, runs],
            "ppo_acpg.py": [*ours, runs],
            "ppo_acpg.py --etf-head": [*ours, runs, "--etf-head"],
            "ppo_acpg.py --compile": [*ours, runs, "--compile"],
        }
        for turn in range(args.turns):
            for program, command in programs.items():
                seconds, peak = timed(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
                rows.append((program, turn, args.steps, round(seconds, 2), round(args.steps / seconds), round(peak)))
                print(*rows[-1], sep="\t", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with open(args.out, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [("program", "turn", "steps", "seconds", "steps_per_second", "peak_mb"), *rows]
        )
    peer = {turn: speed for program, turn, _, _, speed, _ in rows if program == "SB3 PPO"}
    print("\n| program | steps/s | × SB3 | peak memory |\n|---|---|---|---|")
    for program in programs:
        runs = [row for row in rows if row[0] == program]
        speed, ratio = median(row[4] for row in runs), median(row[4] / peer[row[1]] for row in runs)
        print(f"| {program} | {speed:,.0f} | {ratio:.2f} | {max(row[5] for row in runs)} MB |")


if __name__ == "__main__":
    main(tyro.cli(Args))
