"""Tables as benchmark/collate.py makes them, of made-up runs, for the tests of report.py and for measuring it.

    python -m tests.made_tables --out made --environments 40 --arms 8 --seeds 10

Every arm but the first, the baseline, gains `gain` standard deviations on every second environment.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from benchmark.reporting.measures import COLLAPSE
from benchmark.reporting.thresholds import normalised

HEADS = ("linear", "etf", "random", "orthogonal")
HEADS = (*HEADS, *(f"{head}-trainable" for head in HEADS[1:]))
IDS = ("CartPole-v1", "Acrobot-v1", "FrozenLake-v1", "LunarLander-v3")  # normalised by references


@dataclass
class Args:
    out: Path  # directory to write the tables to
    environments: int = 40
    arms: int = 8
    seeds: int = 10
    gain: float = 1.0


def made_runs(envs: list[str], arms: list[str], seeds: int, gain: float = 0.0) -> pd.DataFrame:
    """Rows of runs.csv: on every second environment the arms but the first gain that many standard deviations, which is 1."""
    random = np.random.default_rng(0)
    keys = pd.MultiIndex.from_product([range(len(envs)), range(len(arms)), range(1, seeds + 1)])
    env, arm, seed = (keys.get_level_values(level) for level in range(3))
    helped = gain * ((env % 2 == 0) & (arm > 0))
    runs = pd.DataFrame({"run": [f"run-{n}" for n in range(len(keys))], "script": "ppo_acpg"})
    runs = runs.assign(group="ppo_acpg", env_id=np.array(envs)[env], arm=np.array(arms)[arm])
    runs = runs.assign(baseline=arms[0], head=runs["arm"], seed=seed)
    for measure in ("best", "final", "last_tenth", "area", "greedy"):
        runs[measure] = random.normal(helped, 1)
    ends = {"threshold": 2.0, "stop": np.where(runs["area"] > 0, 1000.0, np.nan)}
    runs = runs.assign(**ends, seconds=1.0, steps_per_second=1000.0)
    runs["normalised"] = [normalised(*pair) for pair in zip(runs["env_id"], runs["final"])]
    return runs.assign(**dict.fromkeys(COLLAPSE, 0.5))


def made_curves(runs: pd.DataFrame) -> pd.DataFrame:
    """25 rows of curves.csv for each run, rising to its final return."""
    random = np.random.default_rng(1)
    curves = runs.loc[runs.index.repeat(25), [*runs.columns[:8], "final"]].reset_index(drop=True)
    share = np.tile(np.arange(1, 26) / 25, len(runs))
    curves = curves.assign(step=1000 * share, value=curves["final"] * share)
    for column in COLLAPSE:
        curves[column] = (1.1 - share) * random.lognormal(0, 0.2, len(curves))
    return curves.drop(columns="final")


def write_tables(runs: pd.DataFrame, out: Path) -> None:
    """The tables of these runs, all of which were planned."""
    out.mkdir(parents=True, exist_ok=True)
    runs.to_csv(out / "runs.csv", index=False)
    made_curves(runs).to_csv(out / "curves.csv", index=False)
    counts = (
        runs.groupby(["group", "script", "env_id", "arm"]).size().rename("planned").reset_index()
    )
    counts = counts.assign(finished=counts["planned"], failed=0, damaged=0, unfinished=0)
    counts.to_csv(out / "counts.csv", index=False)


def main(args: Args) -> None:
    envs = [f"module{n // 4}:{IDS[n % 4]}" for n in range(args.environments)]
    arms = [HEADS[n] if n < len(HEADS) else f"arm {n}" for n in range(args.arms)]
    write_tables(made_runs(envs, arms, args.seeds, args.gain), args.out)


if __name__ == "__main__":
    main(tyro.cli(Args))
