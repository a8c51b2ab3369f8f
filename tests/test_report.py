"""benchmark/report.py and what it uses of benchmark/reporting/: planted data, known answers, and reports on what there is."""

import csv
import gzip
import math
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text
from rliable import library, metrics
from scipy import stats

from benchmark import collate, report
from benchmark.reporting import comparisons, pictures, tables, verdicts, words
from benchmark.reporting.measures import COLLAPSE, MEASURES
from tests.made_runs import make_run
from tests.made_tables import made_runs, write_tables

PNG = pictures.png
AREA, FINAL = comparisons.COMPARED["area"], comparisons.COMPARED["final"]


def compare(arm: list, baseline: list) -> pd.Series:
    """The comparison of values by seed, where None is no run."""
    (row,) = verdicts.compare(np.array([arm], float), np.array([baseline], float)).iloc
    return row


def apart(arm, baseline) -> pd.Series:
    """The comparison of sides that share no seed."""
    return compare([*arm, *[None] * len(baseline)], [*[None] * len(arm), *baseline])


# TESTS
def test_planted_data_through_the_whole_report():
    """Of 64 comparisons 16 are real, as large as the smallest difference that the report names: it finds 80 % of them, within
    3 %, and at most 5 % of what it finds is a false alarm. A hundred reports on two measures."""
    random = np.random.default_rng(0)
    envs = [f"env-{n}" for n in range(64)]
    runs = comparisons.completed(made_runs(envs, ["ppo", "mine"], 10)).assign(greedy=math.nan)
    real = runs["env_id"].isin(envs[::4]) & (runs["arm"] == "mine")
    # with 80 % of 16 real ones and 5 % of false alarms among those found, one more is the fourteenth
    level = verdicts.LEVEL * 14 / 64
    (gain,) = verdicts.smallest(np.sqrt([2 / 10]), np.array([9.0]), np.array([level]))
    found, false, named = [], [], []
    for _ in range(100):
        for column in ("area", "final"):
            runs[column] = random.normal(gain * real, 1)
        table = comparisons.task_comparisons(runs)
        assert len(table) == 128
        is_real = table["env_id"].isin(envs[::4])
        is_found = table["verdict"] != "not distinguishable"
        found += [(is_found & is_real).sum()]
        false += [(is_found & ~is_real).sum()]
        named += [table["smallest"][is_real].mean()]
    assert abs(sum(found) / 3200 - verdicts.POWER) < 0.03
    assert sum(false) / (sum(found) + sum(false)) <= 0.05
    # an estimated standard deviation is 2.7 % too small on average, of ten pairs
    assert np.mean(named) / 0.973 == pytest.approx(gain, rel=0.02)


@pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.9])
def test_verdicts_on_pairs_that_are_correlated(correlation):
    """Equal arms whose runs resemble each other, or the opposite, differ in 5 % of 4,000 cases, before correction."""
    random = np.random.default_rng(8)
    arms = random.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], (4000, 10))
    assert (verdicts.compare(arms[..., 0], arms[..., 1])["p"] <= 0.05).mean() == pytest.approx(
        0.05, abs=0.014
    )


def test_the_interval_is_the_test_s_inversion_and_covers():
    """It leaves out 0 exactly if p < 0.05, and 95 % of them hold the true difference, also at unequal spreads without pairs."""
    random = np.random.default_rng(2)
    none = np.full((2000, 12), math.nan)
    arm = np.concatenate([random.normal(3, 5, (2000, 8)), none], axis=1)
    baseline = np.concatenate([none[:, :8], random.normal(1, 1, (2000, 12))], axis=1)
    for sides in ((arm, baseline), (arm[:, :8], random.normal(1, 1, (2000, 8)))):
        rows = verdicts.compare(*sides)
        assert (((rows["low"] > 0) | (rows["high"] < 0)) == (rows["p"] < 0.05)).all()
        covered = ((rows["low"] <= 2) & (rows["high"] >= 2)).mean()
        assert covered == pytest.approx(0.95, abs=0.02)


def test_welch_s_test_by_hand():
    """Means 3 and 7, variances 1 and 4 of three each: t = 4 / sqrt(5/3), nu = 50/17."""
    row = apart([5, 7, 9], [2, 3, 4])
    margin = stats.t.ppf(0.975, 50 / 17) * math.sqrt(5 / 3)
    assert [row["difference"], row["low"], row["high"]] == pytest.approx(
        [4, 4 - margin, 4 + margin]
    )
    assert row["p"] == pytest.approx(2 * stats.t.sf(4 / math.sqrt(5 / 3), 50 / 17))
    assert row["seeds"] == "3 and 3"


def test_the_paired_test_by_hand():
    """Differences 1, 2 and 6: mean 3, variance 7, t = 3 / sqrt(7/3) with 2 degrees of freedom. A seed of one side is left out."""
    row = compare([5, 9, 12, 99, None], [4, 7, 6, None, 50])
    margin = stats.t.ppf(0.975, 2) * math.sqrt(7 / 3)
    assert [row["difference"], row["low"], row["high"]] == pytest.approx(
        [3, 3 - margin, 3 + margin]
    )
    assert row["p"] == pytest.approx(2 * stats.t.sf(3 / math.sqrt(7 / 3), 2))
    assert row["seeds"] == "3 pairs"


@pytest.mark.parametrize(("seeds", "p"), [(2, 1 / 3), (3, 0.1), (4, 2 / 70)])
def test_without_spread_it_is_the_permutation_test(seeds, p):
    assert apart([500] * seeds, [490] * seeds)["p"] == pytest.approx(p)
    assert apart([500] * seeds, [500] * seeds)["p"] == 1
    row = compare([500] * seeds, [490] * seeds)
    assert row["p"] == pytest.approx(2 / 2**seeds) and math.isnan(row["low"])
    assert compare([500] * seeds, [500] * seeds)["p"] == 1


def test_rounding_is_no_spread():
    """490.1 - 490 and 500.1 - 500 differ by 6e-14 as numbers."""
    assert compare([490.1, 500.1, 3.1], [490, 500, 3])["p"] == 0.25


