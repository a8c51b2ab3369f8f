"""benchmark/report.py and benchmark/reporting/verdicts.py: planted data, known answers, and reports on what there is."""

import csv
import gzip
import json
import math
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rliable import metrics
from scipy import stats

from benchmark import collate, report
from benchmark.reporting import comparisons, pictures
from benchmark.reporting.measures import COLLAPSE, MEASURES
from benchmark.reporting.verdicts import (
    compare,
    compare_paired,
    corrected,
    curve_iqm,
    equal_spread,
    improvement,
    interval,
    iqm,
    pairs_needed,
    seeds_needed,
    sign_p,
    spread,
    verdict,
)
from tests.made_runs import make_run

RUNS = (*collate.KEYS, "gamma", *MEASURES, *COLLAPSE)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The collated tables of two scripts, two environments, three heads and four seeds. `etf` is far better at CartPole-v1."""
    root, random = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    for script in ("ppo_acpg", "a2c_acpg"):
        for env_id in ("CartPole-v1", "benchmark.envs:MinAtar/Asterix-v1"):
            for head in ("linear", "etf", "random-trainable"):
                for seed in (1, 2, 3, 4):
                    level = 300 if head == "etf" and env_id == "CartPole-v1" else 100
                    returns = random.normal(level, 20, 150) + random.normal(0, 10)
                    history = [
                        {"global_step": step, "within_variability": 1 / step}
                        for step in range(100, 1501, 100)
                    ]
                    flags = {"env_id": env_id, "script": script, "head": head, "seed": seed}
                    make_run(root / "runs", returns.round(2), collapse=history, **flags)
    collate.main(collate.Args(runs=root / "runs", out=root / "results"))
    return root / "results"


@pytest.fixture
def results(made, tmp_path, monkeypatch) -> Path:
    """A copy of the tables, to change; what is tested on it needs no fine intervals."""
    monkeypatch.setattr("benchmark.reporting.verdicts.RESAMPLES", 100)
    return Path(shutil.copytree(made, tmp_path / "results"))


def select(results: Path, **kept: tuple[str, ...]) -> None:
    """Keep only the runs whose columns have one of these values."""
    for name in ("runs.csv", "curves.csv"):
        frame = pd.read_csv(results / name, dtype=str, keep_default_na=False)
        for column, values in kept.items():
            frame = frame[frame[column].isin(values)]
        frame.to_csv(results / name, index=False)


def written(results: Path) -> str:
    """The report in Markdown."""
    report.main(report.Args(results))
    assert not list(results.glob(".*"))
    return (results / "report.md").read_text()


# STATISTICS
@pytest.mark.parametrize(
    ("shift", "least", "most"), [(0.0, 0, 16), (1.5, 160, 200), (-1.5, 160, 200)]
)
def test_verdicts_on_planted_data(shift, least, most):
    """Ten seeds a side, 200 repeats: equal arms are called different in at most 8 %, a shift of 1.5 sigma in at least 80 %."""
    random, called = np.random.default_rng(1), []
    for _ in range(200):
        result = compare_paired(random.normal(100 + 7 * shift, 7, 10) - random.normal(100, 7, 10))
        called.append(verdict(result.difference, corrected([result.p])[0]))
    assert least <= sum(word != "not distinguishable" for word in called) <= most
    if shift:
        assert "worse" not in called if shift > 0 else "better" not in called


def test_the_interval_is_the_test_s_inversion_and_covers():
    """The interval leaves out 0 exactly if p < 0.05, and 95 % of them hold the true difference, also at unequal spreads."""
    random, covered = np.random.default_rng(2), 0
    for _ in range(1000):
        result = compare(random.normal(3, 5, 8), random.normal(1, 1, 12))
        assert (result.low > 0 or result.high < 0) == (result.p < 0.05)
        covered += result.low <= 2 <= result.high
    assert abs(covered - 950) < 4 * math.sqrt(1000 * 0.95 * 0.05)


def test_the_comparison_by_hand():
    """Means 3 and 7, variances 1 and 4 of three each: t = 4 / sqrt(5/3), nu = 50/17."""
    result = compare(np.array([5.0, 7.0, 9.0]), np.array([2.0, 3.0, 4.0]))
    margin = stats.t.ppf(0.975, 50 / 17) * math.sqrt(5 / 3)
    assert result[:3] == pytest.approx((4, 4 - margin, 4 + margin))
    assert result.p == pytest.approx(2 * stats.t.sf(4 / math.sqrt(5 / 3), 50 / 17))


@pytest.mark.parametrize(("seeds", "p"), [(2, 1 / 3), (3, 0.1), (4, 2 / 70)])
def test_without_spread_it_is_the_permutation_test(seeds, p):
    assert compare(np.full(seeds, 500.0), np.full(seeds, 490.0)).p == pytest.approx(p)
    assert compare(np.full(seeds, 500.0), np.full(seeds, 500.0)).p == 1
    assert seeds_needed(np.full(seeds, 500.0), np.full(seeds, 490.0)) == 4
    assert seeds_needed(np.full(seeds, 500.0), np.full(seeds, 500.0)) == math.inf


def test_a_single_seed_has_no_verdict():
    one, many = np.array([5.0]), np.array([1.0, 2.0])
    assert (
        math.isnan(compare(one, many).p)
        and math.isnan(seeds_needed(one, many))
        and math.isnan(equal_spread(many, one))
    )
    assert (
        all(math.isnan(value) for value in spread(one))
        and verdict(5.0, math.nan) == "not distinguishable"
    )


def test_the_paired_comparison_by_hand():
    """Differences 1, 2 and 6: mean 3, variance 7, t = 3 / sqrt(7/3) with 2 degrees of freedom. Without spread, of the 2^3
    equally likely signs 2 are as extreme."""
    result, margin = (
        compare_paired(np.array([1.0, 2.0, 6.0])),
        stats.t.ppf(0.975, 2) * math.sqrt(7 / 3),
    )
    assert result[:3] == pytest.approx((3, 3 - margin, 3 + margin))
    assert result.p == pytest.approx(2 * stats.t.sf(3 / math.sqrt(7 / 3), 2))
    assert compare_paired(np.full(3, 5.0)).p == 0.25 and compare_paired(np.zeros(3)).p == 1
    assert pairs_needed(np.full(3, 5.0)) == 6 and pairs_needed(np.zeros(3)) == math.inf
    assert math.isnan(compare_paired(np.ones(1)).p) and math.isnan(pairs_needed(np.ones(1)))


@pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.9])
def test_verdicts_on_pairs_that_are_correlated(correlation):
    """Ten seeds whose runs resemble each other, or the opposite: equal arms are called different in at most 8 % of 500."""
    random = np.random.default_rng(8)
    arms = random.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], (500, 10))
    called = sum(
        compare_paired(head - baseline).p <= 0.05 for head, baseline in arms.transpose(0, 2, 1)
    )
    assert 10 <= called <= 40


def test_runs_of_the_same_seed_are_pairs():
    """In whatever order; seeds that only one side has are left out; without common ones it is Welch's test of all."""
    head, baseline = (
        pd.Series([5.0, 9.0, 7.0], ["1", "2", "3"]),
        pd.Series([6.0, 1.0, 4.0, 8.0], ["2", "1", "3", "4"]),
    )
    result = comparisons.compared(head, baseline)
    assert result["seeds"] == "3 pairs" and result["difference"] == pytest.approx((4 + 3 + 3) / 3)
    assert result["p"] == pytest.approx(compare_paired(np.array([4.0, 3.0, 3.0])).p)
    result = comparisons.compared(head, baseline.rename(lambda seed: f"other {seed}"))
    assert result["seeds"] == "3 and 4" and result["p"] == pytest.approx(
        compare(head.to_numpy(), baseline.to_numpy()).p
    )


