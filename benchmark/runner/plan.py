"""What the arguments of benchmark.run ask for: arms on tasks become runs, which join those that are
planned already. And what is wrong with them, in one line for each problem."""

import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from benchmark.files import Damaged, Plan, Planned, read_plan

if TYPE_CHECKING:
    from benchmark.run import Args

HEADS = {
    "linear": "",
    "etf": "--etf-head",
    "random": "--etf-head --head-frame random",
    "orthogonal": "--etf-head --head-frame orthogonal",
    "etf-trainable": "--etf-head --head-trainable",
    "random-trainable": "--etf-head --head-frame random --head-trainable",
    "orthogonal-trainable": "--etf-head --head-frame orthogonal --head-trainable",
}
OWN_FLAGS = ("--env-id", "--seed", "--runs-dir", "--resume")
HEAD_FLAGS = ("--etf-head", "--head-frame", "--head-trainable")
MOST_RUNS = 100_000
LONGEST_NAME = 200  # of a run's directory; file systems take 255 bytes
CHECK = Path(__file__).with_name("check.py")
CHECK_SECONDS = 300  # that a script may take to be imported and to read its flags


class Refused(Exception):
    """Nothing is started; each of `args` is a problem, in one line."""


class Arm(NamedTuple):
    """What is compared: a script and the flags that make it this arm."""

    group: str  # within which arms are compared
    name: str
    script: str
    flags: tuple[str, ...]

    def names_of_script(self) -> set[str]:
        """What an entry of --flags may call the arm's script."""
        path = Path(self.script)
        names = {self.script, path.name, path.stem, str(path.with_suffix(""))}
        return names - {self.name}


class Entry(NamedTuple):
    """An entry of --flags."""

    name: str
    env_id: str | None  # the only environment that it is for
    flags: tuple[str, ...]


def find_script(name: str) -> str | None:
    """The path of the script of that name, with or without .py."""
    for path in (name, f"{name}.py"):
        if os.path.isfile(path):
            return str(Path(path))
    return None


def no_script(flag: str, name: str) -> str:
    known = ", ".join(sorted(path.stem for path in Path().glob("*_acpg.py")))
    return f"--{flag} {name}: there is no such file (this directory has {known})"


def flag_names(words: Iterable[str]) -> list[str]:
    """The names of the flags among the words, as --help spells them."""
    names = (word.split("=")[0].replace("_", "-") for word in words if word.startswith("--"))
    return [name.replace("--no-", "--") for name in names]


def head_flags(head: str) -> tuple[str, ...]:
    """The flags of an entry of --heads. Raises ValueError with the reason if there are none."""
    kind, colon, norm = head.partition(":")
    if kind not in HEADS:
        raise ValueError(f"is none of {', '.join(HEADS)}, nor one of them with a norm, as etf:4")
    flags = HEADS[kind].split()
    if colon:
        try:
            valid = math.isfinite(float(norm))
        except ValueError:
            valid = False
        if not valid:
            raise ValueError("must have a number after the colon, the norm of the head's rows")
        flags += ["--head-std" if kind == "linear" else "--etf-scale", norm]
    return tuple(flags)


def arms_of_heads(args: "Args", problems: list[str]) -> list[Arm]:
    """--scripts x --heads."""
    scripts = args.scripts if args.scripts is not None else ("ppo_acpg",)
    heads = args.heads if args.heads is not None else ("linear", "etf")
    paths = {}
    for name in dict.fromkeys(scripts):
        path = find_script(name)
        if path is None:
            problems.append(no_script("scripts", name))
        elif paths.setdefault(Path(path).stem, path) != path:
            problems.append(
                f"--scripts {name}: has the name of {paths[Path(path).stem]}; use --arms"
            )
    flags = {}
    for head in heads:
        try:
            flags[head] = head_flags(head)
        except ValueError as error:
            problems.append(f"--heads {head}: {error}")
    for flag, values in (("scripts", scripts), ("heads", heads)):
        if not values:
            problems.append(f"--{flag}: names none")
    return [
        Arm(group, head, path, flags[head]) for (group, path), head in product(paths.items(), flags)
    ]