def test_a_single_seed_has_no_verdict():
    table = verdicts.compare(np.array([[5.0, math.nan]]), np.array([[1.0, 2.0]]))
    (row,) = verdicts.judged(table.assign(measure=AREA)).to_dict("records")
    assert row["verdict"] == "not distinguishable" and row["difference"] == 3.5
    assert all(math.isnan(row[name]) for name in ("p", "low", "high", "corrected", "smallest"))


def test_the_correction_by_hand():
    p = [0.01, math.nan, 0.04, 0.03]
    assert verdicts.corrected(p) == pytest.approx([0.03, math.nan, 0.04, 0.04], nan_ok=True)


def test_each_measure_is_corrected_by_itself():
    """Differences -1 and 1 with p = 0.04: by itself it is found, of two with another p = 0.9 it is not."""
    rows = {"measure": ["a", "b", "b"], "p": [0.04, 0.04, 0.9], "difference": [-1.0, 1, 1]}
    table = verdicts.judged(pd.DataFrame(rows).assign(error=0.5, freedom=9.0))
    assert list(table["corrected"]) == pytest.approx([0.04, 0.08, 0.9])
    assert list(table["verdict"]) == ["worse", "not distinguishable", "not distinguishable"]
    alone, pair = (
        verdicts.smallest(np.array([0.5]), np.array([9.0]), np.array([level]))[0]
        for level in (0.05, 0.025)
    )
    assert list(table["smallest"]) == pytest.approx([alone, pair, pair])


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 64), (0.8, 26), (1.0, 17)])
def test_the_smallest_difference_is_the_textbook_s(effect, seeds):
    """Cohen 1988, Table 2.4.1: n a side for 80 % power at two-sided 5 %."""
    known = np.sqrt([2 / seeds]), np.array([2.0 * seeds - 2]), np.array([0.05])
    assert verdicts.smallest(*known)[0] == pytest.approx(effect, rel=0.02)


@pytest.mark.parametrize(("freedom", "level"), [(1.0, 0.05 / 840), (9.0, 0.05), (999.0, 0.05 / 64)])
def test_the_smallest_difference_is_found_in_80_percent(freedom, level):
    """Of a million t values, also with two seeds and a strict level."""
    (least,) = verdicts.smallest(np.array([1.0]), np.array([freedom]), np.array([level]))
    random = np.random.default_rng(9)
    t = random.normal(least, 1, 10**6) / np.sqrt(random.chisquare(freedom, 10**6) / freedom)
    assert (2 * stats.t.sf(t, freedom) <= level).mean() == pytest.approx(0.8, abs=0.002)


def test_the_sign_test_by_hand():
    """Of 2^5 equally likely outcomes of 5 pairs, those with 4 or 5 wins, or as many losses, are 2 * (5 + 1)."""
    assert verdicts.sign_p(4, 1) == verdicts.sign_p(1, 4) == pytest.approx(12 / 32)
    assert verdicts.sign_p(0, 0) == 1


def test_equal_spread():
    random = np.random.default_rng(6)
    wide, narrow = random.normal(0, 5, 40), random.normal(0, 1, 40)
    assert (
        verdicts.equal_spread(wide, narrow) < 0.001 < 0.05 < verdicts.equal_spread(wide, wide + 3)
    )
    assert (
        math.isnan(verdicts.equal_spread(wide[:4], narrow))
        and verdicts.equal_spread(np.ones(5), np.ones(5)) == 1
    )


# AGGREGATES
@pytest.mark.parametrize("runs", [1, 2, 3, 5, 10])
def test_aggregates_are_rliable_s(runs):
    random = np.random.default_rng(4)
    scores = random.normal(0.8, 0.5, (runs, 3))
    functions = (
        metrics.aggregate_median,
        metrics.aggregate_iqm,
        metrics.aggregate_mean,
        metrics.aggregate_optimality_gap,
    )
    assert verdicts.aggregates(scores) == pytest.approx(
        [function(scores) for function in functions]
    )
    levels = np.array([*scores[0], -9.0, 0.5])
    assert verdicts.profile(scores, levels) == pytest.approx(
        library.score_distributions(scores, levels)
    )
    curves = random.normal(size=(runs, 3, 4))
    iqms = [metrics.aggregate_iqm(curves[..., point]) for point in range(4)]
    assert verdicts.curve_iqm(curves) == pytest.approx(iqms)
    arm = random.integers(0, 5, (runs, 3)).astype(float)
    baseline = random.integers(0, 5, (4, 3)).astype(float)
    chance = metrics.probability_of_improvement(arm, baseline)
    assert verdicts.improvement(arm, baseline)[0] == pytest.approx(chance)


def test_intervals_are_rliable_s():
    """Of 2,000 resamples each, so that limits are equal to some hundredths of the scores' standard deviation, 1."""
    random = np.random.default_rng(5)
    scores = random.normal([0, 5, 10], 1, (10, 3))
    other = random.normal([0, 5, 10], 1, (8, 3))
    np.random.seed(0)  # rliable's generator
    options = {"reps": 2000}
    _, iqm = library.get_interval_estimates(
        {"": scores}, lambda a: np.array([metrics.aggregate_iqm(a)]), **options
    )
    _, chance = library.get_interval_estimates(
        {"": [scores, other]},
        lambda a, b: np.array([metrics.probability_of_improvement(a, b)]),
        reps=300,
    )
    assert verdicts.interval(scores, verdicts.iqm)[1:] == pytest.approx(iqm[""][:, 0], abs=0.05)
    assert verdicts.improvement(scores, other)[1:] == pytest.approx(chance[""][:, 0], abs=0.05)


def test_batches_make_no_difference(monkeypatch):
    scores = np.random.default_rng(5).normal(size=(6, 2, 3))
    whole = verdicts.interval(scores, verdicts.curve_iqm)
    monkeypatch.setattr(verdicts, "BATCH", 1000)
    assert verdicts.interval(scores, verdicts.curve_iqm)[1] == pytest.approx(whole[1], abs=0.1)
    assert verdicts.interval(scores, verdicts.curve_iqm)[1].shape == (3,)


