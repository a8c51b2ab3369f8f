"""Environment steps per second: whole runs beside their peers, by stage and by number of
environments; environments alone.

    python -m benchmark.speed --out benchmark/results/speed.csv --compare ppo

`--compare ppo a2c trpo`: whole runs on CartPole-v1 beside Stable-Baselines3's (sb3-contrib's) with
the same hyper-parameters (sb3.py), with logs, each on one thread; PPO also beside CleanRL's
(cleanrl.py) and SBX's, in JAX. Peers that are packages get a virtual environment of their own,
`.venv-peers`.
`--compare seeds-ppo seeds-a2c`: the same beside benchmark/seeds, which train --num-seeds seeds in a
process, and whose steps are those of all.
`--compare stages`: the four scripts on CartPole-v1, by stage (stages.py).
`--compare num-envs`: ppo_acpg.py on CartPole-v1 with more and more environments, whose steps make
larger batches.
`--compare atari`: whole runs on Breakout on the CPU: CleanRL's PPO (cleanrl_atari.py), and
ppo_atari_acpg.py as it comes and with one thing changed, --amp only where the CPU has bfloat16.
Each takes the threads that it takes by default, which are all.
`--compare cuda`: scripts on the CPU and on a GPU, which it needs, with the threads that they take by
default: a small network on vectors, alone and for --num-seeds seeds in a process; a small CNN
(MinAtar); and Atari, also with each flag that may change its speed there.
`--compare environments`: environments of benchmark/envs.py, stepped with random actions, eight at a
time and on all cores, beside Gymnasium's one after the other and in processes ("async"), with
Gymnasium's wrappers where ours shows other pixels.

Programs take turns, so that a machine whose speed drifts treats them alike; a ratio compares a run
with that of the first program of its group in the same turn. Steps per second are the steps divided
by the time of the whole process, start-up and compilation included (the compiler's cache is
torch's, so a second turn compiles faster). Leave the machine alone meanwhile.

What was measured is kept in OUT.part until the last turn ends and OUT is written. Cut off before,
the same command goes on after what it has, if commit and processor are the same.

Columns: program, turn, steps, seconds, steps_per_second, ratio, peak_mb (largest resident set of
the process); where they are known, the seconds that a run spent on environment, inference, learning
and collapse (the measurement of it); cpu, the processor's model as the system names it, and with
`--compare cuda` the GPU's.
"""

import csv
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.vector import VectorEnv
from pydantic import BaseModel, PositiveFloat, PositiveInt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmark.algorithms import ALGORITHMS
from benchmark.collate import fail, replacing, say
from benchmark.runner.execute import prepare_child, surroundings
from benchmark.speed.part import Part, open_part

PEERS = Path(".venv-peers")
PACKAGES = (
    "torch==2.13.0",
    "stable-baselines3==2.9.2",
    "sb3-contrib==2.9.2",
    "sbx-rl==0.28.0",
    "tensorboard==2.21.0",
)
NUM_ENVS = 8
STAGES = ("environment", "inference", "learning", "collapse")
MANY = (1, 2, 4, 8, 16, 32, 64)  # of --compare num-envs
ATARI = (  # flags of --compare atari
    "",
    "--amp",
    "--compile",
    "--compile --amp",
    "--no-channels-last",
    "--num-threads 1",
    "--backend ale",
    "--etf-head",
)
CUDA = ("", "--amp", "--pin-memory", "--no-channels-last")  # flags of --compare cuda with Atari
LIMITS = {  # the least and the largest value of a flag
    "steps": (1024, 10**12),  # from a rollout of Atari on
    "seconds": (0.01, 86_400),
    "turns": (1, 1000),
    "num_seeds": (2, 1000),
}
Comparison = Literal[
    "ppo",
    "a2c",
    "trpo",
    "seeds-ppo",
    "seeds-a2c",
    "stages",
    "num-envs",
    "atari",
    "cuda",
    "environments",
]


@dataclass
class Args:
    out: Path  # CSV to write
    compare: tuple[Comparison, ...] = ("ppo", "a2c", "trpo")
    steps: int = 500_000  # environment steps of each training run
    num_seeds: int = 10  # of --compare seeds-ppo, seeds-a2c and cuda
    seconds: float = 10.0  # for which each environment is stepped
    turns: int = 3  # runs of each program