def test_seeds_needed_are_more_than_were_not_enough():
    """The power says that three pairs are enough, the test that these three were not."""
    differences = np.array([4.96, 4.42, 1.94])
    result = comparisons.compared(pd.Series(differences), pd.Series(np.zeros(3)))
    assert result["p"] > 0.05 and pairs_needed(differences) <= 4 <= result["needed"]


def test_the_correction_by_hand():
    assert corrected([0.01, math.nan, 0.04, 0.03]) == pytest.approx(
        [0.03, math.nan, 0.04, 0.04], nan_ok=True
    )


@pytest.mark.parametrize(
    ("effect", "seeds"), [(0.5, 64), (0.8, 26), (1.0, 17), (0.05, math.inf), (1e9, 3)]
)
def test_seeds_needed_are_those_of_the_textbook(effect, seeds):
    """Cohen 1988, Table 2.4.1: n for 80 % power at two-sided 5 %; and extremes."""
    sample = np.array([-1.0, 1.0]) / math.sqrt(2)  # standard deviation 1
    assert seeds_needed(sample + effect, sample) == seeds


def test_that_many_pairs_are_enough():
    random, effect = (
        np.random.default_rng(9),
        np.array([0.0, 1.0, 2.0]),
    )  # mean 1, standard deviation 1
    assert pairs_needed(effect) == 10
    p = [compare_paired(random.normal(1, 1, 10)).p for _ in range(1000)]
    assert abs(np.mean(np.array(p) < 0.05) - 0.8) < 0.05


