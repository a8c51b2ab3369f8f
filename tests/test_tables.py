"""README.md and docs/ say what the CSV files in benchmark/results/ say."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from cogapp.cogapp import Cog

from benchmark.readme import evidence, tables

DOCS = sorted(map(str, Path("docs").glob("*.md")))
FILES = ("README.md", *DOCS, "benchmark/results/README.md")


def check(*files: object) -> int:
    """Exit code of `cog --check`: 0 if the files are up to date, 5 if not, others for errors in their code."""
    return Cog().main(["cog", "--check", "--diff", *map(str, files)])


def test_tables_are_up_to_date():
    command = "python -m cogapp -r README.md docs/*.md benchmark/results/README.md"
    assert check(*FILES) == 0, f"bring the tables up to date: {command}"


def test_a_stale_number_is_noticed(tmp_path, capsys):
    copy, text = tmp_path / "copy.md", Path("docs/first-evidence.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| **ETF 2** |"))
    copy.write_text(text)
    assert check(copy) == 0
    copy.write_text(text.replace(line, line.replace(" ± ", " ± 1", 1)))
    assert check(copy) == 5
    assert f"\n+{line}\n" in capsys.readouterr().out


def test_new_results_are_noticed(monkeypatch):
    read = tables.read
    monkeypatch.setattr(
        tables,
        "read",
        lambda name: read(name).assign(final=0.0) if name == "pong/runs.csv" else read(name),
    )
    assert check("docs/scripts.md") == 5


# SENTENCES
def extremes(values: pd.Series, digits: int = 0) -> str:
    """The smallest and the greatest."""
    return f"{values.min():.{digits}f} and {values.max():.{digits}f}"


def sentences_on_the_scripts() -> Iterator[str]:
    """Words of docs/scripts.md and docs/speed.md beside numbers from the CSV files."""
    final = {
        (script, *key): runs["final"].sort_values()
        for script in ("ppo", "a2c", "reinforce")
        for key, runs in tables.read(f"{script}_checks/runs.csv").groupby(["env_id", "etf_head"])
    }
    yield f"`return` at {final['a2c', 'CartPole-v1', True].min():.0f} (10 seeds)"
    yield f"`return` between {extremes(final['reinforce', 'CartPole-v1', True])} (10 seeds)"
    yield f"`return` between {extremes(final['ppo', 'Acrobot-v1', True])} (3 seeds)"
    yield f"`return` between {extremes(final['ppo', 'LunarLander-v3', True])} (3 seeds;"
    yield "the learned head reached {:.0f}, {:.0f} and {:.0f})".format(
        *final["ppo", "LunarLander-v3", False]
    )
    breakout = tables.read("minatar/runs.csv").query(
        "env_id.str.endswith('Breakout-v1') and etf_head"
    )["final"]
    yield f"`return` between {extremes(breakout, 1)} (3 seeds)"
    racing = tables.read("car_racing/runs.csv").set_index(["epsilon", "etf_head"])["final"]
    yield f"{racing[0, False]:.1f} with the learned head and {racing[0, True]:.1f} with the frozen one"
    random = tables.read("car_racing/episodes-random.csv")["return"]
    yield f"a random policy makes {random.mean():.1f} over {len(random)} episodes"
    yield f"(95 % of them between {extremes(random.quantile([0.025, 0.975]))})"
    yield f"`collapse/*` took {tables.read('speed_atari.csv')['collapse'].max():.1f} s"


def sentences_on_collapse() -> Iterator[str]:
    """The same for docs/action-collapse.md."""
    yield f"inner products are met to {tables.read('layer_peeled/theorem.csv')['error'].max():.0e}"
    runs = {
        variant: tables.looks(variant).groupby(["etf_head", "seed"])
        for variant in ("ideal", *tables.VARIANTS, "acrobot")
    }
    start = {
        variant: group.head(1).groupby("etf_head").median(numeric_only=True)
        for variant, group in runs.items()
    }
    end = {
        variant: group.tail(1).groupby("etf_head").median(numeric_only=True)
        for variant, group in runs.items()
    }
    learned, frozen = ((start["ideal"].loc[head], end["ideal"].loc[head]) for head in (False, True))
    yield "go from orthogonal ({:.2g} from the simplex) to nearly a simplex ({:.2g})".format(
        *(moment["head_maximal_angle"] for moment in learned)
    )
    yield "Tr Σ_W / Tr Σ_B ({:.2g} to {:.1g})".format(*(moment["trace_ratio"] for moment in frozen))
    yield "distance between rows and means ({:.2g} to {:.2g})".format(
        *(moment["self_duality"] for moment in frozen)
    )
    optimal = sum((runs[variant].tail(1)["agreement"] == 1).sum() for variant in tables.VARIANTS)
    yield f"All {optimal} agents are optimal in all 8 cells"
    times = end["unexplored"]["trace_ratio"] / end["ideal"]["trace_ratio"]
    yield f"variance within actions stays {times[False]:.0f} (learned) to {times[True]:.0f} (frozen) times that of the ideal"
    yield f"agree no better than to {end['unbounded']['self_duality'][True]:.2g}"
    since = pd.Series(
        {
            (name, *run): tables.optimal_from(looks)
            for name in tables.VARIANTS
            for run, looks in runs[name]
        }
    )
    typical = since.groupby(level=[0, 1]).median().unstack()
    yield f"after {typical[False].max().round(-2):,.0f} steps (the slowest seed at {since[:, False].max().round(-2):,.0f})"
    yield f"the frozen one needs {typical[True].min().round(-3):,.0f} to {typical[True].max().round(-3):,.0f}"
    swing = [moment["acrobot"]["trace_ratio"] for moment in (end, start)]
    yield f"is {swing[0][False]:.1f} (learned) and {swing[0][True]:.1f} (frozen) of that between them"
    yield f"hardly less than before training ({swing[1][False]:.1f} and {swing[1][True]:.1f})"


def sentences_on_the_head() -> Iterator[str]:
    """The same for the pages on the head."""
    area, final = "area under the curve", "final return"
    for head, baseline in (("etf", "linear"), ("linear-2", "linear"), ("etf", "linear-2")):
        words = evidence.verdict_counts(head, baseline, area).replace(",", " and")
        yield {
            ("etf", "linear"): f"the frozen ETF's area is {words}",
            ("linear-2", "linear"): f"the learned head's larger start is {words}",
            ("etf", "linear-2"): f"against it the frozen ETF is {words}",
        }[head, baseline]
    yield f"its final return {evidence.verdict_counts('etf', 'linear', final).replace(',', ' and')}"
    more, together = re.findall(
        r"in (\d+) of 16 cases .* in \w+, (together .*)\)", evidence.dispersion(area)
    )[0]
    yield f"in {more} of 16 cases, {together}"
    days = evidence.hours()["hours"].sum() / 2400
    yield f"or {days:.0f} days on 100 of them"
    of_gpu = evidence.hours(evidence.HOURS_GPU)["hours"]
    of_core = evidence.hours().loc[of_gpu.index, "hours"]
    yield f"would take {of_gpu.sum():,.0f} hours (`bash benchmark/paper/table_1_hours.sh --gpu`"
    yield f"are {of_core.sum():,.0f} hours of one core: {of_core.sum() / 16:,.0f} on 16 cores like"
    ppo, trpo = (
        f"({of_gpu[script].sum():.0f}{{}}, not {of_core[script].sum() / 16:.0f})"
        for script in ("ppo_acpg", "trpo_acpg")
    )
    yield f"pays for TRPO {trpo.format(' hours')} and not for PPO {ppo.format('')}"
    yield f"The controls would take {evidence.hours_of_controls():,.0f} hours"


@pytest.mark.parametrize(
    "sentences", [sentences_on_the_scripts, sentences_on_the_head, sentences_on_collapse]
)
def test_numbers_in_sentences_are_those_of_the_results(sentences):
    text = " ".join(" ".join(Path(file).read_text() for file in DOCS).split())
    assert [words for words in sentences() if words not in text] == []


def test_words_on_speed():
    """Twice as fast as both peers, and with ten seeds seven times; three times one seed alone."""
    single = tables.medians("speed.csv")["steps_per_second"]
    many = tables.medians("speed_seeds.csv")["steps_per_second"]
    ten = many["seeds/ppo_acpg.py --num-seeds 10"]
    for peer in ("SB3 PPO", "CleanRL PPO"):
        assert 1.8 < single["ppo_acpg.py"] / single[peer] < 2.2
        assert 6.5 < ten / many[peer] < 7.5
    assert 2.8 < ten / many["ppo_acpg.py"] < 3.5
    hours = 1e7 / tables.medians("speed_atari.csv")["steps_per_second"] / 3600
    assert hours["ppo_atari_acpg.py --amp"] > 6.5 and hours["ppo_atari_acpg.py"] < 11.5


def test_words_on_the_gpu():
    """Vectors half as fast, MinAtar no faster, Atari twice as fast, and no flag that gains there."""
    speeds = tables.medians("speed_cuda.csv")["steps_per_second"]
    bounds = {
        "ppo_acpg.py": (0.5, 0.6),
        "-m benchmark.seeds.ppo_acpg --num-seeds 10": (0.5, 0.6),
        "ppo_acpg.py --env-id benchmark.envs:MinAtar/Breakout-v1": (0.8, 1),
        "ppo_atari_acpg.py": (1.9, 2.1),
    }
    for name, (low, high) in bounds.items():
        assert low < speeds[name] / speeds[f"{name} --no-cuda"] < high, name
    for flag in ("--amp", "--pin-memory"):
        assert speeds[f"ppo_atari_acpg.py {flag}"] < 1.1 * speeds["ppo_atari_acpg.py"]
    on_gpu = tables.medians("speed_cuda.csv").filter(like="ppo_atari", axis=0).iloc[1:]
    games = on_gpu["environment"]
    text = Path("docs/speed.md").read_text()
    assert f"differed by up to {games.max() / games.min():.1f} times between" in " ".join(
        text.split()
    )


# KNOWN ANSWERS
def test_mean_and_standard_deviation_by_hand():
    """1, 2 and 6: mean 3, squared deviations 4 + 1 + 9 = 14, over n - 1 = 2 that is 7."""
    assert tables.mean_std(pd.Series([1, 2, 6]), 3) == f"3.000 ± {math.sqrt(7):.3f}"
    assert tables.mean_std(pd.Series([-1234.5]), 1) == "-1,234.5"


def test_markdown_by_hand():
    assert (
        tables.markdown(["a", "b"], [["1", "2"], ["3", ""]])
        == "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 |  |"
    )


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """plant(name, columns, *rows): write a CSV file for benchmark/readme/tables.py to read."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path)

    def plant(name: str, columns: str, *rows: tuple) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows, columns=columns.split()).to_csv(tmp_path / name, index=False)

    return plant