def arms_as_given(args: "Args", problems: list[str]) -> list[Arm]:
    """--arms."""
    if not args.arms:
        problems.append("--arms: names none")
    arms = {}
    for text in args.arms:
        name, equals, command = text.partition("=")
        try:
            words = shlex.split(command)
        except ValueError as error:
            problems.append(f"--arms {text}: {error}")
            continue
        path = find_script(words[0]) if words else None
        own = [flag for flag in flag_names(words) if flag in OWN_FLAGS]
        plain = name.isprintable() and not set(name) & set(" @") and name not in ("", "all")
        if not equals or not words:
            problems.append(f"--arms {text}: must be NAME=SCRIPT, and flags if there are any")
        elif not plain:
            problems.append(f"--arms {text}: the name must be a word without @, and not all")
        elif name in arms:
            problems.append(f"--arms {text}: there is another arm of this name")
        elif path is None:
            problems.append(no_script("arms", words[0]))
        elif own:
            problems.append(f"--arms {text}: {own[0]} is for benchmark.run to set")
        else:
            arms[name] = Arm("arms", name, path, tuple(words[1:]))
    for flag in ("scripts", "heads"):
        if getattr(args, flag) is not None:
            problems.append(f"--{flag} {' '.join(getattr(args, flag))}: cannot go with --arms")
    return list(arms.values())


def read_flags(args: "Args", arms: list[Arm], problems: list[str]) -> list[Entry]:
    """The entries of --flags."""
    reserved = OWN_FLAGS if args.arms else OWN_FLAGS + HEAD_FLAGS
    names = dict.fromkeys(["all", *(arm.group for arm in arms if not args.arms)])
    names |= dict.fromkeys(arm.name for arm in arms)
    known = {"all"}.union(*({arm.name} | arm.names_of_script() for arm in arms))
    entries = []
    for text in args.flags:
        try:
            address, *flags = shlex.split(text) or [""]
        except ValueError as error:
            problems.append(f"--flags {text}: {error}")
            continue
        name, at, env_id = address.partition("@")
        if name not in known:
            problems.append(f"--flags {text}: must begin with one of {' '.join(names)}")
        if at and env_id not in args.env_ids:
            problems.append(f"--flags {text}: {env_id} is none of --env-ids")
        for flag in flag_names(flags):
            if flag in reserved:
                problems.append(f"--flags {text}: {flag} is for benchmark.run to set")
        entries.append(Entry(name, env_id if at else None, tuple(flags)))
    return entries


def flags_on(
    arm: Arm, env_id: str, total_timesteps: int | None, entries: list[Entry]
) -> tuple[str, ...]:
    """All flags of an arm on an environment. What is more specific comes later, and so prevails:
    flags for all, for the script, these on this environment, the arm's own, and those for the arm.
    """

    def given(names: set[str], place: str | None) -> Iterator[str]:
        chosen = (entry for entry in entries if entry.name in names and entry.env_id == place)
        return chain.from_iterable(entry.flags for entry in chosen)

    steps = [] if total_timesteps is None else ["--total-timesteps", str(total_timesteps)]
    script = arm.names_of_script()
    return (
        *steps,
        *given({"all"}, None),
        *given(script, None),
        *given({"all"}, env_id),
        *given(script, env_id),
        *arm.flags,
        *given({arm.name}, None),
        *given({arm.name}, env_id),
    )


def check_numbers(args: "Args", problems: list[str]) -> None:
    """Numbers and words that cannot be."""
    least = {
        "num_seeds": 1,
        "seeds_per_process": 1,
        "start_seed": 0,
        "total_timesteps": 1,
        "workers": 1,
        "time": 1,
        "memory": 1,
        "cpus": 1,
        "gpus": 0,
    }
    for flag, bound in least.items():
        value = getattr(args, flag)
        if value is not None and value < bound:
            problems.append(f"--{flag.replace('_', '-')} {value}: must be at least {bound}")
    timeout = args.run_timeout
    if timeout is not None and not timeout > 0:
        problems.append(f"--run-timeout {timeout:g}: must be more than 0")
    if args.cluster == "slurm" and not shutil.which("sbatch"):
        problems.append("--cluster slurm: there is no sbatch on the PATH")
    if args.cluster == "slurm" and args.devices:
        problems.append("--devices: are for local runs; Slurm's get theirs by --gpus")
    if not args.env_ids:
        problems.append("--env-ids: names none")
    for flag in ("partition", "out"):
        # submitit writes both into comments of a shell script, which end with the line
        if not str(getattr(args, flag)).isprintable():
            problems.append(f"--{flag} {getattr(args, flag)}: must be one line of text")