def test_that_many_seeds_are_enough():
    random = np.random.default_rng(3)
    p = [compare(random.normal(1, 1, 17), random.normal(0, 1, 17)).p for _ in range(1000)]
    assert abs(np.mean(np.array(p) < 0.05) - 0.8) < 0.05


def test_interquartile_means_and_improvement_are_rliable_s():
    random = np.random.default_rng(4)
    for runs in (1, 2, 3, 5, 10):
        curves = random.normal(size=(runs, 1, 4))
        assert curve_iqm(curves) == pytest.approx(
            [metrics.aggregate_iqm(curves[..., k]) for k in range(4)]
        )
        head, baseline = (
            random.integers(0, 5, (runs, 3)).astype(float),
            random.integers(0, 5, (4, 3)).astype(float),
        )
        assert improvement(head, baseline) == pytest.approx(
            [metrics.probability_of_improvement(head, baseline)]
        )


def test_intervals_do_not_depend_on_what_was_drawn_before():
    scores = np.random.default_rng(5).normal(size=(10, 3))
    first = interval(scores, iqm)
    np.random.normal(size=7)
    assert interval(scores, iqm) == first and first[1] < first[0] < first[2]


def test_few_seeds_have_no_interval():
    scores = np.random.default_rng(5).normal(size=(4, 3))
    point, low, high = interval([scores, scores], improvement)
    assert point == 0.5 and np.isnan([low, high]).all()


def test_spread_by_hand_and_its_interval():
    random = np.random.default_rng(6)
    wide, narrow = random.normal(0, 5, 40), random.normal(0, 1, 40)
    assert spread(wide)[0] == pytest.approx(wide.std(ddof=1))
    point, low, high = spread(wide, narrow)
    assert point == pytest.approx(wide.std(ddof=1) - narrow.std(ddof=1)) and 0 < low < 4 < high
    assert equal_spread(wide, narrow) < 0.001 < 0.05 < equal_spread(wide, wide + 3)


# TABLES
def runs_frame(*rows: dict) -> pd.DataFrame:
    defaults = (
        dict.fromkeys(RUNS, "") | {"script": "s", "env_id": "E"} | dict.fromkeys(MEASURES, math.nan)
    )
    rows = [defaults | {"run": str(n), "seed": str(n), **row} for n, row in enumerate(rows)]
    return comparisons.normalise_area(comparisons.label_arms(pd.DataFrame(rows)))


