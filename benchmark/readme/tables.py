"""benchmark/results/*.csv -> the tables of README.md, docs/ and benchmark/results/README.md.

    python -m cogapp -r README.md docs/*.md benchmark/results/README.md

writes anew what stands in these files between `[[[cog CODE ]]]` and `[[[end]]]`, the output of the code, which calls the
functions below: they return Markdown (https://cog.readthedocs.io). tests/test_tables.py notices what is out of date.

Standard deviations are of a sample (n - 1), over seeds. Returns are undiscounted sums of rewards, areas means of the curve.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.collate import COUNTS
from benchmark.reporting.thresholds import threshold

RESULTS = Path(__file__).parents[1] / "results"
HEADS = {False: "learned head", True: "frozen ETF"}  # by the column etf_head
DEFAULT_NORMS = {False: 0.01, True: 2}  # the scripts' --head-std and --etf-scale
SCALED = {  # tasks of the table of norms, their titles, and digits of their areas
    "LunarLander-v3": ("LunarLander-v3", 1),
    "Taxi-v4": ("Taxi-v4", 1),
    "benchmark.envs:MinAtar/Asterix-v1": ("MinAtar Asterix", 2),
}
CHECKED = ("CartPole-v1", "Acrobot-v1", "LunarLander-v3")  # tasks of *_checks
PEERS = {  # programs of benchmark/speed/ that are not ours
    "SB3 PPO": "Stable-Baselines3 PPO",
    "SB3 A2C": "Stable-Baselines3 A2C",
    "SB3 TRPO": "sb3-contrib TRPO",
    "CleanRL PPO": "CleanRL PPO, written anew",
    "CleanRL PPO Atari": "CleanRL PPO on Atari, written anew",
    "SBX PPO": "SBX PPO",
}
SPEED = {
    "steps_per_second": "steps/s",
    "ratio": "× SB3 (each turn)",
    "peak_mb": "peak memory",
}  # titles of columns
STAGES = ("environment", "inference", "learning", "collapse")  # of a run, in seconds
VARIANTS = {  # directories of collapse/ and what is not ideal there
    "unbalanced": 'unbalanced: "up" best in 3 cells, "down" in 1',
    "uneven": "uneven: one outer cell starts 70 % of episodes",
    "unexplored": "unexplored: two outer cells start no episode",
    "semantic": 'semantic: a fifth action that is another "up"',
    "unbounded": "ideal, but no bound on the activations",
}
MEASURES = {  # of collapse, with their titles
    "within_variability": "within-action variability",
    "trace_ratio": "variance within / between actions",
    "self_duality": "distance of rows and mean activations",
    "means_equinorm": "equinorm of mean activations",
    "means_equiangularity": "equiangularity of mean activations",
    "means_maximal_angle": "maximal angle of mean activations",
    "head_maximal_angle": "maximal angle of rows",
}

MADE_BY = {  # directories of results, and the files of benchmark/paper/ that made them
    "table_1_small": "table_1.sh --small",
    "table_1_std_2": "table_1.sh --small",
    "controls_small": "controls.sh --small",
    "table_1_hours": "table_1_hours.sh",
    "table_1_hours_gpu": "table_1_hours.sh --gpu",
    "head_scale": "head_scale.sh",
    "ppo_checks": "ppo_checks.sh",
    "a2c_checks": "other_checks.sh",
    "trpo_checks": "other_checks.sh",
    "reinforce_checks": "other_checks.sh",
    "peers_a2c": "peers.sh",
    "peers_trpo": "peers.sh",
    "minatar": "minatar.sh",
    "car_racing": "car_racing.sh",
    "pong": "pong.sh",
    "many_actions_18": "many_actions.sh",
    "many_actions_50": "many_actions.sh",
    "many_actions_18_long": "many_actions.sh",
    "near_k_ideal": "near_k.sh",
    "near_k_lake": "near_k.sh",
    "near_k_many": "near_k.sh",
    "again_ppo": "again.sh",
    "again_a2c": "again.sh",
    "again_trpo": "again.sh",
    "again_reinforce": "again.sh",
    "optimizer_ppo": "optimizer.sh",
    "optimizer_a2c": "optimizer.sh",
    "optimizer_trpo": "optimizer.sh",
    "clipped_apart": "clipped_apart.sh",
    "longer_ppo": "longer.sh",
    "longer_a2c": "longer.sh",
    "longer_trpo": "longer.sh",
    "longer_reinforce": "longer.sh",
    "epsilon": "epsilon.sh",
    "tuning": "tuned.sh",
    "tuned": "tuned.sh",
    "field": "field.sh",
    "field_more": "field.sh",
    "lander": "lander.sh",
    "off_policy": "off_policy.sh",
    "singles": "singles.sh",
    "singles_more": "singles.sh",
    "together_more": "singles.sh",
}


def read(name: str) -> pd.DataFrame:
    """A CSV file below benchmark/results/."""
    return pd.read_csv(RESULTS / name)


def markdown(columns: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of these titles and cells."""
    head, *body = (f"| {' | '.join(cells)} |" for cells in (columns, *rows))
    return "\n".join([head, "|---" * len(columns) + "|", *body])