class Row(BaseModel):
    """A line of OUT.part and of OUT; the module's docstring says what its columns are."""

    program: str
    turn: int
    steps: PositiveInt
    seconds: PositiveFloat
    steps_per_second: PositiveInt
    ratio: PositiveFloat
    peak_mb: PositiveInt | None = None
    environment: float | None = None
    inference: float | None = None
    learning: float | None = None
    collapse: float | None = None
    cpu: str


COLUMNS = tuple(Row.model_fields)


class Turn(NamedTuple):
    """A program's turn. `run` measures it: it returns steps, seconds and what else is known."""

    program: str
    number: int
    first: int  # where the turn stands that it is compared with, its group's first
    run: Callable[[], dict[str, float]]


def install_peers() -> Path:
    """The Python of the peers' virtual environment, made on first use."""
    python = PEERS / "bin" / "python"
    installed = PEERS / "installed.txt"  # written last, so that a half-made one is made again
    packages = "\n".join(PACKAGES)
    if not installed.exists() or installed.read_text() != packages:
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        installed.write_text(packages)
    return python


def programs(comparison: str, flags: list[object], args: Args) -> dict[str, list[object]]:
    """Commands of the program to compare with, first, and of the others."""
    if comparison.startswith("seeds-"):
        return seeds(comparison.removeprefix("seeds-"), flags, args.num_seeds)
    if comparison == "atari":
        return atari(flags)
    if comparison == "stages":
        timed = [sys.executable, "-m", "benchmark.speed.stages"]
        return {f"{script}.py": [*timed, script, *flags] for script in ALGORITHMS}
    if comparison == "num-envs":
        ours = [sys.executable, "ppo_acpg.py", *flags, "--num-envs"]
        return {f"ppo_acpg.py --num-envs {number}": [*ours, number] for number in MANY}
    return peers(comparison, flags) | scripts(f"{comparison}_acpg.py", flags)


def atari(flags: list[object]) -> dict[str, list[object]]:
    """Commands of CleanRL's PPO on Atari, and of ours with each flag that may change its speed."""
    commands = {
        "CleanRL PPO Atari": [sys.executable, "-m", "benchmark.speed.cleanrl_atari", *flags]
    }
    script = "ppo_atari_acpg.py"
    ours = [sys.executable, script, *flags, "--no-cuda", "--eval-episodes", 0]
    for extra in ATARI:
        if has_bfloat16() or "--amp" not in extra:  # else --amp is refused
            commands[f"{script} {extra}".strip()] = [*ours, *extra.split()]
    return commands


def on_cuda(flags: list[object], num_seeds: int) -> Iterator[dict[str, list[object]]]:
    """Groups of commands: a script on the CPU, then on the GPU."""
    minatar = "ppo_acpg.py --env-id benchmark.envs:MinAtar/Breakout-v1"
    for words in ("ppo_acpg.py", f"-m benchmark.seeds.ppo_acpg --num-seeds {num_seeds}", minatar):
        ours = [sys.executable, *words.split(), *flags]
        yield {f"{words} --no-cuda": [*ours, "--no-cuda"], words: ours}
    script = "ppo_atari_acpg.py"
    ours = [sys.executable, script, *flags, "--eval-episodes", 0]
    commands = {f"{script} --no-cuda": [*ours, "--no-cuda"]}
    yield commands | {f"{script} {extra}".strip(): [*ours, *extra.split()] for extra in CUDA}


def peers(algorithm: str, flags: list[object]) -> dict[str, list[object]]:
    """Commands of other people's programs."""
    packaged = [install_peers(), "benchmark/speed/sb3.py"]
    commands = {f"SB3 {algorithm.upper()}": [*packaged, algorithm, *flags]}
    if algorithm == "ppo":
        commands["CleanRL PPO"] = [sys.executable, "-m", "benchmark.speed.cleanrl", *flags]
        commands["SBX PPO"] = [*packaged, "sbx-ppo", *flags]
    return commands


def seeds(algorithm: str, flags: list[object], num_seeds: int) -> dict[str, list[object]]:
    """Commands of one seed by the peers and by the script, and of many by the script's variant."""
    script = f"{algorithm}_acpg"
    theirs = peers(algorithm, flags)
    theirs.pop("SBX PPO", None)
    many = [sys.executable, "-m", f"benchmark.seeds.{script}", *flags, "--num-seeds", num_seeds]
    name = f"seeds/{script}.py --num-seeds {num_seeds}"
    return theirs | {
        f"{script}.py": [sys.executable, f"{script}.py", *flags],
        name: many,
        f"{name} --compile": [*many, "--compile"],
    }