def test_runs_with_other_flags_are_other_arms_and_compared_with_their_like():
    runs = runs_frame(
        *({"head": head, "gamma": gamma} for head in ("linear", "etf") for gamma in ("0.9", "0.99"))
    )
    assert list(runs["arm"]) == [
        "linear, gamma 0.9",
        "linear, gamma 0.99",
        "etf, gamma 0.9",
        "etf, gamma 0.99",
    ]
    compared = [
        (head["arm"].iat[0], baseline["arm"].iat[0])
        for _, _, head, baseline in comparisons.pairs(runs)
    ]
    assert compared == [
        ("etf, gamma 0.9", "linear, gamma 0.9"),
        ("etf, gamma 0.99", "linear, gamma 0.99"),
    ]


def test_a_flag_that_one_head_ignores_does_not_hinder():
    runs = runs_frame({"head": "linear", "gamma": ""}, {"head": "etf", "gamma": "0.9"})
    assert len(list(comparisons.pairs(runs))) == 1
    runs = runs_frame({"head": "linear", "gamma": "0.8"}, {"head": "etf", "gamma": "0.9"})
    assert not list(comparisons.pairs(runs))


def test_aggregates_take_the_seeds_that_all_tasks_share():
    rows = [("A", head, seed) for head in ("linear", "etf") for seed in (1, 2, 3)]
    rows += [("B", head, seed) for head in ("linear", "etf") for seed in (2, 3, 4)]
    values = [
        {"linear": 0.1, "etf": 0.6}[head] + seed / 100 + (env_id == "B")
        for env_id, head, seed in rows
    ]
    runs = runs_frame(
        *(
            {"env_id": e, "head": h, "seed": str(s), "normalised": value}
            for (e, h, s), value in zip(rows, values)
        )
    )
    (row,) = comparisons.aggregate_comparisons(runs)
    assert (row["script"], row["seeds"], row["left_out"], row["env_id"]) == (
        "s",
        "2 pairs",
        4,
        "2 tasks",
    )
    assert row["difference"] == pytest.approx(0.5)
    assert row["iqm"][0] == pytest.approx(np.mean([0.63, 1.62]))
    ((names, (head, baseline)),) = comparisons.aggregated(runs, "normalised")
    assert names["tasks"] == 2 and np.allclose(head, baseline + 0.5)
    assert head == pytest.approx(np.array([[0.62, 1.62], [0.63, 1.63]]))


def test_contrasts_compare_means_of_heads_by_seed():
    """Planted: frozen rows add 8, a simplex 4 over random and 2 over orthogonal rows, and a seed adds its number to all. A
    seed that is missing of the orthogonal-trainable head is left out of both sides."""
    effects = {"etf": 12.0, "random": 8.0, "orthogonal": 10.0}
    values = (
        {"linear": -16.0}
        | effects
        | {f"{head}-trainable": value - 8 for head, value in effects.items()}
    )
    rows = [
        {"head": head, "seed": str(n), "final": value + n}
        for head, value in values.items()
        for n in range(5)
    ]
    runs = runs_frame(
        *(row for row in rows if (row["head"], row["seed"]) != ("orthogonal-trainable", "4"))
    )
    table = comparisons.contrast_comparisons(runs)
    final = table[table["measure"] == "final return"]
    assert list(final["factor"]) == [factor for factor, _, _ in comparisons.CONTRASTS]
    assert list(final["difference"]) == pytest.approx([8, 8, 4, 2, 4, 2]) and set(
        final["env_id"]
    ) == {"E"}
    assert list(final["seeds"]) == [
        "4 pairs",
        "5 pairs",
        "5 pairs",
        "4 pairs",
        "5 pairs",
        "5 pairs",
    ]
    assert not len(comparisons.contrast_comparisons(runs[runs["head"].isin(["linear", "etf"])]))


