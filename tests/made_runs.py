"""Runs made up for tests of the benchmark, with the files of real ones.

    python -m tests.made_runs --out made --runs 2000

makes an experiment of as many runs of 2,000 episodes, for measuring `python -m benchmark.collate` and
`benchmark.report`; `--envs 40 --arms linear etf etf:4` makes more environments and arms of it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from benchmark.files import Plan, Planned, Record


@dataclass
class Args:
    out: Path  # the experiment's directory
    runs: int = 2000  # in all
    episodes: int = 2000  # of each run
    envs: int = 1  # environments that the runs are spread over
    arms: tuple[str, ...] = ("linear", "etf")  # heads, as the runner names them


def make_run(
    root: Path,
    returns: Iterable[float],
    *,
    env_id: str = "Env-v0",
    script: str = "ppo_acpg",
    head: str = "linear",
    seed: int = 1,
    collapse: list[dict] | None = None,
    greedy: list[float] | None = None,
    **flags,
) -> Path:
    """A finished run's directory with one episode of 10 steps per given return, and an evaluation
    of the greedy returns if there are any. `collapse` are the checkpoint's entries of that name.
    Flags given override the run's own."""
    returns = list(returns)
    name = f"{env_id}__{script}__{head}__{seed}__0".replace("/", "-").replace(":", "-")
    run = root / name
    run.mkdir(parents=True)
    steps = 10 * len(returns)
    frame, _, trainable = head.partition("-")
    args = {
        "env_id": env_id,
        "seed": seed,
        "total_timesteps": max(steps, 1),
        "etf_head": head != "linear",
        "head_frame": frame.replace("linear", "simplex").replace("etf", "simplex"),
        "head_trainable": bool(trainable),
    }
    args |= flags
    (run / "args.json").write_text(json.dumps(args))

    table = ["global_step,return,length,seconds"]
    for n, value in enumerate(returns, start=1):
        table.append(f"{10 * n},{value},10,{n / 100:.2f}")
    (run / "episodes.csv").write_text("\n".join(table) + "\n")
    state = {
        "script": script,
        "args": args,
        "global_step": max(steps, 1),
        "seconds": steps / 1000,
        "agent": {"weight": torch.zeros(64, 64)},
        "collapse": collapse or [],
        "log_sizes": {"episodes.csv": (run / "episodes.csv").stat().st_size},
    }
    torch.save(state, run / "checkpoint.pt")
    if greedy:
        table = ["global_step,return,length"]
        table += [f"{max(steps, 1)},{value},10" for value in greedy]
        (run / "evaluation.csv").write_text("\n".join(table) + "\n")
    return run


def make_planned(
    out: Path,
    returns: Iterable[float] = (),
    *,
    arm: str = "linear",
    group: str | None = None,
    script: str = "ppo_acpg",
    env_id: str = "Env-v0",
    seed: int = 1,
    outcome: str | None = "finished",
    record: dict | None = None,
    **run,
) -> Planned:
    """A planned run of the experiment in `out`, for `write_plan`: its directory with the record of
    that outcome, unless that is None, and the script's directory, unless there are no returns.
    `record` overrides entries of the record; all else is for `make_run`."""
    safe_id = env_id.replace("/", "-").replace(":", "-")
    planned = Planned(
        name=f"{safe_id}__{script}__{arm}__{seed}",
        group=group or script,
        arm=arm,
        script=f"{script}.py",
        env_id=env_id,
        seed=seed,
        flags=(),
    )
    if outcome is None:
        return planned
    folder = out / "runs" / planned.name
    folder.mkdir(parents=True)
    run_dir = None
    returns = list(returns)
    if returns:
        run = {"head": arm.partition(":")[0]} | run
        run_dir = make_run(folder, returns, script=script, env_id=env_id, seed=seed, **run).name
    entries = planned.model_dump() | {
        "outcome": outcome,
        "run_dir": run_dir,
        "script_hash": "0" * 64,
        "command": (),
        "attempts": 1,
    }
    made = Record.model_validate(entries | (record or {}))
    (folder / "record.json").write_text(made.model_dump_json(indent=1))
    return planned


def write_plan(out: Path, runs: Iterable[Planned], baseline: str = "linear") -> Path:
    """The plan.json of these runs."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "plan.json"
    path.write_text(Plan(baseline=baseline, runs=tuple(runs)).model_dump_json(indent=1))
    return path


def main(args: Args) -> None:
    random = np.random.default_rng(0)
    collapse = [
        {"global_step": step, "within_variability": 1 / step}
        for step in range(1, 10 * args.episodes, 100)
    ]
    planned = []
    for n in range(args.runs):
        rest, arm = divmod(n, len(args.arms))
        seed, env = divmod(rest, args.envs)
        run = make_planned(
            args.out,
            random.normal(100, 10, args.episodes).round(2),
            arm=args.arms[arm],
            env_id=f"Env{env}-v0",
            seed=seed,
            collapse=collapse,
            greedy=list(random.normal(100, 10, 10).round(2)),
        )
        planned.append(run)
    write_plan(args.out, planned, args.arms[0])


if __name__ == "__main__":
    main(tyro.cli(Args))
