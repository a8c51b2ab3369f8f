"""The answer to "does the head help?": its headline figures from the CSV files by other means, and its words."""

import csv
import math
import os
import re
import shlex
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmark.readme import evidence
from benchmark.readme import head as picture
from benchmark.reporting.thresholds import threshold
from tests.made_runs import make_run

RESULTS = Path("benchmark/results")
PAGES = [
    Path(name) for name in ("README.md", "docs/does-the-head-help.md", "docs/first-evidence.md")
]
TEXT = " ".join(" ".join(page.read_text() for page in PAGES).split())
RANDOM = {
    "CartPole-v1": 22.2,
    "Acrobot-v1": -499.1,
    "FrozenLake-v1": 0.012,
    "IdealCliffWalking-v0": -10.66,
}


def values(folder: str, column: str) -> dict[tuple[str, str, str], dict[int, float]]:
    """By script, environment and head, and then by seed: the column of the folder's runs.csv."""
    cells = defaultdict(dict)
    with open(RESULTS / folder / "runs.csv") as file:
        for row in csv.DictReader(file):
            cells[row["script"], row["env_id"], row["head"]][int(row["seed"])] = float(row[column])
    return cells


def differences(column: str, head: str, baseline: str, script: str) -> np.ndarray:
    """By seed: the mean over tasks of the small table's normalised column, of the head less the baseline. "linear-2" is the
    learned head from norm 2."""
    cells, total = values("table_1_small", column), 0.0
    cells |= {
        (*task, f"{head}-2"): seeds
        for (*task, head), seeds in values("table_1_std_2", column).items()
    }
    tasks = {(name, env_id) for name, env_id, _ in cells if script in name}
    for (name, env_id), (sign, side) in product(tasks, ((1, head), (-1, baseline))):
        unit = threshold(env_id) - RANDOM[re.split("[:/]", env_id)[-1]]
        seeds = cells[name, env_id, side]
        total = total + sign * np.array([seeds[seed] for seed in sorted(seeds)]) / unit / len(tasks)
    return total


def interval(sample: np.ndarray) -> str:
    """Mean and 95 % interval of Student's t, as the pages write them."""
    margin = stats.t.ppf(0.975, len(sample) - 1) * sample.std(ddof=1) / math.sqrt(len(sample))
    return f"{sample.mean():+.3f} [{sample.mean() - margin:+.3f}, {sample.mean() + margin:+.3f}]"


@pytest.mark.parametrize(
    ("column", "head", "baseline", "script"),
    [
        ("area", "etf", "linear", ""),
        ("final", "etf", "linear", ""),
        ("area", "etf", "linear", "ppo"),
        ("area", "etf", "linear", "trpo"),
        ("area", "etf-trainable", "linear", ""),
        ("area", "etf", "etf-trainable", ""),
        ("area", "linear-2", "linear", ""),
        ("area", "etf", "linear-2", ""),
    ],
)
def test_headline_figures_are_those_of_the_runs(column, head, baseline, script):
    assert interval(differences(column, head, baseline, script)) in TEXT