def mean_std(values: pd.Series, digits: int) -> str:
    """Mean ± standard deviation; of a single value, just that."""
    return f"{values.mean():,.{digits}f}" + (
        f" ± {values.std():,.{digits}f}" if len(values) > 1 else ""
    )


def contents() -> str:
    """The directories of results with their numbers of runs."""
    rows = []
    for folder, script in MADE_BY.items():
        if (RESULTS / folder / "counts.csv").exists():
            counts = [str(count) for count in read(f"{folder}/counts.csv")[[*COUNTS]].sum()]
        else:  # made before counts were kept
            counts = ["?", str(len(read(f"{folder}/runs.csv"))), *"???"]
        rows.append([f"[{folder}]({folder})", f"`bash benchmark/paper/{script}`", *counts])
    return markdown(["directory", "command", *COUNTS], rows)


# RETURNS
def head_scale() -> str:
    """Areas by head, norm of its rows and task; and the mean over tasks of the norm's rank among its head's (1 is best)."""
    runs = read("head_scale/runs.csv").query("feature_activation == 'tanh'")
    runs = runs.assign(norm=runs["etf_scale"].fillna(runs["head_std"]))
    areas = runs.groupby(["etf_head", "norm", "env_id"])["area"]
    ranks = areas.mean().unstack().groupby("etf_head").rank(ascending=False).mean(axis=1)
    rows = []
    for (etf_head, norm), rank in ranks.sort_index(ascending=[False, True]).items():
        bold = "**" if norm == DEFAULT_NORMS[etf_head] else ""
        cells = [
            mean_std(areas.get_group((etf_head, norm, task)), digits)
            for task, (_, digits) in SCALED.items()
        ]
        rows.append(
            [
                f"{bold}{'ETF' if etf_head else 'learned, initially'} {norm:g}{bold}",
                *cells,
                f"{rank:.1f}",
            ]
        )
    return markdown(["rows' norm", *(title for title, _ in SCALED.values()), "mean rank"], rows)


def last_activation() -> str:
    """By the CNN's last activation: area on Asterix of the learned head with its default norm."""
    runs = read("head_scale/runs.csv").query(
        "env_id.str.contains('Asterix') and head_std == @DEFAULT_NORMS[False]"
    )
    areas = runs.groupby("feature_activation")["area"]
    names = {"tanh": "tanh", "relu": "ReLU, CleanRL's", "linear": "linear"}
    cells = [mean_std(areas.get_group(activation), 2) for activation in names]
    return markdown(["last activation", *names.values()], [["area", *cells]])


def outcome(runs: pd.DataFrame, goal: float) -> str:
    """Final return and area of the runs, how many are solved, and the final returns of the others."""
    others = [f"{final:.0f}" for final in runs["final"].sort_values() if final < goal]
    solved = f"{len(runs) - len(others)} of {len(runs)}" + (
        f" ({', '.join(others)})" if others else ""
    )
    return f"{mean_std(runs['final'], 1)}, area {mean_std(runs['area'], 0)}, {solved}"


