"""What several scripts of the former form share is the same text in each of them, so that a correction cannot miss one."""

import ast
from pathlib import Path

import pytest

from tests.conftest import OLD_FORM

ALL = "simplex_etf layer_init make_head Backbone behaviour_log_probs frame_metrics collapse_metrics Rollout make_policy gae"
SHARED = {name: OLD_FORM for name in f"{ALL} fail make_envs save load evaluate main".split()}
SHARED["collect"] = [
    script for script in OLD_FORM if script != "reinforce_acpg"
]  # which plays whole episodes
ATARI = "ppo_atari_acpg"  # its network, rollout and environments are its own
COMMON = (
    "simplex_etf",
    "layer_init",
    "make_head",
    "behaviour_log_probs",
    "frame_metrics",
    "collapse_metrics",
    "gae",
)
SHARED |= {name: [*OLD_FORM, ATARI] for name in (*COMMON, "fail", "save", "load", "evaluate")}
OWN = {"Args", "Agent", "check_args", "train"}


def definitions(script: str) -> dict[str, str]:
    """Text of a script's functions and classes, decorators included."""
    text = Path(f"{script}.py").read_text()
    lines = text.splitlines()
    nodes = [
        node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    starts = {
        node.name: min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        for node in nodes
    }
    return {node.name: "\n".join(lines[starts[node.name] - 1 : node.end_lineno]) for node in nodes}


@pytest.mark.parametrize("name", SHARED)
def test_shared_definitions_are_the_same_text(name):
    assert len({definitions(script)[name] for script in SHARED[name]}) == 1


@pytest.mark.parametrize("script", [*OLD_FORM, ATARI])
def test_what_is_not_shared_is_the_scripts_own(script):
    """A definition that two scripts happen to have in common belongs in the list above."""
    for other in {*OLD_FORM, ATARI} - {script}:
        theirs = definitions(other)
        same = {name for name, text in definitions(script).items() if theirs.get(name) == text}
        assert same <= set(SHARED) | OWN


@pytest.mark.parametrize("script", [*OLD_FORM, ATARI])
def test_a_script_stands_alone_and_is_short(script):
    text = Path(f"{script}.py").read_text()
    assert len(text.splitlines()) <= 500
    modules = [
        node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)
    ]
    modules += [
        alias.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import)
        for alias in node.names
    ]
    assert not any(
        module.endswith("_acpg") or module.split(".")[0] in ("benchmark", "tests")
        for module in modules
    )
