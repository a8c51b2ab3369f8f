"""benchmark/speed/stages.py: the stopwatches change nothing and leave nothing out."""

import json
import time

import pytest

from benchmark.speed import stages
from tests.conftest import SCRIPTS, SHORT, Run


def test_a_stopwatch_adds_up_and_passes_everything_on():
    seconds = {"stage": 1.0}

    def slow(number, error=None):
        time.sleep(0.01)
        if error:
            raise error
        return 2 * number

    watched = stages.timed(slow, seconds, "stage")
    assert watched(21) == 42
    with pytest.raises(ValueError, match="wrong"):
        watched(number=1, error=ValueError("wrong"))
    assert seconds["stage"] >= 1.02


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_stage_is_timed_and_the_run_is_the_same(name, tmp_path, monkeypatch, launch):
    flags = ["--total-timesteps", "600", *map(str, SHORT[name])]
    monkeypatch.setattr("sys.argv", [])
    stages.main(name, [*flags, "--runs-dir", str(tmp_path / "timed")])
    (path,) = tmp_path.glob("timed/*/")
    seconds = json.loads((tmp_path / "timed" / "stages.json").read_text())
    assert {*seconds} == {"environment", "inference", "learning", "collapse"} and min(
        seconds.values()
    ) > 0
    assert sum(seconds.values()) < Run(path).checkpoint["seconds"]
    direct = launch(__import__(name), *flags)
    ends = [
        [(line["global_step"], line["return"]) for line in run.episodes]
        for run in (Run(path), direct)
    ]
    assert ends[0] == ends[1]
