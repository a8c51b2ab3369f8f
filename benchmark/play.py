"""Play the agent of a run greedily, and film it.

    python -m benchmark.play runs/<run>
    python -m benchmark.play runs/<run> --video --episodes 3

The episodes are those of the run's own evaluation.csv, if there are as many. `--video` plays them
in one environment and films the first 2,000 steps of each into the run's videos/ (pip install
moviepy). They may end differently then: a network rounds differently for one observation than for
ten, and an agent that hesitates turns on that.

Only a script can rebuild its agents. It is the one of the working directory that the checkpoint
names; `--script` tells where else it is. As with the scripts' --resume, an environment's module is
imported only where `--env-id` repeats its id, because a checkpoint may come from elsewhere.
"""

import runpy
import sys
from dataclasses import dataclass, fields
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, NoReturn

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import nn

from benchmark.collate import fail

NEEDED = (
    "Args",
    "seed_everything",
    "set_random_state",
    "make_envs",
    "make_agent",
    "evaluate",
)
FILM_LENGTH = 2000  # steps, as all frames are in memory until the film is written


@dataclass
class Args:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """a run's directory, or its checkpoint.pt"""
    episodes: int = 10
    """greedy episodes to play"""
    video: bool = False
    """film them into the run's videos/ (pip install moviepy)"""
    env_id: str | None = None
    """the run's environment, if its id names a module that may be imported"""
    script: Path | None = None
    """the script, if it was renamed or moved since the run"""


def refuse(run: Path, reason: object) -> NoReturn:
    """Say in one line why this run cannot be played, and exit with code 2."""
    print(f"error: RUN {run}: {' '.join(str(reason).split())}", file=sys.stderr)
    sys.exit(2)


def read_checkpoint(run: Path, path: Path) -> dict:
    """The run's checkpoint, if it has all that is used here."""
    if not path.is_file():
        refuse(run, f"there is no file {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["args"] = dict(checkpoint["args"])
        checkpoint["args"]["env_id"]
        for key in ("script", "agent"):
            checkpoint[key]
    except Exception as error:  # a damaged file can raise anything
        first = str(error).split(". ")[0]  # torch's go on to advise against weights_only
        refuse(run, f"cannot be read as a checkpoint ({type(error).__name__}: {first})")
    return checkpoint


def check_env_id(args: Args, env_id: str) -> None:
    """Refuse another environment than the run's, and one whose import nobody has allowed."""
    if args.env_id is None and ":" in env_id:
        allow = f"its module is imported only with --env-id {env_id}"
        refuse(args.run, f"was trained on {env_id}; {allow}")
    if args.env_id not in (None, env_id):
        fail("env-id", args.env_id, f"but {args.run} was trained on {env_id}")


def script_path(args: Args, name: str) -> Path:
    """Where the script is: what `--script` says, else the *_acpg.py of the working directory that
    has this name. Other files are not run just because a checkpoint names them."""
    if args.script is not None:
        if not args.script.is_file():
            fail("script", args.script, "there is no such file")
        return args.script
    for path in Path().glob("*_acpg.py"):
        if path.stem == name:
            return path
    where = "which is no *_acpg.py of this directory; --script tells where it is"
    refuse(args.run, f"was written by {name}.py, {where}")


def load_script(path: Path) -> SimpleNamespace:
    """The definitions of a script, which is run for them, without training."""
    try:
        return SimpleNamespace(**runpy.run_path(str(path)))
    except Exception as error:  # any file can be named
        fail("script", path, f"cannot be run ({type(error).__name__}: {error})")


def restore_args(script: SimpleNamespace, args: Args, saved: dict) -> object:
    """The run's flags. Those that the script no longer has are named, and new ones have their
    default."""
    known = {field.name for field in fields(script.Args)}
    unknown = saved.keys() - known
    if unknown:
        names = ", ".join(sorted(unknown))
        print(f"RUN {args.run}: the script has no use for its flags {names}", file=sys.stderr)
    return script.Args(**{flag: value for flag, value in saved.items() if flag in known})


def restore_agent(
    script: SimpleNamespace, args: Args, run_args: object, envs: gym.vector.VectorEnv, state: dict
) -> nn.Module:
    """The run's agent, and its random numbers as they were when the checkpoint was written."""
    try:
        agent = script.make_agent(envs, run_args)
        agent.load_state_dict(state["agent"])
        script.set_random_state(state["random"])
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        refuse(args.run, f"does not fit this script: {error}")
    return agent


def play(args: Args, script: SimpleNamespace, state: dict, films: Path) -> list[tuple[float, int]]:
    """Return and length of greedy episodes, as the script's own evaluation plays them."""
    run_args = restore_args(script, args, state["args"])
    torch.set_num_threads(run_args.num_threads)
    script.seed_everything(run_args)
    # ppo_atari_acpg.py's environments are told by more flags than --env-id
    takes_all = next(iter(signature(script.make_envs).parameters)) == "args"
    env_flags = run_args if takes_all else run_args.env_id
    if args.video:
        envs = script.make_envs(env_flags, 1)
        modes = envs.metadata.get("render_modes") or []
        if "rgb_array" not in modes:
            fail("video", True, f"{run_args.env_id} has no render mode rgb_array, only {modes}")
        envs = script.make_envs(env_flags, 1, render_mode="rgb_array")
    else:
        envs = script.make_envs(env_flags, min(args.episodes, 10))
    agent = restore_agent(script, args, run_args, envs, state)
    if args.video:
        envs = gym.wrappers.vector.RecordVideo(
            envs, str(films), episode_trigger=lambda _: True, video_length=FILM_LENGTH
        )
    results = script.evaluate(envs, agent, args.episodes, run_args.seed)
    envs.close()
    return results


def main(args: Args) -> None:
    if args.episodes < 1:
        fail("episodes", args.episodes, "must be at least 1")
    if args.video and find_spec("moviepy") is None:
        fail("video", True, "needs moviepy: pip install moviepy")
    checkpoint = args.run / "checkpoint.pt" if args.run.is_dir() else args.run
    films = checkpoint.parent / "videos"
    state = read_checkpoint(args.run, checkpoint)
    env_id = str(state["args"]["env_id"])
    check_env_id(args, env_id)
    path = script_path(args, state["script"])
    script = load_script(path)

    missing = [name for name in NEEDED if not hasattr(script, name)]
    if missing:
        fail("script", path, f"defines no {', '.join(missing)}")
    returns, _ = np.transpose(play(args, script, state, films))
    done = f"{args.episodes} greedy episodes of {env_id}"
    print(f"{done}: return {returns.mean():.1f} +- {returns.std():.1f}")
    if args.video:
        print(films)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__.split("\n\n    ")[0]))