def checks(script: str) -> str:
    """Outcomes of a script's longer runs by task and head."""
    rows = []
    steps = read(f"{script}_checks/curves.csv").groupby("env_id")["step"].max()
    tasks = read(f"{script}_checks/runs.csv").groupby("env_id")
    for task in [task for task in CHECKED if task in tasks.groups]:
        runs, goal = tasks.get_group(task), threshold(task)
        heads = [runs[runs["etf_head"] == etf_head] for etf_head in HEADS]
        length = f"{steps[task] / 1e6:g}M" if steps[task] >= 1e6 else f"{steps[task] / 1e3:g}k"
        name = f"{task}, {length}, {len(heads[0])}"
        rows.append([name, f"{goal:g}", *(outcome(head, goal) for head in heads)])
    return markdown(["task, steps, seeds", "solved at", *HEADS.values()], rows)


def peers(algorithm: str, digits: int) -> str:
    """Areas and final returns of our A2C or TRPO and of its peer."""
    rows = []
    for script, runs in read(f"peers_{algorithm}/runs.csv").groupby("script", sort=False):
        name = PEERS.get(script.upper().replace("-", " "), f"`{script}.py`")
        rows.append([name, mean_std(runs["area"], digits), mean_std(runs["final"], 0)])
    return markdown(["program", "area", "final"], rows)


def minatar() -> str:
    """Final returns on MinAtar's games: the random policy's, and each head's with its seeds'."""
    rows = []
    for task, runs in read("minatar/runs.csv").sort_values("seed").groupby("env_id"):
        trained = runs[runs["epsilon"] == 0].groupby("etf_head")["final"]
        cells = [
            f"{mean_std(final, 1)} ({', '.join(f'{value:.1f}' for value in final)})"
            for _, final in trained
        ]
        random = runs["final"][runs["epsilon"] == 1].mean()
        rows.append([task.split("/")[1].removesuffix("-v1"), f"{random:.2f}", *cells])
    return markdown(["game", "random", *HEADS.values()], rows)


def pong() -> str:
    """What became of both heads on Pong."""
    runs = read("pong/runs.csv").set_index("head").loc[["linear", "etf"]]
    rows = [
        [name, f"{run.final:.1f}", f"{run.within_variability:.1f}"]
        for name, run in zip(HEADS.values(), runs.itertuples(), strict=True)
    ]
    columns = ["Pong-v5, 1M steps", "return over the last 100 games", "within-action variability"]
    return markdown(columns, rows)


# SPEED
def medians(name: str) -> pd.DataFrame:
    """Medians over turns of a CSV of `python -m benchmark.speed`, a row per program."""
    return read(name).groupby("program", sort=False).median(numeric_only=True)


def programs(rows: pd.DataFrame, formats: dict[str, str]) -> str:
    """A line per program, of these columns in their formats."""
    lines = []
    for name, row in rows.iterrows():
        lines.append(
            [
                PEERS.get(name, f"`{name}`"),
                *(form.format(row[column]) for column, form in formats.items()),
            ]
        )
    return markdown(["program", *(SPEED.get(column, column) for column in formats)], lines)


def speed(name: str) -> str:
    """Whole runs beside Stable-Baselines3's, with the ratios of all turns."""
    ratios = {}
    for program, turns in read(name).groupby("program", sort=False)["ratio"]:
        ratios[program] = f"{turns.median():.2f}"
        if not program.startswith("SB3"):
            ratios[program] += f" ({', '.join(f'{ratio:.2f}' for ratio in turns)})"
    rows = medians(name).assign(ratio=ratios)
    formats = {"steps_per_second": "{:,.0f}", "ratio": "{}", "peak_mb": "{:.0f} MB"}
    table = programs(rows, formats)
    cpus = read(name).get("cpu", pd.Series(dtype=str)).dropna().unique()
    return "\n".join([table, *(f"\nOn a processor named {cpu}." for cpu in cpus)])


def speed_by_stage() -> str:
    """Seconds by stage of the four scripts."""
    rows = medians("speed_stages.csv").dropna()
    return programs(rows, {"steps_per_second": "{:,.0f}"} | dict.fromkeys(STAGES, "{:.2f}"))


