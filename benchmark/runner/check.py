"""What a script says of flags and environments, before any run of it starts:

    python benchmark/runner/check.py SCRIPT < QUESTIONS

The questions are JSON, a list of [environment id, [flag, ...]]. The answers on stdout are a list of
{"total_timesteps": steps} or {"error": one line}. This is a program of its own, which sees what the
script would, as a script, or the module of an environment, may do anything when it is imported.
"""

import contextlib
import importlib
import io
import json
import os
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import gymnasium as gym
import tyro
from gymnasium.envs.registration import find_highest_version, parse_env_id

NEEDED = ("env_id", "seed", "total_timesteps", "runs_dir", "resume")


def load(script: str) -> ModuleType:
    """The script as a module that is not __main__. Raises whatever the script raises."""
    loader = SourceFileLoader("checked_script", script)
    module = module_from_spec(spec_from_loader(loader.name, loader))
    sys.modules[loader.name] = module  # where typing and tyro look for its names
    loader.exec_module(module)
    if not hasattr(module, "Args"):
        raise AttributeError("has no class Args, which would tell its flags")
    return module


def one_line(output: str) -> str:
    """What is wrong, of what a script's `fail`, or tyro with its boxes, has printed."""
    lines = [line.strip(" │|╭╮╰╯├┤") for line in output.splitlines()]
    for line in lines:
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    rules = [n for n, line in enumerate(lines) if line and not line.strip("-─")]
    if len(rules) >= 2:
        lines = lines[rules[0] + 1 : rules[1]]
    return " ".join(" ".join(lines).split())


def parse(module: ModuleType, flags: list[str]) -> object:
    """The script's Args. Raises ValueError with what the script's own parser and checks say."""
    output = io.StringIO()
    sys.argv = [module.__file__, *flags]
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            if hasattr(module, "parse_args"):
                args = module.parse_args(module.Args())
            else:
                args = tyro.cli(module.Args)
            if hasattr(module, "check_flags"):
                module.check_flags(args)
    except SystemExit as error:
        if error.code in (0, None):
            raise ValueError("--help and the like start no run") from error
        raise ValueError(one_line(output.getvalue()) or error.code) from error
    missing = [f"--{name.replace('_', '-')}" for name in NEEDED if not hasattr(args, name)]
    if missing:
        raise ValueError(f"lacks {' '.join(missing)}, which benchmark.run sets")
    return args


def look_up(module: ModuleType, env_id: str, args: object) -> None:
    """Raises ValueError, or what the environment's module raises, if the script will not find the
    environment, which is not built."""
    if hasattr(module, "known_games"):
        if env_id not in module.known_games(args.backend):
            raise ValueError(f"is no game of --backend {args.backend}")
        return
    package, _, name = env_id.rpartition(":")
    if package:
        importlib.import_module(package)
    namespace, plain_name, version = parse_env_id(name)
    newest = find_highest_version(namespace, plain_name)
    if version is None and newest is not None and name not in gym.registry:
        raise ValueError(f"has no version; the newest is {name}-v{newest}")
    gym.spec(name)


def described(error: BaseException) -> str:
    """The error in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError | AttributeError | ImportError | gym.error.Error) and text:
        return text
    return repr(error)


def answers(script: str, questions: list) -> list[dict]:
    """An answer for each question."""
    try:
        module = load(script)
    except (Exception, SystemExit) as error:
        reason = f"{script}: cannot be imported: {described(error)}"
        return [{"error": reason}] * len(questions)
    parsed = {}  # by flags, which are the same on most environments
    results = []
    for env_id, flags in questions:
        key = tuple(flags)
        if key not in parsed:
            try:
                parsed[key] = parse(module, ["--env-id", env_id, *flags])
            except Exception as error:
                parsed[key] = f"{script}: {described(error)}"
        args = parsed[key]
        if isinstance(args, str):
            results.append({"error": args})
            continue
        try:
            look_up(module, env_id, args)
        except (Exception, SystemExit) as error:
            results.append({"error": f"--env-ids {env_id}: {described(error)} ({script})"})
        else:
            results.append({"total_timesteps": args.total_timesteps})
    return results


def main() -> None:
    script = sys.argv[1]
    questions = json.load(sys.stdin)
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what modules print is no answer
    sys.path[0] = str(Path(script).resolve().parent)  # as for the script itself
    json.dump(answers(script, questions), channel)
    channel.flush()
    os._exit(0)  # whatever threads or exit handlers the modules have left


if __name__ == "__main__":
    main()
