"""The scripts' peers, for speed.py and paper/peers.sh: PPO and A2C of Stable-Baselines3, TRPO of sb3-contrib, PPO of SBX.

    .venv-peers/bin/python benchmark/sb3.py a2c --seed 1 --total-timesteps 200000 --runs-dir runs/sb3

CartPole-v1 with the default hyper-parameters of the script of the same name, logged to TensorBoard, on one thread. A run
leaves args.json, episodes.csv and checkpoint.pt as a script's does, so collate.py reads it. It needs the peers' own virtual
environment, which `python -m benchmark.speed` makes, and so imports nothing of this project.
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
PPO_FLAGS = {"n_steps": 128, "batch_size": 128, "n_epochs": 4, "clip_range_vf": 0.2, "ent_coef": 0.01}
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
        self.file, self.start = open(path, "w", 1), time.time()
        self.file.write("global_step,return,length,seconds\n")

    def _on_step(self) -> bool:
        for episode in (info["episode"] for info in self.locals["infos"] if "episode" in info):
            self.file.write(f"{self.num_timesteps},{episode['r']},{episode['l']},{time.time() - self.start:.2f}\n")
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithm", choices=PEERS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--total-timesteps", type=int, default=500_000)
    parser.add_argument("--runs-dir", default="runs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    run = Path(args.runs_dir, f"CartPole-v1__sb3-{args.algorithm}__linear__{args.seed}__{time.time():.3f}")
    run.mkdir(parents=True)
    (run / "args.json").write_text(
        json.dumps({"env_id": "CartPole-v1", "seed": args.seed, "total_timesteps": args.total_timesteps, "etf_head": False})
    )
    package, name, num_envs, learning_rate, flags = PEERS[args.algorithm]
    peer = getattr(import_module(package), name)  # only this one, as start-up counts
    envs = make_vec_env("CartPole-v1", n_envs=num_envs, seed=1_000_003 * args.seed % 2**31)
    model = peer(
        "MlpPolicy", envs, lambda remaining: learning_rate * remaining, seed=args.seed, tensorboard_log=run, **COMMON, **flags
    )
    model.learn(args.total_timesteps, callback=Episodes(run / "episodes.csv"))
    model.save(run / "checkpoint.pt")


if __name__ == "__main__":
    main()