def speed_by_num_envs() -> str:
    """ppo_acpg.py with more and more environments."""
    speeds = medians("speed_stages.csv")["steps_per_second"].filter(like="--num-envs")
    numbers = [name.split()[-1] for name in speeds.index]
    return markdown(
        ["`ppo_acpg.py --num-envs`", *numbers],
        [["steps/s", *(f"{steps:,.0f}" for steps in speeds)]],
    )


def speed_atari() -> str:
    """ppo_atari_acpg.py with one flag changed, and its seconds by stage."""
    formats = (
        {"steps_per_second": "{:,.0f}"}
        | dict.fromkeys(STAGES[:3], "{:.1f}")
        | {"peak_mb": "{:.0f} MB"}
    )
    return programs(medians("speed_atari.csv"), formats)


def speed_cuda() -> str:
    """Scripts on the CPU and on a GPU, with the ratio of the two."""
    ratio = "× `--no-cuda`"
    formats = {"steps_per_second": "{:,.0f}", ratio: "{:.2f}", "peak_mb": "{:.0f} MB"}
    table = programs(medians("speed_cuda.csv").rename(columns={"ratio": ratio}), formats)
    (machine,) = read("speed_cuda.csv")["cpu"].unique()
    return f"{table}\n\nOn a processor named {machine}."


def speed_environments() -> str:
    """Our environments beside Gymnasium's, with the ratios of all turns."""
    rows, groups = [], [*read("speed_environments.csv").groupby("program", sort=False)]
    for (_, plain), (_, processes), (name, ours) in zip(groups[::3], groups[1::3], groups[2::3]):
        speeds = [
            f"{turns['steps_per_second'].median():,.0f}" for turns in (ours, plain, processes)
        ]
        rows.append([f"`{name}`", *speeds, " and ".join(f"{ratio:.1f}" for ratio in ours["ratio"])])
    return markdown(
        ["environment", "ours", "Gymnasium", "Gymnasium in processes", "ours / Gymnasium"], rows
    )


# ACTION COLLAPSE
def looks(variant: str) -> pd.DataFrame:
    """measures.csv of a directory of collapse/, in the order of training."""
    return read(f"collapse/{variant}/measures.csv").sort_values("global_step")


def measured(agents: pd.DataFrame, measures: Iterable[str]) -> list[str]:
    """Medians of these measures over the agents, two digits each."""
    rounded = agents.reindex(columns=measures).median().round(6)  # float32's 1e-9 is 0
    return ["undefined" if pd.isna(value) else f"{value:.2g}" for value in rounded]


def ideal(measures: Iterable[str], agents: dict[str, tuple[bool, str]]) -> str:
    """The ideal cliff walk. `agents`: the name of each line, its head (etf_head), and whether "untrained" or "trained"."""
    rows, runs = [], looks("ideal").groupby(["etf_head", "seed"])
    ends = {"untrained": runs.head(1), "trained": runs.tail(1)}
    for name, (etf_head, moment) in agents.items():
        seeds = ends[moment][ends[moment]["etf_head"] == etf_head]
        optimal = f"{(seeds['agreement'] == 1).sum()} of {len(seeds)}"
        rows.append([name, optimal, *measured(seeds, measures)])
    return markdown(
        ["", "optimal in all 8 cells", *(MEASURES[measure] for measure in measures)], rows
    )


def optimal_from(run: pd.DataFrame) -> float:
    """The first step of a run from which all looks find its policy optimal; inf if the last one does not."""
    optimal = run["agreement"].eq(1)[::-1].cummin()
    return min(run["global_step"][optimal], default=math.inf)


def variants() -> str:
    """The cliff walks of VARIANTS after training, by head."""
    measures = (
        "within_variability",
        "trace_ratio",
        "self_duality",
        "means_maximal_angle",
        "head_maximal_angle",
    )
    rows = []
    for variant, condition in VARIANTS.items():
        for etf_head, seen in looks(variant).groupby("etf_head"):
            runs = seen.groupby("seed")
            since = np.median([optimal_from(run) for _, run in runs])
            cells = [*measured(runs.tail(1), measures), f"{since.round(-2):,.0f}"]
            rows.append(["" if etf_head else condition, "ETF" if etf_head else "learned", *cells])
    return markdown(
        ["", "head", *(MEASURES[measure] for measure in measures), "optimal from step"], rows
    )