@pytest.mark.parametrize("script", ["reinforce", "a2c", "ppo", "trpo"])
def test_figures_of_the_longer_runs(script):
    with open(RESULTS / f"{script}_checks" / "runs.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["env_id"] == "CartPole-v1"]
    areas = {(row["etf_head"], row["seed"]): float(row["area"]) for row in rows}
    sample = np.array(
        [areas["True", str(seed)] - areas["False", str(seed)] for seed in range(1, 11)]
    )
    margin = stats.t.ppf(0.975, 9) * sample.std(ddof=1) / math.sqrt(10)
    assert (
        f"{sample.mean():+.1f} [{sample.mean() - margin:+.1f}, {sample.mean() + margin:+.1f}]"
        in TEXT
    )


def test_figures_of_the_controls_and_of_dispersion():
    areas, finals = values("controls_small", "area"), values("controls_small", "final")
    mean = {
        head: np.mean([*seeds.values()])
        for (_, env_id, head), seeds in areas.items()
        if env_id == "CartPole-v1"
    }
    gains = [value - mean["linear"] for head, value in mean.items() if head != "linear"]
    assert f"by {min(gains):.0f} to {max(gains):.0f}, each distinguishably" in TEXT
    assert len(gains) == 6
    stuck = [
        head
        for (_, env_id, head), seeds in finals.items()
        for value in seeds.values()
        if value < -400
    ]
    assert (
        f"{len(stuck)} runs of {len(set(stuck))} heads, the learned one among them" in TEXT
        and "linear" in stuck
    )
    spread = {
        key: np.std([*seeds.values()]) for key, seeds in values("table_1_small", "area").items()
    }
    wider = sum(
        spread[*task, "etf"] > value for (*task, head), value in spread.items() if head == "linear"
    )
    assert f"in {wider} of 16 cases" in TEXT


@pytest.mark.parametrize(
    ("folder", "first", "tasks", "heads"),
    [("table_1_small", 201, 16, 3), ("table_1_std_2", 201, 16, 1), ("controls_small", 301, 2, 7)],
)
def test_no_run_is_missing(folder, first, tasks, heads):
    """Every script, task and head has ten seeds, as many runs were planned, and the report and the pages say so."""
    cells = values(folder, "final")
    assert len(cells) == tasks * heads and {tuple(sorted(seeds)) for seeds in cells.values()} == {
        tuple(range(first, first + 10))
    }
    said = (
        f"{len(cells) * 10} planned, {len(cells) * 10} finished, 0 failed, 0 damaged, 0 unfinished"
    )
    assert said in TEXT
    if heads > 1:
        assert f"\nRuns: {said}.\n" in (RESULTS / folder / "README.md").read_text()


def test_nothing_is_called_better_or_worse_whose_interval_has_zero():
    """In the pages and in the reports."""
    found, number = Counter(), r"(-?[\d.,]+)"
    texts = [
        TEXT,
        *(
            (RESULTS / folder / "README.md").read_text()
            for folder in ("table_1_small", "controls_small")
        ),
    ]
    for low, high, word in re.findall(
        rf"{number} to {number}\)[^()]{{0,40}}?(better|worse)", " ".join(texts)
    ):
        low, high = float(low.replace(",", "")), float(high.replace(",", ""))
        assert low > 0 if word == "better" else high < 0
        found[word] += 1
    assert found["better"] > 50 and found["worse"] > 2


def test_judgements_by_hand():
    row = {"difference": 2.0, "low": -1.0, "high": 5.0, "p": 0.2, "smallest": 3.5}
    row["verdict"] = "not distinguishable"
    assert evidence.judgement(pd.Series(row)) == "2 (-1 to 5): open (±3.5)"
    assert evidence.judgement(pd.Series(row | {"smallest": math.nan})) == "2 (-1 to 5): open"
    row |= {"low": 0.5, "high": 3.5, "p": 0.031}
    said = "2 (0.5 to 3.5): open (±3.5, p 0.031 before correction)"
    assert evidence.judgement(pd.Series(row)) == said
    row["verdict"] = "better"
    assert evidence.judgement(pd.Series(row)) == "2 (0.5 to 3.5): **better**"


def test_the_hours_are_those_of_the_commands():
    """table_1.sh's runs, counted, are what `hours` multiplies by."""
    command = ["bash", "benchmark/paper/table_1.sh", "--dry-run"]
    environment = os.environ | {"PYTHON": sys.executable}
    output = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    ).stdout
    counts = Counter()
    for line in output.splitlines():
        script, *flags = shlex.split(line)[1:]
        task, backbone = (
            flags[flags.index("--env-id") + 1],
            flags[flags.index("--backbone") + 1] if "--backbone" in flags else "",
        )
        kind = (
            "DiscreteCarRacing-v0"
            if "Racing" in task
            else "Qbert-v5"
            if "Atari" in task
            else "CartPole-v1"
        )
        counts[
            script.removesuffix(".py"),
            kind,
            backbone,
            int(flags[flags.index("--total-timesteps") + 1]),
        ] += 1
    expected = {
        (*key, backbone, steps): runs
        for key, (runs, steps, _) in evidence.FULL.items()
        for backbone in ("mlp", "cnn")
    }
    expected |= {
        (script, "CartPole-v1", "", 500_000): 40 for script in ("reinforce_acpg", "a2c_acpg")
    }
    assert counts == expected and sum(counts.values()) == 640
    hours = evidence.hours()
    assert (
        len(hours) == 8
        and hours["runs"].sum() == 640 - 80
        and f"{hours['hours'].sum():,.0f} hours of cores" in TEXT
    )


def test_what_is_published(tmp_path):
    """A folder whose README is the report, with counts first; nothing for a dry run."""
    for head, seed in product(("linear", "etf"), (1, 2)):
        make_run(
            tmp_path / "runs", [100.0 + seed] * 120, env_id="CartPole-v1", head=head, seed=seed
        )
    for argument, names in (
        ("--dry-run", set()),
        ("", {"README.md", "runs.csv", "curves.csv.gz", "counts.csv", "provenance.csv"}),
    ):
        command = (
            f'. benchmark/paper/publish.sh; publish "{tmp_path}/runs" "{tmp_path}/out" {argument}'
        )
        subprocess.run(
            ["bash", "-euc", command], check=True, env=os.environ | {"PYTHON": sys.executable}
        )
        assert {
            path.name for path in (tmp_path / "out").glob("*") if path.suffix != ".png"
        } == names
    text = (tmp_path / "out" / "README.md").read_text()
    assert text.startswith("# Is etf better than linear?\n") and "\nRuns: 4 planned, 4 fin" in text