def test_few_seeds_have_no_interval():
    scores = np.random.default_rng(5).normal(size=(4, 3))
    assert math.isnan(verdicts.interval(scores, verdicts.iqm)[1])
    point, *limits = verdicts.improvement(scores, scores)
    assert point == 0.5 and np.isnan(limits).all()


# COMPARISONS
def runs_frame(*rows: dict, **flags: str) -> pd.DataFrame:
    """Runs with these cells, of arms linear and etf against linear on E, with a seed each, if the rows do not say otherwise."""
    own = {"group": "s", "script": "s", "env_id": "E", "baseline": "linear", "greedy": math.nan}
    own |= dict.fromkeys((*MEASURES, *COLLAPSE), math.nan) | flags
    runs = [own | {"run": f"run {n}", "seed": str(n), **row} for n, row in enumerate(rows)]
    return comparisons.completed(pd.DataFrame(runs))


def arms_of(runs: pd.DataFrame) -> list[tuple[str, str]]:
    return list(comparisons.pairs(runs)[["arm", "baseline"]].itertuples(index=False, name=None))


def test_runs_with_other_flags_are_other_arms_and_compared_with_their_like():
    rows = [{"arm": arm, "gamma": gamma} for arm in ("linear", "etf") for gamma in ("0.9", "0.99")]
    assert arms_of(runs_frame(*rows)) == [
        ("etf, gamma 0.9", "linear, gamma 0.9"),
        ("etf, gamma 0.99", "linear, gamma 0.99"),
    ]
    assert arms_of(runs_frame(*rows[:2], rows[2])) == [("etf", "linear, gamma 0.9")]


def test_a_flag_that_one_arm_ignores_does_not_hinder():
    rows = (
        {"arm": "linear", "gamma": ""},
        {"arm": "etf", "gamma": "0.9"},
        {"arm": "etf", "gamma": "1"},
    )
    assert arms_of(runs_frame(*rows)) == [("etf, gamma 0.9", "linear"), ("etf, gamma 1", "linear")]


def test_arms_that_differ_by_a_flag_are_compared_and_the_flag_is_named():
    runs = runs_frame({"arm": "linear", "lr": "0.1"}, {"arm": "slow", "lr": "0.01"})
    assert arms_of(runs) == [("slow", "linear")]
    assert words.other_flags(runs) == ["slow runs with other flags than linear: lr 0.01 (0.1)."]


def test_tasks_and_groups_have_short_names_where_these_tell_them_apart():
    rows = [
        {"arm": "etf", "group": group, "env_id": env_id}
        for group in ("ppo_acpg", "a2c_acpg")
        for env_id in ("a:b/X-v0", "a:Y", "c:Y")
    ]
    names = set(runs_frame(*rows)["task"])
    assert names == {
        f"{group}, {env}" for group in ("ppo", "a2c") for env in ("b/X-v0", "a:Y", "c:Y")
    }
    assert set(runs_frame(*rows[:3])["task"]) == {"b/X-v0", "a:Y", "c:Y"}


def test_runs_of_the_same_seed_are_pairs():
    """In whatever order, and those that only one side has are left out; measures that a run lacks do not hinder the others."""
    values = {"linear": {"2": 6, "1": 1, "3": 4, "4": 8}, "etf": {"1": 5, "2": 9, "3": 7}}
    rows = [
        {"arm": arm, "seed": s, "area": v, "final": v}
        for arm, side in values.items()
        for s, v in side.items()
    ]
    runs = runs_frame(*rows, {"arm": "etf", "seed": "4", "final": 9.0})
    area, final = comparisons.task_comparisons(runs).to_dict("records")
    assert (area["measure"], area["seeds"], final["seeds"]) == (AREA, "3 pairs", "4 pairs")
    assert area["difference"] == pytest.approx((4 + 3 + 3) / 3)
    assert final["difference"] == pytest.approx((4 + 3 + 3 + 1) / 4)
    assert area["spread"] == pytest.approx(2) and final["spread"] == pytest.approx(
        np.std([5, 9, 7, 9], ddof=1)
    )


def test_a_run_whose_measure_is_undefined_is_named_once_for_all_tables():
    rows = [
        {"arm": arm, "seed": str(n), "area": n, "final": n}
        for arm in ("linear", "etf")
        for n in range(3)
    ]
    rows[4]["final"] = math.nan
    runs = runs_frame(*rows)
    counts = pd.DataFrame(columns=["group", "env_id", "arm", *collate.COUNTS])
    (named,) = [note for note in words.missing(runs, [], counts) if "undefined" in note]
    assert (
        named
        == "E: left out of all that is said of the final return, which is undefined: etf, seed 1."
    )
    table = tables.results(runs)
    assert [row[table.columns.index("final")] for row in table.rows] == [
        "1.000 ± 1.414 (of 2)",
        "1.000 ± 1.000",
    ]
    assert [row["runs"] for row in comparisons.improvements(runs).to_dict("records")] == [3, 2]


def test_an_arm_without_a_measure_is_named_as_a_whole():
    rows = [
        {"arm": "linear", "final": 1.0},
        {"arm": "linear"},
        {"arm": "linear"},
        {"arm": "etf"},
        {"arm": "etf"},
    ]
    assert list(words.undefined_seeds(runs_frame(*rows), "final")) == [
        ("etf", "all seeds"),
        ("linear", "seed 1, 2"),
    ]
    assert not len(comparisons.task_comparisons(runs_frame(*rows[1:])))  # nobody has a value


