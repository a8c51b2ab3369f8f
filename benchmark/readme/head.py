"""The small table -> a picture of what the head's start, frame and freezing do to the area under the learning curve.

python -m benchmark.readme.head --out benchmark/results/table_1_small/head.png
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro

from benchmark.readme import evidence
from benchmark.readme.forest import forest
from benchmark.reporting.comparisons import ALL

AREA = "area under the curve"
PANELS = {  # heads that are compared, and what the panel is called
    ("etf", "linear"): "frozen ETF\nagainst CleanRL's learned head",
    ("linear-2", "linear"): "learned head from norm 2\nagainst CleanRL's learned head",
    ("etf", "linear-2"): "frozen ETF\nagainst learned head from norm 2",
}
AXIS = "difference of normalised areas, 95 % intervals (right of 0: earns more while learning)"


@dataclass
class Args:
    out: Path  # PNG to write


def rows() -> pd.DataFrame:
    """The comparisons over the tasks of each algorithm, and over all, by panel."""
    found = []
    for head, baseline in PANELS:
        for script in (*evidence.SCRIPTS, ALL):
            place = script, evidence.over(script), AREA, head, baseline
            row = evidence.small().loc[place]
            name = "all together" if script == ALL else script.removesuffix("_acpg").upper()
            found.append({"panel": (head, baseline), "name": name, **row})
    return pd.DataFrame(found)


def main(args: Args) -> None:
    forest(rows(), PANELS, AXIS, args.out)


if __name__ == "__main__":
    main(tyro.cli(Args))
