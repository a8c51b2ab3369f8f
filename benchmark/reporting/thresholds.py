"""When is an environment solved, and what do 0 and 1 mean in a normalised score? The answers stand in thresholds.csv.

    python -m benchmark.reporting.thresholds --env-ids CartPole-v1 Acrobot-v1

measures the random policy's return, the table's column `random`: mean and standard error over episodes, as CSV.

Columns of thresholds.csv, each beside its source:
env_id     as Gymnasium knows it, without the module and without envpool's or ALE's prefix
threshold  mean return of 100 episodes that counts as solved; empty where the environment declares its own, which goes first
random     mean return of the policy that draws every action uniformly: 0 of the normalised score
best       best known or human return: 1 of the normalised score; where it is empty the threshold is
"""

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import gymnasium as gym
import numpy as np
import tyro

TABLE = Path(__file__).with_suffix(".csv")


@dataclass
class Args:
    env_ids: tuple[str, ...]  # environments to measure
    episodes: int = 1000  # episodes of each


def plain_id(env_id: str) -> str:
    """The id without `module:` and without the prefix of a back-end that runs the same task."""
    return re.sub(r"^(.*:)?((envpool|Atari|ALE)/)?", "", env_id)


@cache
def table() -> dict[str, dict[str, str]]:
    """The rows of thresholds.csv by id."""
    with open(TABLE, newline="") as file:
        return {row["env_id"]: row for row in csv.DictReader(file)}


@cache
def threshold(env_id: str) -> float | None:
    """The return that counts as solved: as the environment declares it, else the table's; None if nobody says."""
    for name in (plain_id(env_id), env_id):
        try:
            declared = gym.spec(name).reward_threshold
        except Exception:  # an id that only a script knows, or a package that raises anything
            continue
        if declared is not None:
            return float(declared)
    listed = table().get(plain_id(env_id), {}).get("threshold")
    return float(listed) if listed else None


def normalised(env_id: str, score: float) -> float | None:
    """`score` on the scale of 0, the random policy, to 1, the best known return, else the threshold; None if unknown."""
    row = table().get(plain_id(env_id), {})
    best = float(row["best"]) if row.get("best") else threshold(env_id)
    if best is None or not row.get("random"):
        return None
    return (score - float(row["random"])) / (best - float(row["random"]))


def random_returns(env_id: str, episodes: int) -> np.ndarray:
    """(episodes,): undiscounted returns of uniformly random actions. The k-th episode starts from seed k."""
    env = gym.make(env_id)
    returns = np.zeros(episodes)
    env.action_space.seed(0)
    for k in range(episodes):
        env.reset(seed=k)
        ended = False
        while not ended:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            returns[k] += reward
            ended = terminated or truncated
    env.close()
    return returns


def main(args: Args) -> None:
    from benchmark.collate import fail  # not above, as that imports this

    if args.episodes < 2:
        fail("episodes", args.episodes, "a standard error needs two")
    header = "env_id,random,standard_error\n"
    for env_id in args.env_ids:
        try:
            returns = random_returns(env_id, args.episodes)
        except (gym.error.Error, ImportError) as error:
            fail("env-ids", env_id, error)
        standard_error = returns.std(ddof=1) / len(returns) ** 0.5
        print(f"{header}{env_id},{returns.mean():.4g},{standard_error:.2g}", flush=True)
        header = ""


if __name__ == "__main__":
    main(tyro.cli(Args))
