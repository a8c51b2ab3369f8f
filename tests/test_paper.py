"""Commands of benchmark/paper: that runs which were not made here start, and what the commands refuse."""

import os
import shlex
import subprocess
import sys

import pytest

import ppo_acpg


def planned(command: str) -> list[list[str]]:
    """The programs and flags of the command's runs, by its dry run."""
    output = subprocess.run(
        ["bash", *f"benchmark/paper/{command} --dry-run".split()],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHON": sys.executable},
    ).stdout
    return [shlex.split(line)[1:] for line in output.splitlines()]


@pytest.mark.parametrize(
    ("command", "runs", "games"),
    [
        ("controls.sh", 840, 6),
        ("field.sh --minatar", 250, 5),
        ("epsilon.sh --minatar", 150, 1),
        ("tuned.sh --minatar", 180, 1),
    ],
)
def test_runs_that_were_not_made_start(launch, command, runs, games):
    """The last run on each task, for one rollout. Of tuned.sh those of its first half, which decide the others."""
    lines = planned(command)
    last = {line[line.index("--env-id") + 1]: line for line in lines}
    assert (len(lines), len(last)) == (runs, games)
    for program, *flags in last.values():
        flags[flags.index("--total-timesteps") + 1] = "512"
        flags[flags.index("--runs-dir") + 1] = "runs"
        run = launch(ppo_acpg, *flags)
        assert program == "ppo_acpg.py" and run.checkpoint["global_step"] >= 512


@pytest.mark.parametrize(
    ("script", "variable", "names"),
    [
        ("field", "FOLDERS", "field field_more"),
        ("tuned", "TASKS", "acrobot lander taxi"),
        ("again", "ALGORITHMS", "ppo a2c trpo reinforce"),
        ("longer", "ALGORITHMS", "ppo a2c trpo reinforce"),
        ("optimizer", "ALGORITHMS", "ppo a2c trpo"),
    ],
)
def test_a_part_that_a_command_does_not_know_is_one_line(script, variable, names):
    """Before the parts that it knows."""
    first, *_ = names.split()
    result = subprocess.run(
        ["bash", f"benchmark/paper/{script}.sh"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHON": "false", variable: f"{first} nothing"},
    )
    line = f"error: {variable} nothing: is none of {names}\n"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", line)