def test_mean_rank_on_a_planted_table(plant):
    """Of two norms, ETF 1 is the better one in the first task and the worse one in two. The learned head's is alone."""
    rows = []
    for task, areas in zip(tables.SCALED, [(5, 4, 9), (1, 2, 9), (-3, -1, -9)]):
        for head, area in zip([(True, 1, None), (True, 2, None), (False, None, 0.01)], areas):
            rows += [(task, "tanh", *head, area - 1), (task, "tanh", *head, area + 1)]
        rows.append((task, "relu", True, 1, None, 1000))
    plant(
        "head_scale/runs.csv", "env_id feature_activation etf_head etf_scale head_std area", *rows
    )
    assert tables.head_scale().splitlines()[2:] == [
        "| ETF 1 | 5.0 ± 1.4 | 1.0 ± 1.4 | -3.00 ± 1.41 | 1.7 |",
        "| **ETF 2** | 4.0 ± 1.4 | 2.0 ± 1.4 | -1.00 ± 1.41 | 1.3 |",
        "| **learned, initially 0.01** | 9.0 ± 1.4 | 9.0 ± 1.4 | -9.00 ± 1.41 | 1.0 |",
    ]


def test_speed_is_the_median_over_turns(plant):
    columns = "program turn steps_per_second ratio peak_mb"
    plant(
        "speed.csv",
        columns,
        ("SB3 A2C", 0, 100, 1, 30),
        ("a.py", 0, 300, 3, 10),
        ("SB3 A2C", 1, 200, 1, 32),
        ("a.py", 1, 200, 1, 10),
    )
    assert tables.speed("speed.csv").splitlines()[2:] == [
        "| Stable-Baselines3 A2C | 150 | 1.00 | 31 MB |",
        "| `a.py` | 250 | 2.00 (3.00, 1.00) | 10 MB |",
    ]


def test_a_run_is_optimal_from_the_step_after_its_last_mistake():
    steps = {"global_step": [0, 10, 20, 30]}
    for agreement, step in {
        (0, 1, 0.5, 1): 30,
        (0, 1, 1, 1): 10,
        (1, 1, 1, 1): 0,
        (1, 1, 1, 0.9): math.inf,
    }.items():
        assert tables.optimal_from(pd.DataFrame(steps | {"agreement": agreement})) == step


def test_collapse_by_hand(plant):
    """Medians of the first and the last look of each seed, whatever their order in the file."""
    looks = [
        (True, 1, 9, 1, 3e-9),
        (True, 1, 0, 0, 0.5),
        (True, 2, 0, 0, 0.7),
        (True, 2, 9, 0.5, 3e-9),
    ]
    plant("collapse/ideal/measures.csv", "etf_head seed global_step agreement trace_ratio", *looks)
    table = tables.ideal(
        ["trace_ratio", "self_duality"], {"before": (True, "untrained"), "after": (True, "trained")}
    )
    assert table.splitlines()[2:] == [
        "| before | 0 of 2 | 0.6 | undefined |",
        "| after | 1 of 2 | 0 | undefined |",
    ]