@pytest.mark.parametrize("script", ["table_1", "controls"])
def test_wrong_flags_end_the_small_experiments_at_once(script):
    command = ["bash", f"benchmark/paper/{script}.sh", "--small", "--workers", "0"]
    result = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHON": sys.executable}
    )
    assert (result.returncode, result.stderr) == (2, "error: --workers 0: must be at least 1\n")


def test_the_words_hold():
    """What it says of the figures beside these sentences."""
    area, final = "area under the curve", "final return"
    table, controls = evidence.comparisons(evidence.TABLE), evidence.comparisons(evidence.CONTROLS)
    etf = table.xs(("etf", "linear"), level=("arm", "baseline"))
    assert list(etf.loc["all groups"]["verdict"]) == ["better", "better"]
    assert (
        etf.loc[("ppo_acpg", "4 tasks", area), "corrected"]
        == etf.query("task == '4 tasks'")["corrected"].min()
    )
    assert etf.loc[("trpo_acpg", "4 tasks", area), "verdict"] == "worse"
    assert (
        table.loc[("all groups", "16 tasks", area, "etf-trainable", "linear"), "verdict"]
        == "better"
    )
    starts = evidence.starts()["verdict"]
    longer = [evidence.longer_run(script.removesuffix("_acpg")).p for script in evidence.SCRIPTS]
    assert min(longer) > 0.05
    assert starts["all groups", "16 tasks", area, "linear-2", "linear"] == "better"
    against = starts.xs("linear-2", level="baseline")
    decided = against[against != "not distinguishable"]
    assert set(decided.index.droplevel("arm")) == {("ppo_acpg", "4 tasks", area)}
    assert list(decided) == ["worse", "worse"]  # of both ETF heads
    for rows in (table, controls):  # freezing, and in the controls frames
        assert set(rows.dropna(subset="factor")["verdict"]) == {"not distinguishable"}
    by_task = etf[etf.index.get_level_values("task").isin(evidence.TASKS)]["verdict"].xs(
        area, level="measure"
    )
    assert set(by_task.loc["ppo_acpg"]) == {"better"} and "better" not in set(
        by_task.loc["trpo_acpg"]
    )
    for script in ("reinforce_acpg", "a2c_acpg"):
        assert set(etf.loc[script].loc["CartPole-v1"]["verdict"]) == {"not distinguishable"}
    cart_pole = (
        evidence.runs(evidence.TABLE).query("task == 'CartPole-v1'").set_index(["script", "head"])
    )
    assert cart_pole["stop"].loc["a2c_acpg"].drop("etf-trainable").isna().all()
    reached = cart_pole["stop"].loc["reinforce_acpg"].groupby("head").count()
    assert (reached["etf"], reached["linear"]) == (6, 1) and cart_pole["final"].loc[
        "reinforce_acpg"
    ].groupby("head").mean().max() < 475
    pole = controls.loc["ppo_acpg", "CartPole-v1", area].xs("linear", level="baseline")[
        "difference"
    ]
    assert len(pole) == 6 and (pole > 0).all()
    acrobot = controls.loc["ppo_acpg", "Acrobot-v1", area].xs("linear", level="baseline")["verdict"]
    assert list(acrobot.index[acrobot == "better"]) == ["random"]
    assert "worse" not in set(acrobot)
    by_task = etf[etf.index.get_level_values("task").isin(evidence.TASKS)]["verdict"].xs(
        final, level="measure"
    )
    assert [*by_task.loc["ppo_acpg"].items()].count(
        ("FrozenLake-v1", "better")
    ) == 1 and "better" not in set(by_task.loc["trpo_acpg"])


def test_the_learned_head_starts_as_a_small_simplex():
    """230 to 280 times smaller than the frame, with four and two actions."""
    sizes = [2 / (0.01 * math.sqrt((K - 1) / K)) for K in (4, 2)]
    assert [round(size, -1) for size in sizes] == [
        230,
        280,
    ] and "only 230 to 280 times smaller" in TEXT


def test_the_picture_of_the_head(tmp_path):
    """Five marks in each of three panels, each where the runs say; and the committed file is one."""
    rows = picture.rows()
    assert rows.groupby("panel").size().tolist() == [5, 5, 5]
    together = rows[rows["name"] == "all together"].set_index("panel")
    for panel, difference in together["difference"].items():
        assert f"{difference:+.3f}" == interval(differences("area", *panel, "")).split()[0]
    picture.main(picture.Args(out=tmp_path / "head.png"))
    for path in (tmp_path / "head.png", RESULTS / "table_1_small" / "head.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