def test_aggregates_take_the_seeds_that_all_tasks_share():
    """CartPole-v1's unit is 475 - 22.2, Acrobot-v1's -100 + 499.1."""
    rows = [("CartPole-v1", arm, seed) for arm in ("linear", "etf") for seed in (1, 2, 3)]
    rows += [("Acrobot-v1", arm, seed) for arm in ("linear", "etf") for seed in (2, 3, 4)]
    zero, unit = (
        {"CartPole-v1": 22.2, "Acrobot-v1": -499.1},
        {"CartPole-v1": 452.8, "Acrobot-v1": 399.1},
    )
    scores = [
        {"linear": 0.1, "etf": 0.6}[arm] + seed / 100 + (env[0] == "A") for env, arm, seed in rows
    ]
    cells = [
        {"env_id": env, "arm": arm, "seed": str(seed), "area": zero[env] + unit[env] * score}
        for (env, arm, seed), score in zip(rows, scores)
    ]
    runs = runs_frame(*cells)
    (row,) = comparisons.aggregate_comparisons(runs).to_dict("records")
    assert (row["group"], row["seeds"], row["left_out"], row["env_id"]) == (
        "s",
        "2 pairs",
        4,
        "2 tasks",
    )
    assert row["difference"] == pytest.approx(0.5) and row["iqm"][0] == pytest.approx(
        (0.62 + 0.63 + 1.62 + 1.63) / 4
    )
    ((_, arm, baseline),) = comparisons.several_tasks(runs, "normalised_area")
    assert arm == pytest.approx(np.array([[1.62, 0.62], [1.63, 0.63]])) and arm == pytest.approx(
        baseline + 0.5
    )


def test_all_groups_are_compared_together_too():
    rows = [
        {
            "group": group,
            "env_id": "CartPole-v1",
            "arm": arm,
            "seed": str(seed),
            "area": seed + gain * (arm == "etf"),
        }
        for group, gain in (("ppo_acpg", 45.28), ("a2c_acpg", 90.56))
        for arm in ("linear", "etf")
        for seed in range(3)
    ]
    (row,) = comparisons.aggregate_comparisons(runs_frame(*rows)).to_dict("records")
    assert row["task"] == "all groups, 2 tasks" and row["difference"] == pytest.approx(0.15)
    chances = comparisons.improvements(runs_frame(*rows))
    assert list(chances["task"]) == ["a2c, 1 task", "ppo, 1 task", "all groups, 2 tasks"]


def test_contrasts_compare_means_of_heads_by_seed():
    """Planted: frozen rows add 8, a simplex 4 over random and 2 over orthogonal rows, and a seed adds its number to all. A
    seed that is missing of the orthogonal-trainable head is left out of both sides."""
    effects = {"etf": 12.0, "random": 8.0, "orthogonal": 10.0}
    values = {"linear": -16.0} | effects
    values |= {f"{head}-trainable": value - 8 for head, value in effects.items()}
    rows = [
        {"arm": arm, "seed": str(n), "final": value + n}
        for arm, value in values.items()
        for n in range(5)
    ]
    runs = runs_frame(
        *(row for row in rows if (row["arm"], row["seed"]) != ("orthogonal-trainable", "4"))
    )
    table = comparisons.contrast_comparisons(runs)
    assert list(table["factor"]) == [factor for factor, _, _ in comparisons.CONTRASTS]
    assert list(table["difference"]) == pytest.approx([8, 8, 4, 2, 4, 2]) and set(
        table["env_id"]
    ) == {"E"}
    assert list(table["seeds"]) == [f"{n} pairs" for n in (4, 5, 5, 4, 5, 5)]
    assert not len(comparisons.contrast_comparisons(runs[runs["arm"].isin(["linear", "etf"])]))


def test_contrasts_over_tasks_take_normalised_means():
    rows = [
        {"env_id": env_id, "arm": arm, "seed": str(seed), "area": gain * (arm == "etf")}
        for env_id, gain in (("CartPole-v1", 452.8), ("Acrobot-v1", 39.91))
        for arm in ("etf", "random")
        for seed in range(3)
    ]
    table = comparisons.contrast_comparisons(runs_frame(*rows))
    rows = table[table["env_id"] == "2 tasks"].to_dict("records")
    assert [row["factor"] for row in rows] == ["frozen frame (and scale)"]
    assert (rows[0]["arm"], rows[0]["baseline"], rows[0]["measure"]) == (
        "etf",
        "random",
        f"normalised {AREA}",
    )
    assert rows[0]["difference"] == pytest.approx((1 + 0.1) / 2)


def test_who_reaches_the_threshold_sooner():
    """One run with the arm never reaches it, and two of the others."""
    steps = {"etf": [100, 200, 300, 400, math.nan], "linear": [150, 500, 200, math.nan, math.nan]}
    rows = [
        {"arm": arm, "seed": str(n), "threshold": 1.0, "stop": step}
        for arm, side in steps.items()
        for n, step in enumerate(side)
    ]
    (row,) = comparisons.stop_comparisons(runs_frame(*rows)).to_dict("records")
    assert (row["stop"], row["baseline_stop"]) == (
        "300 (reached by 4 of 5)",
        "500 (reached by 3 of 5)",
    )
    assert (row["sooner"], row["later"], row["seeds"]) == (3, 1, 5) and row["p"] == pytest.approx(
        10 / 16
    )
    assert comparisons.stop_comparisons(runs_frame({"arm": "linear"}, {"arm": "etf"})).empty


def test_never_is_later_than_any_step():
    frame = pd.DataFrame({"threshold": [1.0] * 4, "stop": [100.0, math.nan, 300.0, 200.0]})
    assert comparisons.stop(frame) == "250 (reached by 3 of 4)"
    frame["stop"] = [100.0, math.nan, math.nan, math.nan]
    assert comparisons.stop(frame) == "– (reached by 1 of 4)"
    assert comparisons.stop(frame.assign(threshold=math.nan)) == "no threshold"


# PICTURES
@pytest.fixture
def figures(monkeypatch) -> list:
    """What is drawn, instead of PNGs of it."""
    drawn = []
    monkeypatch.setattr(pictures, "png", lambda figure: drawn.append(figure) or b"")
    return drawn


