"""The scripts' peers that are packages: Stable-Baselines3's PPO and A2C, sb3-contrib's TRPO, SBX's
PPO. For `python -m benchmark.speed` and benchmark/paper/peers.sh.

    .venv-peers/bin/python benchmark/speed/sb3.py a2c --seed 1 --runs-dir runs/sb3

CartPole-v1 with the default hyper-parameters of the script of the same name, logged to TensorBoard,
on one thread. A run leaves args.json, episodes.csv and checkpoint.pt as a script's does, so
benchmark/collate.py reads it. It needs the peers' own virtual environment, which `python -m
benchmark.speed` makes, and so imports nothing of this project.
"""

import argparse
import json
import time
from importlib import import_module
from pathlib import Path

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

COMMON = {"gamma": 0.99, "device": "cpu"}
PPO_FLAGS = {
    "n_steps": 128,
    "batch_size": 128,
    "n_epochs": 4,
    "clip_range_vf": 0.2,
    "ent_coef": 0.01,
}
PEERS = {
    "ppo": ("stable_baselines3", "PPO", 4, 2.5e-4, PPO_FLAGS),
    "sbx-ppo": ("sbx", "PPO", 4, 2.5e-4, PPO_FLAGS),
    "a2c": ("stable_baselines3", "A2C", 8, 1e-3, {"n_steps": 5, "rms_prop_eps": 3.16e-3}),
    "trpo": ("sb3_contrib", "TRPO", 4, 1e-3, {"n_steps": 512}),
}


class Episodes(BaseCallback):
    """Write episodes.csv."""

    def __init__(self, path: Path):
        super().__init__()
        self.file = open(path, "w", buffering=1)
        self.start = time.time()
        self.file.write("global_step,return,length,seconds\n")

    def _on_step(self) -> bool:
        seconds = time.time() - self.start
        for info in self.locals["infos"]:
            if "episode" in info:
                total = info["episode"]["r"]
                length = info["episode"]["l"]
                self.file.write(f"{self.num_timesteps},{total},{length},{seconds:.2f}\n")
        return True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("algorithm", choices=PEERS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--total-timesteps", type=int, default=500_000)
    parser.add_argument("--runs-dir", default="runs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    name = f"CartPole-v1__sb3-{args.algorithm}__linear__{args.seed}__{time.time():.3f}"
    run = Path(args.runs_dir, name)
    run.mkdir(parents=True)
    recorded = {
        "env_id": "CartPole-v1",
        "seed": args.seed,
        "total_timesteps": args.total_timesteps,
        "etf_head": False,
        "script": f"sb3-{args.algorithm}",
    }
    (run / "args.json").write_text(json.dumps(recorded))
    package, peer_name, num_envs, learning_rate, flags = PEERS[args.algorithm]
    peer = getattr(import_module(package), peer_name)  # only this one, as start-up counts
    envs = make_vec_env("CartPole-v1", n_envs=num_envs, seed=1_000_003 * args.seed % 2**31)
    model = peer(
        "MlpPolicy",
        envs,
        lambda remaining: learning_rate * remaining,
        seed=args.seed,
        tensorboard_log=run,
        **COMMON,
        **flags,
    )
    model.learn(args.total_timesteps, callback=Episodes(run / "episodes.csv"))
    model.save(run / "checkpoint.pt")


if __name__ == "__main__":
    main()
