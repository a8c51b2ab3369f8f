"""Runs made up for the tests of collate.py and report.py, with the files of real ones.

    python -m tests.made_runs --out made --runs 1000

makes as many runs of 2,000 episodes, half of each head, for measuring `python -m benchmark.collate`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro


@dataclass
class Args:
    out: Path  # directory to make the runs in
    runs: int = 1000
    episodes: int = 2000  # of each run


def make_run(
    root: Path,
    returns,
    *,
    env_id="Env-v0",
    script="ppo_acpg",
    head="linear",
    seed=1,
    collapse=None,
    **flags,
) -> Path:
    """A finished run's directory with one episode of 10 steps per given return. `collapse` are the entries of that name in the
    checkpoint, which otherwise has none. Flags given override the run's own."""
    total = 10 * len(returns)
    run = root / f"{env_id.replace('/', '-').replace(':', '-')}__{script}__{head}__{seed}__0"
    run.mkdir(parents=True)
    frame, _, trainable = head.replace("etf", "simplex").partition("-")
    own = {"env_id": env_id, "seed": seed, "total_timesteps": total, "etf_head": head != "linear"}
    own |= {
        "head_frame": "simplex" if head == "linear" else frame,
        "head_trainable": bool(trainable),
    }
    (run / "args.json").write_text(json.dumps(own | flags))
    lines = [f"{10 * (n + 1)},{value},10,{(n + 1) / 100:.2f}" for n, value in enumerate(returns)]
    (run / "episodes.csv").write_text(
        "\n".join(["global_step,return,length,seconds", *lines]) + "\n"
    )
    state = {"global_step": total, "agent": {"weight": torch.zeros(64, 64)}}
    state |= {"log_sizes": {"episodes.csv": (run / "episodes.csv").stat().st_size}}
    torch.save(state | ({"collapse": collapse} if collapse else {}), run / "checkpoint.pt")
    return run


def main(args: Args) -> None:
    random = np.random.default_rng(0)
    collapse = [
        {"global_step": step, "within_variability": 1 / step}
        for step in range(1, 10 * args.episodes, 100)
    ]
    for n in range(args.runs):
        returns = random.normal(100, 10, args.episodes).round(2)
        make_run(args.out, returns, head=("linear", "etf")[n % 2], seed=n // 2, collapse=collapse)


if __name__ == "__main__":
    main(tyro.cli(Args))