def test_effects_are_in_units_of_the_normalised_score():
    """CartPole-v1's is 452.8. Tasks without references are left out, unless there are no others: then it is the standard
    deviation over seeds."""
    values = [
        (arm, seed, 2.0 * seed + 45.28 * (arm == "etf"))
        for arm in ("linear", "etf")
        for seed in range(2)
    ]
    cells = [{"arm": arm, "seed": str(seed), "area": value} for arm, seed, value in values]
    rows = [
        {**cell, "env_id": env_id} for cell in cells for env_id in ("CartPole-v1", "Unknown-v0")
    ]
    table = comparisons.task_comparisons(runs_frame(*rows))
    several = table.head(1).assign(env_id="2 tasks", task="2 tasks", difference=0.5)
    drawn, scale = report.effects(table, several, "area")
    assert list(drawn["label"]) == ["CartPole-v1", "2 tasks"] and list(drawn["several"]) == [
        False,
        True,
    ]
    assert list(drawn["difference"]) == pytest.approx([0.1, 0.5]) and scale == "normalised scores"
    drawn, scale = report.effects(table[table["env_id"] == "Unknown-v0"], several.head(0), "area")
    assert list(drawn["difference"]) == pytest.approx([45.28 / math.sqrt(2)])
    assert scale == "standard deviations over seeds"


def test_the_picture_of_effects_shows_each_verdict_in_its_colour(figures):
    """Better in blue at its difference, with its interval."""
    rows = [
        ("better", 0.4, 0.1, 0.7),
        ("worse", -0.4, -0.7, -0.1),
        ("not distinguishable", 0.0, math.nan, math.nan),
    ]
    frame = pd.DataFrame(rows, columns=["verdict", "difference", "low", "high"])
    frame = frame.assign(label=["a", "b", "c"], panel="p", several=[False, True, False])
    pictures.draw_effects(frame, "points")
    (axis,) = figures[0].axes
    marks = {(*line.get_xydata()[0], line.get_color()) for line in axis.get_lines()[1:]}
    assert marks == {(0.4, 0, "#0072B2"), (-0.4, 1, "#D55E00"), (0.0, 2, "#999999")}
    ends = [segment.tolist() for lines in axis.collections for segment in lines.get_segments()]
    assert [[0.1, 0], [0.7, 0]] in ends and [[-0.7, 1], [-0.1, 1]] in ends
    ticks = [(text.get_text(), text.get_fontweight()) for text in axis.get_yticklabels()]
    assert ticks == [("a", "normal"), ("b", "bold"), ("c", "normal")]


@pytest.mark.parametrize("number", [1, 3, 4, 8])
def test_no_panel_has_more_than_three_lines(number):
    """And each has the baseline, where it is the only one."""
    arms = [f"arm {n}" for n in range(number)]
    facets = pictures.facets(arms, {"arm 0"})
    assert max(map(len, facets)) <= 3 and all("arm 0" in facet for facet in facets)
    assert set(arms) == {arm for facet in facets for arm in facet}
    assert sorted(arm for facet in pictures.facets(arms, set()) for arm in facet) == arms


def test_curves_of_few_seeds_are_thin_lines_and_empty_panels_are_not_drawn(figures):
    """Two arms on two tasks, where one task has no step at which all seeds have a value."""
    rows = [
        {
            "task": task,
            "arm": arm,
            "run": f"{task} {arm} {seed}",
            "step": step,
            "value": step * seed,
        }
        for task in ("A", "B")
        for arm in ("linear", "etf")
        for seed in (1, 3)
        for step in (1000, 2000)
    ]
    curves = pd.DataFrame(rows)
    curves.loc[
        (curves["task"] == "B")
        & (curves["step"] == 1000 * curves["run"].str[-1].astype(int).clip(upper=2)),
        "value",
    ] = math.nan
    panels = pictures.run_panels(curves, "value", [["linear", "etf"]])
    assert [panel.title for panel in panels] == ["A"] and list(panels[0].bands) == ["linear", "etf"]
    band = panels[0].bands["etf"]
    assert list(band.x) == [1, 2] and list(band.point) == [2000, 4000] and np.isnan(band.low).all()
    lines = {arm: {"color": "k", "linestyle": "-"} for arm in ("linear", "etf")}
    pictures.draw_panels(panels, lines, "x", "y")
    assert len(figures[0].axes) == 1 and len(figures[0].axes[0].get_lines()) == 2 * (1 + 2)


def test_arms_keep_their_colours_and_are_told_apart():
    runs = pd.DataFrame(
        {
            "arm": ["etf, a 1", "etf, a 2", "linear"],
            "plain_arm": ["etf", "etf", "linear"],
            "baseline": "linear",
        }
    )
    lines = pictures.styles(runs)
    assert list(lines) == ["linear", "etf, a 1", "etf, a 2"]
    assert (
        lines["linear"]["color"] == "#E69F00"
        and lines["etf, a 1"]["color"] == "#0072B2" == lines["etf, a 2"]["color"]
    )
    many = pd.DataFrame({"arm": [f"arm {n}" for n in range(20)]}).assign(baseline="arm 0")
    looks = pictures.styles(many.assign(plain_arm=many["arm"])).values()
    assert len({tuple(look.values()) for look in looks}) == 20


