"""What the tests share: running a script in this process, and reading what a run leaves behind."""

import csv
import importlib
import json
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmark.algorithms import ALGORITHMS

MISSING = {}  # test files that this machine cannot run, and why
if not (shutil.which("slurmctld") and shutil.which("munged") and os.geteuid() == 0):
    MISSING["test_slurm.py"] = "needs root and Debian's slurm-wlm and munge"
if not shutil.which("chromium"):
    MISSING["test_browser.py"] = "needs Debian's chromium"
    MISSING["test_collapse_page.py"] = "needs Debian's chromium"
if not shutil.which("patch"):
    MISSING["test_clipped_apart.py"] = "needs patch"
if not torch.cuda.is_available():
    MISSING["test_cuda.py"] = "needs a CUDA device"
if not find_spec("tianshou"):
    MISSING["test_off_policy_runs.py"] = "needs Tianshou: pip install tianshou==2.0.1"
collect_ignore = [*MISSING]
SCRIPTS = [*ALGORITHMS]
SHORT = {script: entry.short.split() for script, entry in ALGORITHMS.items()}
LOG_ALL = {script: entry.log_all.split() for script, entry in ALGORITHMS.items()}


def pytest_terminal_summary(terminalreporter) -> None:
    """Say which tests this machine cannot run."""
    for file, reason in MISSING.items():
        terminalreporter.write_line(f"without tests/{file}, which {reason}")


@pytest.fixture(params=SCRIPTS)
def script(request) -> ModuleType:
    """Each script as a module."""
    return importlib.import_module(request.param)


# For what the text below PLUMBING alone decides, which is the same in all scripts (test_shared.py).
ONE = pytest.mark.parametrize("script", ["ppo_acpg"], indirect=True)


class Run:
    """A finished run's directory."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def args(self) -> dict:
        return json.loads((self.path / "args.json").read_text())

    @property
    def episodes(self) -> list[dict[str, float]]:
        with open(self.path / "episodes.csv") as file:
            return [
                {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)
            ]

    @property
    def evaluation(self) -> list[dict[str, float]]:
        with open(self.path / "evaluation.csv") as file:
            rows = csv.DictReader(file)
            return [{key: float(value) for key, value in row.items()} for row in rows]

    @property
    def checkpoint(self) -> dict:
        return torch.load(self.path / "checkpoint.pt", weights_only=True)

    @property
    def scalars(self) -> dict[str, list[tuple[int, float]]]:
        events = EventAccumulator(str(self.path), size_guidance={"scalars": 0}).Reload()
        return {
            tag: [(event.step, event.value) for event in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        }

    def final_return(self) -> float:
        """Mean return of the last 100 episodes."""
        returns = [episode["return"] for episode in self.episodes[-100:]]
        return sum(returns) / len(returns)


@pytest.fixture
def launch(monkeypatch, tmp_path):
    """launch(script, *flags): run a script's main() with these flags in tmp_path; returns the newest Run."""

    def launch(script: ModuleType, *flags: object) -> Run:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script.__file__, *map(str, flags)])
        script.main()
        return Run(max((tmp_path / "runs").iterdir(), key=lambda path: path.stat().st_mtime))

    return launch