def test_contrasts_over_tasks_take_normalised_means():
    """CartPole-v1's unit is 475 - 22.2, Acrobot-v1's -100 + 499.1."""
    rows = [
        {
            "env_id": env_id,
            "head": head,
            "seed": str(seed),
            "area": gain * (head == "etf"),
            "normalised": 0.0,
        }
        for env_id, gain in (("CartPole-v1", 452.8), ("Acrobot-v1", 39.91))
        for head in ("etf", "random")
        for seed in range(3)
    ]
    table = comparisons.contrast_comparisons(runs_frame(*rows))
    row = table[
        (table["env_id"] == "2 tasks") & (table["measure"] == "normalised area under the curve")
    ].iloc[0]
    assert (row["head"], row["baseline"]) == ("etf", "random") and row[
        "difference"
    ] == pytest.approx((1 + 0.1) / 2)


def test_who_reaches_the_threshold_sooner():
    """One run with the head never reaches it, and two of the others."""
    steps = {"etf": [100, 200, 300, 400, math.nan], "linear": [150, 500, 200, math.nan, math.nan]}
    rows = [
        {"head": head, "seed": str(n), "threshold": 1.0, "stop": step}
        for head, side in steps.items()
        for n, step in enumerate(side)
    ]
    (row,) = comparisons.stop_comparisons(runs_frame(*rows)).to_dict("records")
    assert (row["stop"], row["baseline_stop"]) == (
        "300 (reached by 4 of 5)",
        "500 (reached by 3 of 5)",
    )
    assert (row["sooner"], row["later"], row["seeds"], row["p"]) == (
        3,
        1,
        5,
        pytest.approx(10 / 16),
    )
    assert comparisons.stop_comparisons(
        runs_frame({"head": "linear"}, {"head": "etf"})
    ).empty  # no threshold


def test_the_sign_test_by_hand():
    """Of 2^5 equally likely outcomes of 5 pairs, those with 4 or 5 wins, or as many losses, are 2 * (5 + 1)."""
    assert sign_p(4, 1) == sign_p(1, 4) == pytest.approx(12 / 32) and sign_p(0, 0) == 1


def test_effects_are_in_units_of_the_normalised_score():
    runs = runs_frame(
        *(
            {"env_id": "CartPole-v1", "head": head, "final": value, "area": 22.2, "normalised": 0.0}
            for head in ("linear", "etf")
            for value in (1.0, 3.0 + 45.28 * (head == "etf"))
        ),
        *(
            {"env_id": "Unknown-v0", "head": head, "final": 1.0, "area": 1.0}
            for head in ("linear", "etf")
        ),
    )
    table = comparisons.task_comparisons(runs)
    drawn = report.effects(table, table.head(0))
    assert list(drawn["label"]) == ["s, CartPole-v1"] * 2 and not drawn["several"].any()
    assert list(drawn["panel"]) == [
        f"{measure}\netf against linear" for measure in ("area under the curve", "final return")
    ]
    several = table.head(1).assign(
        measure="normalised final return", env_id="2 tasks", difference=0.5
    )
    drawn_too = report.effects(table, several)
    assert (
        list(drawn_too["label"]) == ["s, CartPole-v1"] * 2 + ["s, 2 tasks"]
        and drawn_too["several"].sum() == 1
    )
    assert (
        drawn_too["difference"].iat[2] == 0.5
        and drawn_too["panel"].iat[2] == drawn_too["panel"].iat[1]
    )
    assert drawn["difference"].iat[0] == 0 and drawn["difference"].iat[1] == pytest.approx(0.05)


def test_never_is_later_than_any_step():
    frame = pd.DataFrame({"threshold": [1.0] * 4, "stop": [100.0, math.nan, 300.0, 200.0]})
    assert comparisons.stop(frame) == "250 (reached by 3 of 4)"
    assert (
        comparisons.stop(frame.assign(stop=[100.0, math.nan, math.nan, math.nan]))
        == "– (reached by 1 of 4)"
    )
    assert comparisons.stop(frame.assign(threshold=math.nan)) == "no threshold"


