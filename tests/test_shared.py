"""What several scripts share is the same text in each of them, so that a correction cannot miss one."""

import ast
from pathlib import Path

import pytest

from benchmark.algorithms import ALGORITHMS
from tests.conftest import SCRIPTS
from tests.test_form import halves

ALL = (
    *("HeadArgs", "Args", "simplex_etf", "layer_init", "make_head", "channel_axis", "is_image"),
    *("Backbone", "behaviour_log_probs", "frame_metrics", "collapse_metrics", "measure_collapse"),
    *("Episode", "gae", "trainable_parameters", "flatten_parameters", "check_flattened"),
    "explained_variance",
)
LISTED = sorted({name for entry in ALGORITHMS.values() for name in entry.shares})
SHARED = {name: SCRIPTS for name in ALL}
for name in LISTED:
    SHARED[name] = [script for script, entry in ALGORITHMS.items() if name in entry.shares]


def definitions(text: str) -> dict[str, str]:
    """Text of a script's functions and classes, decorators included."""
    lines = text.splitlines()
    kinds = ast.FunctionDef | ast.ClassDef
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, kinds):
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name] = "\n".join(lines[start - 1 : node.end_lineno])
    return found


def upper_definitions(script: str) -> dict[str, str]:
    upper, _ = halves(Path(f"{script}.py").read_text())
    return definitions(upper)


@pytest.mark.parametrize(("name", "scripts"), SHARED.items())
def test_shared_definitions_are_the_same_text(name, scripts):
    assert len({upper_definitions(script)[name] for script in scripts}) == 1


def test_what_is_below_the_line_is_the_same_text():
    assert len({halves(Path(f"{script}.py").read_text())[1] for script in SCRIPTS}) == 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_is_not_shared_is_the_script_s_own(script):
    """A definition that two scripts happen to have in common belongs in the list above."""
    ours = upper_definitions(script)
    for other in {*SCRIPTS} - {script}:
        theirs = upper_definitions(other)
        same = {name for name, text in ours.items() if theirs.get(name) == text}
        listed = {name for name, scripts in SHARED.items() if {script, other} <= {*scripts}}
        assert same == listed


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_flags_that_all_have_differ_in_their_defaults_alone(script):
    def without_defaults(name: str) -> list[str]:
        lines = upper_definitions(name)["RunArgs"].splitlines()
        return [line.split(" = ")[0] for line in lines if '"""' not in line]

    assert without_defaults(script) == without_defaults("ppo_acpg")
