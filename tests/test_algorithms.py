"""benchmark/algorithms.toml: an algorithm costs its script and one entry."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.algorithms import ALGORITHMS, read_algorithms

ROOT = Path(__file__).parent.parent


def test_every_entry_has_a_script_and_every_general_script_an_entry():
    scripts = {path.stem for path in ROOT.glob("*_acpg.py")}
    assert scripts == {*ALGORITHMS, "ppo_atari_acpg"}  # whose environments are its own


def test_a_key_that_is_wrong_is_named(tmp_path):
    path = tmp_path / "algorithms.toml"
    path.write_text('[dqn]\nprobe = ""\ncartpole = 1\nsteps = 3\n')
    with pytest.raises(TypeError, match="steps"):
        read_algorithms(path)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with a sixth script, and its entry."""
    project = tmp_path_factory.mktemp("sixth") / "project"
    ignored = shutil.ignore_patterns(".git", ".venv*", "runs", "results", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, project, ignore=ignored)
    text = (ROOT / "ppo_acpg.py").read_text()
    (project / "sixth_acpg.py").write_text(text.replace("ppo_loss", "sixth_loss"))
    entries = (ROOT / "benchmark" / "algorithms.toml").read_text()
    entry = entries.split("[ppo]\n")[1].split("\n\n")[0]
    (project / "benchmark" / "algorithms.toml").write_text(f"{entries}\n[sixth]\n{entry}\n")
    return project


def output(project: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=project, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_tests_run(project):
    chosen = ["tests/test_policy.py", "tests/test_refusals.py", "tests/test_shared.py"]
    which = "sixth and not trains and not own or below_the_line or same_text"
    passed = output(
        project, "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *chosen, "-k", which
    )
    collected = output(project, "pytest", "-n", "0", "--collect-only", "tests", "-k", "sixth")
    assert "failed" not in passed
    counted = [line for line in collected.splitlines() if "[sixth_acpg" in line]
    ppo = output(project, "pytest", "-n", "0", "--collect-only", "tests", "-k", "ppo_acpg")
    files = {line.split("::")[0] for line in counted}
    assert {"tests/test_life.py", "tests/test_learning.py", "tests/test_stages.py"} <= files
    # but for those of the variant for many seeds, which only some scripts have
    others = [line for line in ppo.splitlines() if not line.startswith("tests/test_seeds.py")]
    assert len(counted) > 0.8 * sum("[ppo_acpg" in line for line in others)


def test_runner_and_collapse_know_it(project):
    flags = [
        "--env-ids",
        "CartPole-v1",
        "--total-timesteps",
        "1000",
        "--num-seeds",
        "1",
        "--out",
        "out",
        "--dry-run",
    ]
    printed = output(project, "benchmark.run", "--scripts", "sixth_acpg", *flags)
    assert "sixth_acpg.py" in printed and "--etf-head" in printed
    assert "sixth_acpg" in output(project, "benchmark.collapse", "--help")


def test_speed_and_tables_know_it(project):
    code = (
        "from benchmark.speed.__main__ import Args, programs; from benchmark.readme.evidence import SCRIPTS;"
        "print([*programs('stages', 'runs', Args('x'))], SCRIPTS)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("sixth_acpg") == 2