# REPORTS
EVIL = '_<script>alert("x")</script>$x_1$|`[a](b)`*b*'


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


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """Tables of two environments, three arms and four seeds, to change; what is tested on them needs no fine intervals, nor
    that pictures are more than laid out. `etf` and `random` are far better at CartPole-v1."""
    monkeypatch.setattr(verdicts, "RESAMPLES", 100)
    monkeypatch.setattr(pictures, "png", lambda figure: plt.close(figure) or b"picture")
    arms = ["linear", "etf", "random"]
    write_tables(made_runs(["CartPole-v1", "Env-v0"], arms, 4, gain=50.0), tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def drawing(results, monkeypatch) -> None:
    """Pictures after all."""
    monkeypatch.setattr(pictures, "png", PNG)


def change(results: Path, name: str, edit) -> None:
    """Write the table anew as `edit` returns it."""
    frame = pd.read_csv(results / name, dtype=str, keep_default_na=False)
    edit(frame).to_csv(results / name, index=False)


def written(results: Path, **flags) -> str:
    """The report in Markdown, without its escapes."""
    report.main(report.Args(results, **flags))
    assert not list(results.glob(".*"))
    return (results / "report.md").read_text().replace("\\", "")


def refused(capsys, results: Path, **flags) -> str:
    """The line of error with which the report is refused, before anything is written."""
    with pytest.raises(SystemExit) as exit:
        report.main(report.Args(results, **flags))
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.startswith("error: --") and error.count("\n") == 1
    assert not (results / "report.md").exists()
    return error


def test_from_runs_to_the_report(tmp_path, capsys):
    """Two scripts, two environments, three heads and four seeds, of which `etf` is far better at CartPole-v1."""
    random = np.random.default_rng(1)
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
                    make_run(tmp_path / "runs", returns.round(2), collapse=history, **flags)
    results = tmp_path / "results"
    collate.main(collate.Args(runs=tmp_path / "runs", out=results))
    capsys.readouterr()
    text = written(results)
    printed = capsys.readouterr().out.replace("\\", "").splitlines()
    assert text.splitlines()[0] == printed[0] == "# Which arms are better than linear?"
    assert text.splitlines()[2].startswith(
        f"* etf has a larger {AREA} than linear over 2 tasks: +0.4"
    )
    assert (
        text.splitlines()[2].endswith("by task better in 2, worse in 0, open in 2.")
        and text.splitlines()[2] == printed[2]
    )
    assert (
        f"* random-trainable is not distinguishable from linear in its {AREA} over 2 tasks: "
        in text
    )
    assert "Runs: 48 planned, 48 finished, 0 failed, 0 damaged, 0 unfinished." in text
    assert "no references for them: benchmark.envs:MinAtar/Asterix-v1." in text
    order = (
        "](effects.png)",
        "## Learning curves",
        "## Over all tasks",
        "## Results",
        "## Differences",
        "## Action collapse",
    )
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    names = {
        f"{s}-{c}.png" for s in ("ppo_acpg", "a2c_acpg") for c in ("return", "within_variability")
    }
    names |= {"effects.png", "effects-final.png", "aggregates.png", "profile.png", "training.png"}
    assert {path.name for path in results.glob("*.png")} == names
    assert all(text.count(f"]({name})") == 1 for name in names)
    page = Page(results / "report.html")
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == len(names) and all(
        i["src"].startswith("data:image/png;base64,iVBOR") for i in images
    )
    assert not [a for _, a in page.tags if "http" in str(a.get("src", "")) + str(a.get("href", ""))]
    assert ("details", {}) in page.tags and "script" not in {tag for tag, _ in page.tags}


def only_mine(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `linear` and `etf` on CartPole-v1, as arms `ppo` and `mine`."""
    rows = frame[(frame["env_id"] == "CartPole-v1") & (frame["arm"] != "random")]
    return rows.replace({"linear": "ppo", "etf": "mine"})


def test_the_answer_on_one_environment(results):
    """In plain words, with the number, for each measure of a single arm."""
    for name in ("runs.csv", "curves.csv", "counts.csv"):
        change(results, name, only_mine)
    lines = written(results).splitlines()
    assert lines[0] == "# Is mine better than ppo?"
    assert lines[2].startswith(f"* mine has a larger {AREA} than ppo on CartPole-v1: +")
    assert lines[3].startswith("* mine has a higher final return than ppo on CartPole-v1: +")
    assert lines[4].startswith("* mine has a higher greedy return than ppo on CartPole-v1: +")
    assert all(line.endswith("] (4 pairs).") for line in lines[2:5])
    change(results, "runs.csv", lambda frame: frame.assign(area=[0, 2, 4, 6, 1, 1, 5, 7]))
    line = written(results).splitlines()[2]
    start = f"* mine is not distinguishable from ppo in its {AREA} on CartPole-v1: +0.5 [-1.09, +2.09] (4 pairs); a true "
    # 2.128 standard deviations of the differences, which are 1 here, by statsmodels for four pairs at 5 %
    assert line.startswith(start) and line.endswith(
        " would have been found in 80 % of such experiments."
    )
    assert float(line.split("difference of ")[1].split()[0]) == pytest.approx(2.128)


def test_another_baseline(results):
    assert written(results, baseline="etf").startswith(
        "# Which arms are better than etf?\n\n* linear "
    )


def test_a_baseline_that_no_run_has_is_refused(results, capsys):
    error = refused(capsys, results, baseline="x")
    assert error == "error: --baseline x: no run has this arm; there are etf, linear, random\n"


def test_older_tables_have_heads_of_scripts_for_arms(results):
    """They lack group, arm, baseline and greedy returns."""
    change(results, "runs.csv", lambda frame: frame.assign(greedy=""))
    new = written(results)
    old = ["group", "arm", "baseline", "greedy"]
    for name in ("runs.csv", "curves.csv"):
        change(results, name, lambda frame: frame.drop(columns=old, errors="ignore"))
    rename = {"arm": "head"}
    change(results, "counts.csv", lambda frame: frame.drop(columns="group").rename(columns=rename))
    assert written(results) == new and "| greedy |" not in new


def test_greedy_returns_stand_beside_the_others(results):
    """And a run without is left out and named."""
    assert "| best | final | greedy | area |" in written(results)
    change(results, "runs.csv", lambda frame: frame.assign(greedy=["", *frame["greedy"][1:]]))
    text = written(results)
    note = "* CartPole-v1: left out of all that is said of the greedy return, which is undefined: linear, seed 1."
    assert note in text and "| CartPole-v1 | etf | 3 pairs |" in text and "(of 3) |" in text


def test_the_report_says_where_its_runs_come_from(results):
    assert "at commit" not in written(results)
    row = ["abc", "x86_64", "torch 2.13.0", 48, 2, "May", "June", 0.5]
    with open(results / "provenance.csv", "w") as file:
        csv.writer(file).writerows([collate.PROVENANCE, row])
    said = "* 48 runs at commit abc (torch 2.13.0; x86_64), started between May and June, 0.5 hours of one worker; 2 of them were"
    assert said in written(results)


def test_each_table_says_what_it_is_corrected_for(results):
    text = written(results)
    assert f"{AREA.capitalize()}, comparisons, corrected together: 4; differences found: 2." in text
    assert "are one family." in text


def test_controls_are_told_apart(tmp_path, monkeypatch):
    """A report on all heads has tables of the contrasts; frozen heads gain 50."""
    monkeypatch.setattr(verdicts, "RESAMPLES", 100)
    arms = ["linear", *comparisons.FROZEN, *comparisons.TRAINABLE]
    runs = made_runs(["CartPole-v1"], arms, 3)
    runs["final"] += 50 * runs["arm"].isin(comparisons.FROZEN)
    write_tables(runs, tmp_path)
    text = written(tmp_path)
    start = "| freezing | CartPole-v1 | etf, random, orthogonal | etf-trainable, random-trainable, orthogonal-trainable |"
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(start)]
    final = rows[1]
    assert 47 < float(final[5].split()[0]) < 53 and final[8] == "better"
    assert "| scale, frozen | CartPole-v1 | etf | orthogonal | 3 pairs |" in text


def test_the_time_to_threshold_is_reported(results):
    """With the arm the threshold is reached by all four, without it never."""

    def stops(frame):
        reached = (frame["arm"] == "etf") & (frame["env_id"] == "CartPole-v1")
        return frame.assign(stop=np.where(reached, "1000", ""))

    change(results, "runs.csv", stops)
    row = "| CartPole-v1 | etf | 1,000 (reached by 4 of 4) | – (reached by 0 of 4) | 4, 0, 0 | 0.125 | 0.500 |"
    assert row in written(results)


def test_compressed_tables_are_read(results):
    plain = written(results)
    with gzip.open(results / "curves.csv.gz", "wb") as file:
        file.write((results / "curves.csv").read_bytes())
    (results / "curves.csv").unlink()
    assert written(results) == plain


def test_a_single_task_is_judged_once(results):
    """Else its aggregate, the same comparison, could get another verdict."""
    for name in ("runs.csv", "curves.csv"):
        change(results, name, only_mine)
    text = written(results)
    assert "P(arm beats the baseline)" in text
    assert "IQM of the arm" not in text and "Normalised" not in text


def test_tasks_without_references_are_in_the_probability_of_improvement(results):
    """An arm wins 4 of 4 pairs on one and 2 of 4 on the other."""
    rows = {
        ("A", "linear"): (1, 2),
        ("A", "etf"): (3, 4),
        ("B", "linear"): (1, 4),
        ("B", "etf"): (2, 3),
    }
    runs = made_runs(["A", "B"], ["linear", "etf"], 2).assign(greedy=math.nan)
    for (env_id, arm), values in rows.items():
        runs.loc[(runs["env_id"] == env_id) & (runs["arm"] == arm), "final"] = values
    write_tables(runs, results)
    text = written(results)
    assert f"| 2 tasks | {FINAL} | etf | 2 | 0 | 0.7500 |" in text and "IQM of the arm" not in text


def test_the_same_tables_make_the_same_report(results, drawing):
    first = written(results)
    pictures_before = {path: path.read_bytes() for path in results.glob("*.png")}
    assert written(results) == first
    assert {path: path.read_bytes() for path in pictures_before} == pictures_before


def test_everything_shown_is_text(results, drawing, monkeypatch):
    """Names of arms, groups and environments are neither markup nor mathematics nor paths, in either form and in pictures."""
    drawn, png = [], pictures.png

    def keep(figure):
        drawn.extend(text for text in figure.findobj(Text) if text.get_text())
        return png(figure)

    monkeypatch.setattr(pictures, "png", keep)
    for name in ("runs.csv", "curves.csv", "counts.csv"):
        change(
            results,
            name,
            lambda frame: frame.replace(
                {"etf": EVIL, "Env-v0": f"{EVIL}-v0", "ppo_acpg": f"../{EVIL}"}
            ),
        )
    report.main(report.Args(results))
    text, page = (results / "report.md").read_text(), Page(results / "report.html")
    escaped = '\\_\\<script\\>alert("x")\\</script\\>\\$x\\_1\\$\\|\\`\\[a\\](b)\\`\\*b\\*'
    assert escaped in text and EVIL[:-4] not in text
    assert "script" not in {tag for tag, _ in page.tags} and EVIL in page.text
    lines = [
        line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| ")
    ]
    heads = [line.count("|") for line in text.splitlines() if line.startswith("|---")]
    assert set(lines) == set(heads)
    assert len(list(results.parent.glob("**/*.png"))) == len(list(results.glob("*.png")))
    assert not [text for text in drawn if text.get_parse_math()]
    assert EVIL in {text.get_text() for text in drawn} and f"{EVIL}-v0" in {
        text.get_text() for text in drawn
    }


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("seed", (), "No run has finished."),
        ("arm", ("linear",), "no finished run of another arm than linear."),
        ("arm", ("etf",), "no finished run of linear with like flags to compare etf with."),
        ("env_id", ("Env-v0",), "no references for them: Env-v0."),
    ],
)
def test_what_is_missing_is_said(results, column, values, said):
    for name in ("runs.csv", "curves.csv"):
        change(results, name, lambda frame: frame[frame[column].isin(values)])
    assert said in written(results)


def test_single_seeds_show_no_spread(results):
    for name in ("runs.csv", "curves.csv"):
        change(results, name, lambda frame: only_mine(frame[frame["seed"] == "1"]))
    assert written(results).splitlines()[2].endswith(" (1 and 1); a single seed shows no spread.")


def test_planned_runs_that_did_not_finish_are_named_first(results):
    with open(results / "counts.csv", "a") as file:
        csv.writer(file).writerow(["trpo", "trpo_acpg", "Taxi-v4", "etf", 10, 4, 3, 2, 1])
    text = written(results)
    said = "* trpo, Taxi-v4, etf: of 10 planned runs 4 finished; 3 failed, 2 damaged, 1 unfinished."
    assert text.index(said) < text.index("](effects.png)")


def test_repeated_rows_count_once_and_are_named(results):
    before = written(results)
    change(
        results,
        "runs.csv",
        lambda frame: pd.concat([frame, frame.head(2), frame.head(1).assign(run="other")]),
    )
    change(results, "curves.csv", lambda frame: pd.concat([frame, frame.head(2)]))
    note = "* Left out, as they repeat another run's name, or its seed and flags: run-0, run-1, other.\n"
    assert written(results).replace(note, "") == before


def test_an_unfinished_experiment_is_reported(tmp_path):
    """From a plan of which nothing has run yet to a report."""
    header = ["group", "env_id", "arm", *collate.COUNTS]
    pd.DataFrame([["ppo", "E", "etf", 1, 0, 0, 0, 1]], columns=header).to_csv(
        tmp_path / "counts.csv"
    )
    write_tables(made_runs(["E"], ["etf"], 0), tmp_path / "none")
    for name in ("runs.csv", "curves.csv"):
        shutil.move(tmp_path / "none" / name, tmp_path / name)
    assert "Runs: 1 planned, 0 finished, 0 failed, 0 damaged, 1 unfinished." in written(tmp_path)


def test_measures_that_no_step_has_of_all_seeds_are_not_drawn(results):
    def gaps(frame):
        frame = frame[(frame["arm"] == "etf") & frame["seed"].isin(["1", "2"])].copy()
        early = frame["step"].astype(float) < 500
        frame.loc[(frame["seed"] == "1") == early, "within_variability"] = ""
        return frame

    change(results, "runs.csv", lambda frame: frame[frame["arm"] == "etf"])
    change(results, "curves.csv", gaps)
    text = written(results)
    assert "-within_variability.png)" not in text and "-self_duality.png)" in text


def test_many_tasks_are_drawn_on_several_pictures_and_collapse_over_them(tmp_path, monkeypatch):
    monkeypatch.setattr(verdicts, "RESAMPLES", 100)
    write_tables(made_runs([f"Env-{n}" for n in range(14)], ["linear", "etf"], 2), tmp_path)
    drawn = []
    draw = pictures.draw_panels
    monkeypatch.setattr(
        pictures,
        "draw_panels",
        lambda panels, *a, **k: drawn.append(panels) or draw(panels, *a, **k),
    )
    text = written(tmp_path)
    assert "](ppo_acpg-return.png)" in text and "](ppo_acpg-return-2.png)" in text
    assert [len(panels) for panels in drawn[:2]] == [12, 2]
    titles = {panel.title for panels in drawn[2:] for panel in panels}
    assert titles == {"median over 14 tasks"}


# BAD TABLES
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("runs.csv", None, "No such file"),
        ("runs.csv", "env_id,etf_head,seed,final\n", "has no column 'run'"),
        ("runs.csv", 'run,seed\x00\n"', "benchmark.collate makes it"),
        ("curves.csv", "", "No columns to parse"),
        ("curves.csv", b"run,step\n\xff\xfe,1\n", "can't decode"),
        ("curves.csv", "run,step,value\na,1,2\nb,c,3\n", "row 2, column 'step': 'c' is no number"),
        ("curves.csv", "run,step,value\na,1,2,3\n", "benchmark.collate makes it"),
        ("curves.csv.gz", b"\x1f\x8bno gzip", "benchmark.collate makes it"),
        (
            "counts.csv",
            "group,env_id,arm,planned,finished,failed,damaged,unfinished\ns,E,a,x,1,1,1,1\n",
            "'planned': 'x'",
        ),
        ("provenance.csv", "commit\n", "has no column 'machine'"),
    ],
)
def test_tables_that_cannot_be_read_are_one_line_of_error(results, capsys, name, content, said):
    if name.endswith(".gz"):
        (results / name.removesuffix(".gz")).unlink()
    (results / name).unlink(missing_ok=True)
    if isinstance(content, str):
        (results / name).write_text(content)
    if isinstance(content, bytes):
        (results / name).write_bytes(content)
    error = refused(capsys, results)
    assert error.startswith(f"error: --results {results / name}: ") and said in error


@pytest.mark.parametrize("column", ["final", "area", "greedy", "stop", "threshold"])
@pytest.mark.parametrize("value", ["inf", "-Infinity", "1e400", "1e200", "ten", "1,5", "0x1p3"])
def test_cells_that_are_no_numbers_are_named(results, capsys, column, value):
    change(
        results, "runs.csv", lambda frame: frame.assign(**{column: [*frame[column][:-1], value]})
    )
    assert f"runs.csv: row 24, column {column!r}: {value!r} is no number" in refused(
        capsys, results
    )


@pytest.mark.parametrize("column", ["run", "env_id", "arm", "group", "baseline", "seed"])
def test_runs_that_nobody_can_tell_are_named(results, capsys, column):
    change(results, "runs.csv", lambda frame: frame.assign(**{column: ["", *frame[column][1:]]}))
    assert f"row 1, column {column!r}: '' is empty" in refused(capsys, results)


@pytest.mark.parametrize("column", ["final", "area", "arm", "baseline"])
def test_columns_that_are_missing_are_named(results, capsys, column):
    change(results, "runs.csv", lambda frame: frame.drop(columns=column))
    assert "has no column " in refused(capsys, results)


def test_tables_saved_by_a_spreadsheet_are_read(results):
    """With a byte order mark, and "NaN" in empty cells."""
    plain = written(results)
    text = (results / "runs.csv").read_text()
    (results / "runs.csv").write_text("\ufeff" + text.replace(",,", ",NaN,"))
    assert written(results) == plain


@pytest.mark.parametrize("where", ["none", "file"])
def test_where_nothing_can_be_written_nothing_is_read(tmp_path, capsys, where, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(report, "read_data", lambda args: pytest.fail("read"))
    with pytest.raises(SystemExit) as exit:
        report.main(report.Args(tmp_path / where))
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.startswith(f"error: --results {tmp_path / where}: ")
    assert error.count("\n") == 1


def test_a_reader_who_has_gone_is_no_error(results):
    command = [sys.executable, "-m", "benchmark.report", "--results", str(results)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 0) and (
        results / "report.html"
    ).exists()
