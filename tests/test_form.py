"""How a script reads: two halves, one thought a line, nothing between an edit and its effect."""

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from tests.conftest import ONE

MARK = "# PLUMBING"
STATEMENTS = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.Expr, ast.Raise, ast.If)


def text_of(script) -> str:
    return Path(script.__file__).read_text()


def halves(text: str) -> tuple[str, str]:
    upper, lower = text.split(f"\n{MARK}", 1)
    return upper, lower


def code_lines(text: str) -> set[int]:
    """Numbers of the lines that hold code: no blank ones, comments or docstrings."""
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = set()
    for token in tokens:
        if token.type not in (*layout, tokenize.ENDMARKER):
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return lines


def own_parts(statement: ast.stmt) -> list[ast.AST]:
    """The nodes of a statement, without those of the statements inside it."""
    parts = []
    pending = [statement]
    while pending:
        node = pending.pop()
        parts.append(node)
        pending += [n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.stmt)]
    return parts


def test_width(script):
    assert max(map(len, text_of(script).splitlines())) <= 100


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_ruff_agrees_with_the_whole_project(command):
    words = [sys.executable, "-m", "ruff", *command, "."]
    root = Path(__file__).parent.parent
    done = subprocess.run(words, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_one_thought_a_line(script):
    for node in ast.walk(ast.parse(text_of(script))):
        if not isinstance(node, ast.stmt):
            continue
        parts = own_parts(node)
        where = f"line {node.lineno}"
        assert sum(isinstance(part, ast.IfExp) for part in parts) <= 1, where
        assert not isinstance(node, ast.If) or not any(
            isinstance(part, ast.NamedExpr) for part in ast.walk(node.test)
        ), where
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            assert not any(isinstance(target, ast.Tuple) for target in node.targets), where
        for part in parts:
            if isinstance(part, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
                inner = [*ast.walk(part)][1:]
                kinds = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
                assert not any(isinstance(other, kinds) for other in inner), where


def test_two_halves_and_a_loop_that_shows_the_algorithm(script):
    text = text_of(script)
    upper, _ = halves(text)
    names = {node.name for node in ast.parse(upper).body if hasattr(node, "name")}
    assert {"Args", "make_head", "Backbone", "Agent", "Rollout", "train"} <= names
    assert names & {"collect", "collect_episodes"}
    (train,) = (node for node in ast.parse(upper).body if getattr(node, "name", "") == "train")
    (loop,) = (node for node in train.body if isinstance(node, ast.While))
    assert loop.end_lineno - loop.lineno <= 32


def test_a_script_stands_alone(script):
    nodes = list(ast.walk(ast.parse(text_of(script))))
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    modules += [a.name for node in nodes if isinstance(node, ast.Import) for a in node.names]
    assert not [m for m in modules if m.endswith("_acpg") or m.startswith(("benchmark", "tests"))]


def test_what_the_first_docstring_says_to_edit_is_there(script):
    names = re.findall(
        r"\b(make_head|Backbone|Agent|\w+_loss|surrogate_and_kl|collect\w*|train|LIMITS)\b",
        script.__doc__.split("What to edit")[1],
    )
    assert {"make_head", "Backbone", "train", "LIMITS"} <= set(names)
    assert all(hasattr(script, name) for name in names)


def test_limits_are_of_flags_and_hold_their_defaults(script):
    args = script.Args()
    assert script.LIMITS.keys() <= {field.name for field in fields(args)}
    for flag, (least, most) in script.LIMITS.items():
        value = getattr(args, flag)
        assert value is None or least <= value <= most


def test_help_is_grouped_and_says_every_flag_in_a_phrase(script, tmp_path):
    done = subprocess.run(
        [sys.executable, script.__file__, "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and "Action Collapse Policy Gradient" in done.stdout
    for title in ("algorithm options", "head options", "run options"):
        assert f"─ {title} ─" in done.stdout
    for field in fields(script.Args):
        assert f"--{field.name.replace('_', '-')}" in done.stdout
    described = text_of(script).split("class Args(")[0]
    for field in fields(script.Args):
        declared = re.search(rf'\n    {field.name}: [^\n]*\n    """([^"]+)"""', described)
        assert declared and len(declared[1].split()) >= 3, field.name


def copied(script, tmp_path, *changes: tuple[str, str]) -> Path:
    """A copy of the script under another name, with these changes of its text."""
    text = text_of(script)
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = tmp_path / "my_copy.py"
    path.write_text(text)
    return path


def run(path: Path, *flags: object) -> subprocess.CompletedProcess:
    words = [sys.executable, path.name, *map(str, flags)]
    return subprocess.run(words, cwd=path.parent, capture_output=True, text=True)


NEW_FLAGS = '''
    warmup_steps: int = 0
    """a count that may be zero"""
    bonus: float = -1e-9
    """a number of any size"""
    schedule: Literal["linear", "cosine"] = "linear"
    """a choice"""
    note: str = ""
    """a text"""
    verbose: bool = False
    """a switch"""
    limit: int | None = None
    """a number or nothing"""
'''


@ONE
@pytest.mark.parametrize("where", ["AlgorithmArgs", "Args"])
def test_a_copy_with_new_flags_and_another_name_goes_on_from_the_original(
    script, tmp_path, where, launch
):
    original = launch(script, "--total-timesteps", 600, "--seed", 5)
    if where == "Args":
        last = '"""All flags. One that is added here, and not to a group above, works too."""\n'
    else:
        last = '    env_id: str = "CartPole-v1"\n'
    new_text = last + NEW_FLAGS if where == "Args" else NEW_FLAGS[1:] + last
    copy = copied(script, tmp_path, (last, new_text))
    new = "--warmup-steps 0 --bonus -2.5 --schedule cosine --note hello --verbose --limit 3"
    done = run(
        copy, "--resume", original.path / "checkpoint.pt", "--total-timesteps", 1200, *new.split()
    )
    assert done.returncode == 0, done.stderr
    wanted = {"warmup_steps": 0, "bonus": -2.5, "schedule": "cosine", "note": "hello"}
    wanted |= {"verbose": True, "limit": 3, "seed": 5, "total_timesteps": 1200}
    assert wanted.items() <= original.args.items()
    help_text = run(copy, "--help").stdout
    assert all(text in " ".join(help_text.split()) for text in ("a count that may", "or nothing"))
    done = run(copy, "--total-timesteps", 600, "--eval-episodes", 0)
    assert done.returncode == 0, done.stderr
    assert "__my_copy__linear__1__" in done.stdout.splitlines()[-1]


@ONE
def test_args_may_change_a_default_and_be_annotated_by_text(script, tmp_path):
    """As `from __future__ import annotations` makes them."""
    last = '"""All flags. One that is added here, and not to a group above, works too."""\n'
    changed = """
    gamma: float = 0.9
    \"\"\"another default\"\"\"
    notes: "list[str] | None" = None
    \"\"\"several texts\"\"\"
"""
    copy = copied(script, tmp_path, (last, last + changed))
    done = run(copy, "--total-timesteps", 600, "--eval-episodes", 0, "--notes", "a", "b")
    assert done.returncode == 0, done.stderr
    args = json.loads(Path(tmp_path, done.stdout.splitlines()[-1], "args.json").read_text())
    assert (args["gamma"], args["notes"], args["seed"]) == (0.9, ["a", "b"], 1)


@ONE
def test_a_checkpoint_with_flags_that_are_gone_says_so(script, tmp_path, launch):
    run_dir = launch(script, "--total-timesteps", 600).path
    collapse_every = re.search(
        r'    collapse_every: int = \d+\n    """[^"]+"""\n', text_of(script)
    )[0]
    limit = '    "collapse_every": (1, math.inf),\n'
    copy = copied(script, tmp_path, (collapse_every, ""), (limit, ""), ("args.collapse_every", "7"))
    done = run(copy, "--resume", run_dir / "checkpoint.pt", "--total-timesteps", 1200)
    assert done.returncode == 0, done.stderr
    assert "collapse_every" in done.stdout.splitlines()[0]


@pytest.mark.parametrize("flags", [(), ("--compile",)])
def test_another_optimizer_is_one_line(script, tmp_path, flags):
    (own,) = re.findall(r"    optimizer = (\w+\(.*\))\n", text_of(script))
    parameters = "[critic_theta]" if "critic_theta" in own else "agent.parameters()"
    adamw = f"torch.optim.AdamW({parameters}, lr=args.learning_rate, eps=1e-5)"
    copy = copied(script, tmp_path, (own, adamw))
    done = run(copy, "--total-timesteps", 20_000, *flags)
    assert done.returncode == 0, done.stderr
    run_dir = Path(tmp_path, done.stdout.splitlines()[-1])
    done = run(copy, "--resume", run_dir / "checkpoint.pt", "--total-timesteps", 21_000)
    assert done.returncode == 0, done.stderr
    returns = [float(line.split(",")[1]) for line in open(run_dir / "episodes.csv").readlines()[1:]]
    assert sum(returns[:50]) / 50 < 40 < sum(returns[-10:]) / 10


@ONE
def test_an_optimizer_s_options_are_the_flags_that_resume_it(script, launch, monkeypatch):
    """Where torch's own would keep those that were saved."""
    decays = []

    def adamw(theta, lr, *_):
        optimizers.append(torch.optim.AdamW([theta], lr=lr, weight_decay=decays[-1]))
        return optimizers[-1]

    optimizers = []
    own = "RMSprop" if hasattr(script, "RMSprop") else "Adam"
    monkeypatch.setattr(script, own, adamw)
    decays.append(0.25)
    run_dir = launch(script, "--total-timesteps", 600, "--eval-episodes", 0).path
    decays.append(0.5)
    flags = ("--total-timesteps", 1200, "--eval-episodes", 0)
    launch(script, "--resume", run_dir / "checkpoint.pt", *flags)
    (group,) = optimizers[1].param_groups
    assert group["weight_decay"] == 0.5
    (moments,) = optimizers[1].state_dict()["state"].values()
    assert moments["step"] > len(range(600, 1200, 512))


def test_the_learning_rates_of_all_groups_are_annealed(script, launch, monkeypatch):
    """Of a second learning rate for the critic, here."""
    optimizers = []

    def two_groups(theta, lr, *_):
        cut = len(theta) // 2
        halves = [{"params": [theta[:cut]], "lr": lr}, {"params": [theta[cut:]], "lr": 4 * lr}]
        optimizers.append(torch.optim.SGD(halves))
        return optimizers[0]

    own = "RMSprop" if hasattr(script, "RMSprop") else "Adam"
    monkeypatch.setattr(script, own, two_groups)
    launch(script, "--total-timesteps", 4000, "--learning-rate", 0.01)
    first, second = (group["lr"] for group in optimizers[0].param_groups)
    assert second == pytest.approx(4 * first) and 0 < first < 0.002
