"""A script with stopwatches on its functions: how many seconds a run spends where.

    python -m benchmark.speed.stages ppo_acpg --runs-dir runs --total-timesteps 100000

runs the script as it is, with its own flags, and then writes stages.json into the directory of the
runs: seconds of environment (the environments' steps and resets), inference (the rest of the
rollout: the policy, sampling, storing), learning (batches, losses and updates) and collapse (its
measures). What a run spends besides is start-up, logs, checkpoints and its evaluation.
"""

import json
import runpy
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

STAGES = {  # functions of the scripts; none of them calls another
    "rollout": ("collect", "collect_episodes"),
    "learning": ("make_batch", "update", "policy_step", "fit_critic"),
    "collapse": ("collapse_metrics",),
}


def timed(function: Callable, seconds: dict[str, float], stage: str) -> Callable:
    """The function, with its time added to seconds[stage]."""

    def wrapper(*args: object, **kwargs: object) -> object:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[stage] += time.perf_counter() - start

    return wrapper


def main(script: str, flags: list[str]) -> None:
    """Run the script with these flags, and write stages.json into its --runs-dir."""
    seconds = defaultdict(float)
    sys.argv = [f"{script}.py", *flags]
    definitions = runpy.run_path(f"{script}.py")["main"].__globals__
    for stage, names in STAGES.items():
        for name in names:
            if name in definitions:
                definitions[name] = timed(definitions[name], seconds, stage)
    make_envs = definitions["make_envs"]

    def make_timed_envs(*args: object) -> object:
        definitions["make_envs"] = make_envs  # the next ones, for the evaluation, go untimed
        envs = make_envs(*args)
        envs.step = timed(envs.step, seconds, "environment")
        envs.reset = timed(envs.reset, seconds, "environment")
        return envs

    definitions["make_envs"] = make_timed_envs
    definitions["main"]()
    seconds["inference"] = seconds.pop("rollout") - seconds["environment"]
    runs = Path(flags[flags.index("--runs-dir") + 1])
    rounded = {stage: round(value, 6) for stage, value in seconds.items()}
    (runs / "stages.json").write_text(json.dumps(rounded))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