def asked_for(args: "Args") -> list[Planned]:
    """The runs that the arguments ask for. Raises Refused with all that is wrong with these, but
    for what only the scripts know (`ask_scripts`)."""
    problems = []
    check_numbers(args, problems)
    arms = arms_of_heads(args, problems) if args.arms is None else arms_as_given(args, problems)
    entries = read_flags(args, arms, problems)
    tasks = list(product(dict.fromkeys(args.env_ids), arms))
    count = len(tasks) * args.num_seeds
    if count > MOST_RUNS:
        problems.append(
            f"--num-seeds {args.num_seeds}: makes {count:,} runs; {MOST_RUNS:,} are the most"
        )
    for env_id, arm in tasks:
        if len(name_of(env_id, arm.group, arm.name, 0)) > LONGEST_NAME:
            problems.append(f"--env-ids {env_id}: makes with arm {arm.name} too long a file name")
    names = list(dict.fromkeys(arm.name for arm in arms))
    if args.baseline is not None and arms and args.baseline not in names:
        problems.append(f"--baseline {args.baseline}: is none of the arms {' '.join(names)}")
    if problems:
        raise Refused(*dict.fromkeys(problems))

    runs = []
    seeds = range(args.start_seed, args.start_seed + args.num_seeds)
    flags = {task: flags_on(task[1], task[0], args.total_timesteps, entries) for task in tasks}
    for env_id in dict.fromkeys(args.env_ids):
        for seed, arm in product(seeds, arms):
            task = (env_id, arm)
            runs.append(
                Planned(
                    name=name_of(env_id, arm.group, arm.name, seed),
                    group=arm.group,
                    arm=arm.name,
                    script=arm.script,
                    env_id=env_id,
                    seed=seed,
                    flags=flags[task],
                )
            )
    return runs


def name_of(env_id: str, group: str, arm: str, seed: int | str) -> str:
    """The name of a run's directory."""
    return "__".join([*(quote(part, safe="") for part in (env_id, group, arm)), str(seed)])


def ask_scripts(runs: list[Planned]) -> dict[tuple, int]:
    """The steps of the runs by `task_of`, as their scripts read the flags; each script is asked by
    a process of its own, all at the same time. Raises Refused with what they say against it."""
    questions = defaultdict(dict)  # by script: task -> flags
    for run in runs:  # the last seed of a task is the largest
        questions[run.script][task_of(run)] = [*run.flags, "--seed", str(run.seed)]
    processes = {}
    for script in questions:
        asked = [[env_id, flags] for (_, env_id, _), flags in questions[script].items()]
        with tempfile.TemporaryFile("w+") as file:
            json.dump(asked, file)
            file.seek(0)
            processes[script] = subprocess.Popen(
                [sys.executable, str(CHECK), script],
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
    steps = {}
    problems = []
    for script, process in processes.items():
        try:
            output, errors = process.communicate(timeout=CHECK_SECONDS)
            answers = json.loads(output)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            problems.append(f"{script}: its flags could not be read in {CHECK_SECONDS} seconds")
            continue
        except ValueError:
            last = (errors.strip().splitlines() or ["without a word"])[-1]
            problems.append(f"{script}: reading its flags ended with {process.returncode} ({last})")
            continue
        for task, answer in zip(questions[script], answers):
            if "error" in answer:
                problems.append(answer["error"])
            else:
                steps[task] = answer["total_timesteps"]
    if problems:
        raise Refused(*dict.fromkeys(problems))
    return steps


def task_of(run: Planned) -> tuple:
    """What all seeds of an arm on an environment share."""
    return run.script, run.env_id, run.flags


def joined(out: Path, runs: list[Planned], baseline: str | None) -> Plan:
    """The runs that `out` holds already, and these. Raises Refused if it holds runs of the same arm
    and environment by another script or with other flags."""
    try:
        there = read_plan(out / "plan.json")
    except FileNotFoundError:
        there = Plan(baseline=baseline or runs[0].arm, runs=())
    except Damaged as error:
        raise Refused(f"--out {out}: {error}") from error
    commands = {}
    by_name = {}
    for run in there.runs:
        commands[run.group, run.arm, run.env_id] = f"{run.script} {shlex.join(run.flags)}"
        by_name[run.name] = run
    problems = []
    for run in runs:
        new = f"{run.script} {shlex.join(run.flags)}"
        old = commands.get((run.group, run.arm, run.env_id), new)
        if old != new:
            where = f"{run.arm} on {run.env_id}"
            problems.append(
                f"--out {out}: holds another experiment, {where} by `{old}`, not `{new}`"
            )
        elif by_name.setdefault(run.name, run) != run:
            problems.append(f"--out {out}: its plan.json has another run named {run.name}")
    plan = Plan(baseline=baseline or there.baseline, runs=tuple(by_name.values()))
    arms = defaultdict(dict)
    for run in plan.runs:
        arms[run.group][run.arm] = None
    for group, names in arms.items():
        if len(names) > 1 and plan.baseline not in names:
            problems.append(
                f"--baseline {plan.baseline}: is none of {' '.join(names)} ({group} in {out})"
            )
    if problems:
        raise Refused(*dict.fromkeys(problems))
    return plan