def scripts(script: str, flags: list[object]) -> dict[str, list[object]]:
    """Commands of a script of ours with each flag that may change its speed."""
    ours = [sys.executable, script, *flags]
    return {
        script: ours,
        f"{script} --etf-head": [*ours, "--etf-head"],
        f"{script} --compile": [*ours, "--compile"],
    }


def train(command: list[object], runs: Path, steps: int, threads: int | None) -> dict[str, float]:
    """Run a command to its end, on that many threads, or on as many as it takes by itself: steps,
    wall seconds, peak resident memory, and seconds by stage where they are known. The command dies
    with this program."""
    environment = dict(os.environ)
    environment.pop("OMP_NUM_THREADS", None)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    linux = sys.platform == "linux"
    there = set(runs.iterdir())
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.DEVNULL,
        env=environment,
        preexec_fn=partial(prepare_child, os.getpid(), ()) if linux else None,
    )
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        process.wait()
        raise
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    measured = {"steps": steps, "seconds": seconds, "peak_mb": round(usage.ru_maxrss / 1024)}
    stages = runs / "stages.json"
    if stages.exists():
        measured |= json.loads(stages.read_text())
        stages.unlink()
        return measured
    logs = [logged(run) for run in set(runs.iterdir()) - there]
    measured |= logs[0]
    if all("steps" in log for log in logs):
        measured["steps"] = sum(log["steps"] for log in logs)
    return measured


def logged(run: Path) -> dict[str, float]:
    """What a run's log knows of it: the steps that it really took, and its seconds by stage."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = events.Tags()["scalars"]
    known = {}
    if "charts/SPS" in tags:
        known["steps"] = events.Scalars("charts/SPS")[-1].step
    for stage in STAGES:
        if f"seconds/{stage}" in tags:
            seconds = sum(event.value for event in events.Scalars(f"seconds/{stage}"))
            known[stage] = round(seconds, 2)
    return known


def environments() -> dict[str, dict[str, Callable[[], VectorEnv]]]:
    """For each task, makers of Gymnasium's environments, first, and of ours."""
    grey = [
        gym.wrappers.GrayscaleObservation,
        partial(gym.wrappers.FrameStackObservation, stack_size=4),
    ]
    pairs = {
        "DiscreteCarRacing-v0": ("CarRacing-v3", {"continuous": False, "wrappers": grey}),
        "envpool/Acrobot-v1": ("Acrobot-v1", {}),
        "envpool/LunarLander-v3": ("LunarLander-v3", {}),
    }
    makers = {}
    for ours, (theirs, flags) in pairs.items():
        gymnasium = partial(gym.make_vec, theirs, NUM_ENVS, **flags)
        makers[ours] = {
            f"Gymnasium {theirs}": partial(gymnasium, vectorization_mode="sync"),
            f"Gymnasium {theirs}, async": partial(gymnasium, vectorization_mode="async"),
            ours: partial(gym.make_vec, f"benchmark.envs:{ours}", NUM_ENVS),
        }
    return makers


def step_randomly(make: Callable[[], VectorEnv], seconds: float) -> dict[str, float]:
    """Step new environments with random actions for that long: steps of all of them together, and
    seconds taken."""
    envs = make()
    envs.reset(seed=1)
    rng = np.random.default_rng(0)
    steps = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        envs.step(rng.integers(envs.single_action_space.n, size=NUM_ENVS))
        steps += NUM_ENVS
    seconds = time.perf_counter() - start
    envs.close()
    return {"steps": steps, "seconds": seconds}


def groups(args: Args, runs: str) -> Iterator[dict[str, Callable[[], dict[str, float]]]]:
    """What to measure: of each group the first program is what the others are compared with."""
    for comparison in args.compare:
        if comparison == "environments":
            for makers in environments().values():
                yield {
                    name: partial(step_randomly, make, args.seconds)
                    for name, make in makers.items()
                }
            continue
        threads = None if comparison in ("atari", "cuda") else 1
        flags = ["--total-timesteps", args.steps, "--runs-dir", runs]
        if comparison == "cuda":
            compared = on_cuda(flags, args.num_seeds)
        else:
            compared = [programs(comparison, flags, args)]
        for commands in compared:
            yield {
                name: partial(train, command, Path(runs), args.steps, threads)
                for name, command in commands.items()
            }