# REPORTS
class Page(HTMLParser):
    """The elements of an HTML file, and its text."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_the_report(results, capsys):
    text = written(results)
    assert "Runs: 48 planned, 48 finished, 0 failed, 0 damaged, 0 unfinished." in text
    for measure in ("final return", "area under the curve"):
        assert (
            f"* ppo_acpg, CartPole-v1, {measure}: etf is better than linear (4 pairs of seeds; difference "
            in text
        )
        assert (
            f"CartPole-v1, {measure}: random-trainable is not distinguishable from linear at this number of seeds"
            in text
        )
    assert "seeds a side would be needed" in text
    assert "* all scripts, 2 tasks, normalised final return: etf is better than linear" in text
    assert "no references for them: benchmark.envs:MinAtar/Asterix-v1." in text
    assert (
        capsys.readouterr().out.splitlines()[2].startswith("| a2c_acpg | CartPole-v1 | etf | 4 | ")
    )
    names = {
        f"{s}-{c}.png" for s in ("ppo_acpg", "a2c_acpg") for c in ("return", "within_variability")
    } | {"effects.png"}
    assert {path.name for path in results.glob("*.png")} == names and all(
        f"]({name})" in text for name in names
    )
    page = Page(results / "report.html")
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 5 and all(
        image["src"].startswith("data:image/png;base64,iVBOR") for image in images
    )
    assert not [
        a
        for tag, a in page.tags
        if tag in ("script", "iframe") or "http" in str(a.get("src", "") + a.get("href", ""))
    ]
    assert "etf is better than linear" in page.text


def test_the_report_says_where_its_runs_come_from(results):
    header, row = (
        (results / "provenance.csv").read_text().splitlines()[0],
        ["abc", "x86_64", "torch 2.13.0", 48, 2, "May", "June", 0.5],
    )
    assert "at commit" not in written(results)  # made-up runs have no records
    with open(results / "provenance.csv", "w") as file:
        csv.writer(file).writerows([header.split(","), row])
    said = "* 48 runs at commit abc (torch 2.13.0; x86_64), started between May and June, 0.5 hours of one worker; 2 of them were"
    assert said in written(results)


def test_controls_are_told_apart(tmp_path, capsys):
    """A report on all heads has a table of the contrasts, in both forms; without controls there is none."""
    random = np.random.default_rng(7)
    for head in ("linear", *comparisons.FROZEN, *comparisons.TRAINABLE):
        for seed in (1, 2):
            returns = random.normal(300 if head in comparisons.FROZEN else 100, 1, 120) + seed
            make_run(tmp_path / "runs", returns, env_id="CartPole-v1", head=head, seed=seed)
    collate.main(collate.Args(runs=tmp_path / "runs", out=tmp_path / "results"))
    text = written(tmp_path / "results")
    rows = [
        line.split(" | ")
        for line in text.splitlines()
        if line.startswith("| freezing | ppo_acpg | CartPole-v1 | final return | etf, ")
    ]
    assert len(rows) == 1 and 190 < float(rows[0][7].split()[0]) < 210 and rows[0][10] == "better"
    assert (
        "| scale, frozen | ppo_acpg | CartPole-v1 | area under the curve | etf | orthogonal | 2 pairs |"
        in text
    )


def test_the_time_to_threshold_is_reported(tmp_path):
    """With the head the threshold is reached with the 100th episode, without it never."""
    for head, value in (("linear", 100.0), ("etf", 490.0)):
        for seed in range(6):
            make_run(tmp_path / "runs", [value] * 120, env_id="CartPole-v1", head=head, seed=seed)
    collate.main(collate.Args(runs=tmp_path / "runs", out=tmp_path / "results"))
    row = "| etf | linear | 1,000 (reached by 6 of 6) | – (reached by 0 of 6) | 6, 0, 0 | 0.031 | 0.031 |"
    assert row in written(tmp_path / "results")


def test_compressed_tables_are_read(results):
    plain = written(results)
    with gzip.open(results / "curves.csv.gz", "wb") as file:
        file.write((results / "curves.csv").read_bytes())
    (results / "curves.csv").unlink()
    assert written(results) == plain


def test_tables_without_provenance_are_reported(results):
    (results / "provenance.csv").unlink()
    assert "Runs: 48 planned" in written(results)


def test_the_picture_of_effects_shows_each_verdict_in_its_colour(monkeypatch):
    """Better in blue at its difference, with its interval."""
    rows = [
        ("better", 0.4, 0.1, 0.7),
        ("worse", -0.4, -0.7, -0.1),
        ("not distinguishable", 0.0, math.nan, math.nan),
    ]
    frame = pd.DataFrame(rows, columns=["verdict", "difference", "low", "high"])
    figures = []
    monkeypatch.setattr(pictures, "png", lambda figure: figures.append(figure) or b"")
    pictures.draw_effects(
        frame.assign(label=["a", "b", "c"], panel="p", several=[False, True, False])
    )
    lines = figures[0].axes[0].get_lines()[1:]  # the first one marks 0
    marks = [(line.get_xdata()[0], line.get_ydata()[0], line.get_color()) for line in lines[1::2]]
    assert marks == [(0.4, 0, "#0072B2"), (-0.4, 1, "#D55E00"), (0.0, 2, "#999999")]
    assert [list(line.get_xdata()) for line in lines[:4:2]] == [[0.1, 0.7], [-0.7, -0.1]]
    ticks = [
        (text.get_text(), text.get_fontweight()) for text in figures[0].axes[0].get_yticklabels()
    ]
    assert ticks == [("a", "normal"), ("b", "bold"), ("c", "normal")]


def test_a_single_task_is_judged_once(tmp_path):
    """Else its aggregate, the same comparison, could get another verdict."""
    for head in ("linear", "etf"):
        for seed in (1, 2):
            make_run(
                tmp_path / "runs", [100.0 + seed] * 120, env_id="CartPole-v1", head=head, seed=seed
            )
    collate.main(collate.Args(runs=tmp_path / "runs", out=tmp_path / "results"))
    text = written(tmp_path / "results")
    assert (
        "| 1 task |" in text
        and "IQM of the head" in text
        and "normalised final return: " not in text
    )
    assert text.count("CartPole-v1, final return: etf is") == 1


def test_tasks_without_references_are_in_the_probability_of_improvement(tmp_path):
    """Heads win 4 of 4 pairs in one game and 2 of 4 in the other."""
    games = [f"benchmark.envs:MinAtar/{game}-v1" for game in ("Asterix", "Breakout")]
    for game, (linear, etf) in zip(games, (((1.0, 2.0), (3.0, 4.0)), ((1.0, 4.0), (2.0, 3.0)))):
        for head, values in (("linear", linear), ("etf", etf)):
            for seed, value in enumerate(values):
                make_run(tmp_path / "runs", [value] * 120, env_id=game, head=head, seed=seed)
    collate.main(collate.Args(runs=tmp_path / "runs", out=tmp_path / "results"))
    text = written(tmp_path / "results")
    assert (
        "| ppo_acpg | 2 tasks | final return | etf | linear | 2 | 0 | 0.7500 |" in text
        and "IQM of the head" not in text
    )


def test_the_same_tables_make_the_same_report(results):
    first, pictures = written(results), {path: path.read_bytes() for path in results.glob("*.png")}
    assert written(results) == first and {path: path.read_bytes() for path in pictures} == pictures


def test_everything_shown_is_escaped(results):
    evil = '<script>alert("x")</script>|`[a](b)`'
    select(results, env_id=("CartPole-v1",), script=("ppo_acpg",))
    for path in results.glob("*.csv"):
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        frame.assign(env_id=evil, script=f"../{evil}").to_csv(path, index=False)
    text, page = written(results), Page(results / "report.html")
    assert (
        "<script>" not in text.replace("\\<", "")
        and "script" not in [tag for tag, _ in page.tags]
        and evil in page.text
    )
    columns = [
        line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| ../")
    ]
    assert set(columns) == {9, 10, 12}
    assert not list(results.parent.glob("*.png")) and len(list(results.glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({"seed": ()}, "No run has finished, so there is nothing to report yet."),
        (
            {"seed": ("1",)},
            "at this number of seeds (1 and 1 seeds): a single seed shows no spread.",
        ),
        ({"head": ("linear",)}, "no finished run with another head than linear."),
        ({"head": ("etf",)}, "no finished run with linear and like flags to compare etf with."),
        (
            {"env_id": ("benchmark.envs:MinAtar/Asterix-v1",)},
            "no references for them: benchmark.envs:MinAtar/Asterix-v1.",
        ),
    ],
)
def test_what_is_missing_is_said(results, kept, said):
    select(results, **kept)
    assert said in written(results)


def test_planned_runs_that_did_not_finish_are_named_first(results):
    with open(results / "counts.csv", "a") as file:
        csv.writer(file).writerow(["trpo_acpg", "Taxi-v4", "etf", 10, 4, 3, 2, 1])
    text = written(results)
    assert (
        text.index(
            "* trpo_acpg, Taxi-v4, etf: of 10 planned runs 4 finished; 3 failed, 2 damaged, 1 unfinished."
        )
        < 300
    )


def test_a_repeated_run_counts_once(results):
    frame = pd.read_csv(results / "runs.csv", dtype=str, keep_default_na=False)
    repeated = frame.head(2).assign(run=["a", "b"])
    pd.concat([frame, repeated]).to_csv(results / "runs.csv", index=False)
    text = written(results)
    assert (
        "Left out: 2 runs that repeat another's seed and flags." in text
        and "4, 5" not in text
        and "5, 4" not in text
    )


def test_an_unfinished_experiment_is_reported(tmp_path):
    """From a plan of which nothing has run yet to a report."""
    run = {"name": "a", "script": "ppo_acpg", "env_id": "CartPole-v1", "head": "etf", "seed": 1}
    (tmp_path / "plan.json").write_text(json.dumps({"runs": [run]}))
    (tmp_path / "runs").mkdir()
    collate.main(collate.Args(runs=tmp_path / "runs", out=tmp_path / "results"))
    text = written(tmp_path / "results")
    assert (
        "Runs: 1 planned, 0 finished, 0 failed, 0 damaged, 1 unfinished." in text
        and "nothing to report yet" in text
    )


def test_measures_that_no_step_has_of_all_seeds_leave_an_empty_panel(results):
    select(results, script=("ppo_acpg",), head=("etf",), env_id=("CartPole-v1",), seed=("1", "2"))
    frame = pd.read_csv(results / "curves.csv")
    frame.loc[(frame["seed"] == 1) == (frame["step"] < 700), "within_variability"] = math.nan
    frame.to_csv(results / "curves.csv", index=False)
    assert "](ppo_acpg-within_variability.png)" in written(results)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("runs.csv", None, "No such file"),
        ("runs.csv", "env_id,etf_head,seed,final\n", "has no column 'best'"),
        ("curves.csv", "", "No columns to parse"),
        (
            "counts.csv",
            "script,env_id,head,planned,finished,failed,damaged,unfinished\ns,E,etf,x,1,1,1,1\n",
            "could not convert",
        ),
    ],
)
def test_tables_that_cannot_be_read_are_one_line_of_error(results, capsys, name, content, said):
    (results / name).unlink()
    if content is not None:
        (results / name).write_text(content)
    with pytest.raises(SystemExit) as exit:
        report.main(report.Args(results))
    error = capsys.readouterr().err
    assert (
        exit.value.code == 2
        and error.startswith(f"error: --results {results / name}: ")
        and said in error
    )
    assert error.count("\n") == 1 and not (results / "report.md").exists()