def schedule(args: Args, runs: str) -> list[Turn]:
    """All turns in their order."""
    comparisons = [*groups(args, runs)]
    turns = []
    for number in range(args.turns):
        for group in comparisons:
            first = len(turns)
            turns += [Turn(program, number, first, run) for program, run in group.items()]
    return turns


def has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16, without which --amp is refused."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def cpu_model() -> str:
    """The model of the processor, and whether it has instructions for bfloat16."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return f"{model}, {'with' if has_bfloat16() else 'without'} bfloat16"


def check_flags(args: Args) -> None:
    """Exit with code 2 if a flag's value cannot work."""
    if not args.compare:
        fail("compare", "", "names nothing to compare")
    if len({*args.compare}) < len(args.compare):
        fail("compare", " ".join(args.compare), "names one twice")
    if "cuda" in args.compare and len(args.compare) > 1:
        reason = "cuda must stand alone, as others name their programs alike"
        fail("compare", " ".join(args.compare), reason)
    if "cuda" in args.compare and not torch.cuda.is_available():
        fail("compare", "cuda", "needs torch to find a CUDA device")
    for flag, (least, most) in LIMITS.items():
        value = getattr(args, flag)
        if not least <= value <= most:
            fail(flag, value, f"must lie in [{least}, {most}]")


def check_out(out: Path) -> None:
    """Exit with code 2 if the CSV cannot be written there."""
    try:
        if out.is_dir():
            fail("out", out, "is a directory, and not a CSV")
        if out.exists() and not os.access(out, os.W_OK):
            fail("out", out, "cannot be written to")
    except OSError as error:
        fail("out", out, error)


def measure(turn: Turn, rows: list[Row], cpu: str) -> Row:
    """The row of a program's turn, after those of all turns before it."""
    measured = turn.run()
    measured["seconds"] = round(measured["seconds"], 4)
    speed = measured["steps"] / measured["seconds"]
    first = speed
    if turn.first < len(rows):
        first = rows[turn.first].steps / rows[turn.first].seconds
    return Row(
        program=turn.program,
        turn=turn.number,
        steps_per_second=round(speed),
        ratio=round(speed / first, 3),
        cpu=cpu,
        **measured,
    )


def main(args: Args) -> None:
    check_flags(args)
    check_out(args.out)
    cpu = cpu_model()
    if "cuda" in args.compare:
        cpu += f", and a GPU named {torch.cuda.get_device_name()}"
    command = {name: value for name, value in vars(args).items() if name != "out"}
    command |= {"commit": surroundings()["commit"], "cpu": cpu}
    path = args.out.with_name(f"{args.out.name}.part")
    try:
        with open_part(args.out, path, command, Row) as part, TemporaryDirectory() as runs:
            measure_rest(part, schedule(args, runs), cpu)
            write_table(part.rows, args.out)
    except KeyboardInterrupt:
        say("stopped; the same command goes on", sys.stderr)
        sys.exit(130)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}; the same command goes on after what was measured")
    say(f"\n{table(part.rows)}", sys.stdout)


def measure_rest(part: Part[Row], turns: list[Turn], cpu: str) -> None:
    """Measure the turns that have no row yet."""
    if part.rows:
        say(f"{len(part.rows)} of {len(turns)} turns are in {part.file.name}", sys.stdout)
    for turn in turns[len(part.rows) :]:
        row = measure(turn, part.rows, cpu)
        part.append(row)
        say("\t".join(map(str, row.model_dump(exclude_none=True).values())), sys.stdout)


def write_table(rows: list[Row], out: Path) -> None:
    with replacing(out) as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.model_dump() for row in rows)


def table(rows: list[Row]) -> str:
    """Markdown: medians over turns, a line per program."""
    numbers = COLUMNS[4:-1]
    shown = [name for name in numbers if any(getattr(row, name) is not None for row in rows)]
    lines = [f"| program | {' | '.join(shown)} |", "|---" * (len(shown) + 1) + "|"]
    for program in dict.fromkeys(row.program for row in rows):
        turns = [row for row in rows if row.program == program]
        cells = [cell([getattr(row, column) for row in turns]) for column in shown]
        lines.append(f"| {program} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(values: list[float | None]) -> str:
    """The median of those that are known; of none, nothing."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    middle = median(known)
    return f"{middle:,.2f}" if middle < 10 else f"{middle:,.0f}"


if __name__ == "__main__":
    main(tyro.cli(Args))
