"""page.html: the activations over training as two scenes to turn, a head each, and the measures.

One file that needs no other one and no network. All that the slider changes is worked out here, and
the script in page.html.jinja hands it to plotly. Names of actions and states are text: nothing in
them is read as markup.
"""

import base64
import gzip
import itertools
import re
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
from plotly.offline import get_plotlyjs
from torch import Tensor

from benchmark.collapse.measures import Look, why_missing
from benchmark.collapse.pictures import (
    COLOURS,
    LABELS,
    PANELS,
    best_view,
    extent,
    moments,
    project,
)
from benchmark.collate import replacing
from benchmark.readme.figure import HEADS

MOMENTS = 100  # on the slider, at most
MOST_STATES = 200  # in a scene, evenly chosen
MOST_ROWS = 8  # between which lines are drawn; more lines would hide the states
FLOOR = 1e-4  # of the logarithmic axes
SYMBOLS = {"circle": "●", "square": "■", "diamond": "◆", "cross": "✚", "x": "✖"}
MARGIN = {"l": 46, "r": 16, "t": 4, "b": 20}  # of a measure's axes, in pixels
DASHES = ("dash", "solid")  # of the heads, a second cue beside colour
AXIS = {
    "title": {"text": ""},
    "showticklabels": False,
    "showspikes": False,
    "showbackground": False,
    "gridcolor": "#ddd",
    "zeroline": False,
    "nticks": 5,
}
CAMERA = {"eye": {"x": 0.9, "y": 0.9, "z": 0.6}}
CAMERA_OF_PLANE = {"eye": {"x": 0, "y": -0.5, "z": 1.3}}
SPACES = {
    2: "on the line",
    3: "in the plane",
    4: "in the three dimensions",
}

History = dict[str, list[tuple[int, Look]]]


def plain(text: str) -> str:
    """The same to the eye, for where plotly reads tags and entities: these need their first
    character next to the second one."""
    return re.sub("([<&])", "\\1\u200b", text)


def positions(history: History) -> list[dict[str, int]]:
    """For each position of the slider, which look of each head to show: one of the first head, and
    the nearest of the other."""
    first, *_ = history.values()
    leading = {nearest(first, step): None for step in moments(history, MOMENTS)}
    return [{head: nearest(looks, first[k][0]) for head, looks in history.items()} for k in leading]


def nearest(looks: list[tuple[int, Look]], step: float) -> int:
    """The look that was taken nearest that step."""
    distances = [abs(taken - step) for taken, _ in looks]
    return distances.index(min(distances))


# Scenes
def in_space(points: np.ndarray) -> np.ndarray:
    """Points (n, 3) of points (n, 2 or 3): those of a plane stay in it."""
    return np.pad(points, ((0, 0), (0, 3 - points.shape[1])))


def lines_between(corners: np.ndarray) -> np.ndarray:
    """(3 * pairs, 3): the ends of a line for each pair of corners, and NaN, where the pen lifts."""
    if len(corners) > MOST_ROWS:
        return np.empty((0, 3))
    gap = np.full(3, np.nan)
    pairs = itertools.combinations(corners, 2)
    return np.array([point for a, b in pairs for point in (a, b, gap)])


def numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 3) for value in values]


def shown_states(labels: Tensor) -> dict[int, np.ndarray]:
    """The states in a scene, by their labels."""
    step = -(-len(labels) // MOST_STATES)
    chosen = np.arange(0, len(labels), step)
    chosen_labels = labels.numpy()[chosen]
    return {label: chosen[chosen_labels == label] for label in np.unique(chosen_labels).tolist()}


def names_at(corners: np.ndarray, names: tuple[str, ...], near: float) -> list[dict]:
    """The texts above the corners. Of corners so near each other one has the names of all, as they
    could not be read on top of each other."""
    together = {}
    for name, corner in zip(names, corners):
        distances = np.linalg.norm(corners - corner, axis=1)
        together.setdefault(np.flatnonzero(distances <= near)[0], []).append(plain(name))
    return [
        dict(zip("xyz", numbers(corners[k])))
        | {
            "text": ", ".join(texts),
            "showarrow": False,
            "yshift": 22,
            "font": {"size": 14, "color": "#000"},
        }
        for k, texts in together.items()
    ]


class Moves(NamedTuple):
    """What the slider changes in a scene, as plotly's `update` takes it."""

    traces: dict[str, list]  # for each attribute its values in all traces
    layout: dict[str, list]


def what_moves(seen: Look, view: Tensor, limit: float, names: tuple[str, ...]) -> Moves:
    """A look as a scene shows it."""
    points, corners = (in_space(part) for part in project(seen, view))
    probabilities = seen.logits.softmax(dim=1).numpy()
    traces = [lines_between(corners), corners]
    chosen = [[], []]
    for states in shown_states(seen.labels).values():
        traces.append(points[states])
        best = probabilities[states].argmax(axis=1)
        highest = probabilities[states].max(axis=1)
        chosen.append([[plain(names[k]), f"{p:.3f}"] for k, p in zip(best, highest)])
    coordinates = {axis: [numbers(trace[:, k]) for trace in traces] for k, axis in enumerate("xyz")}
    return Moves(
        traces=coordinates | {"customdata": chosen},
        layout={"scene.annotations": names_at(corners, names, 0.2 * limit)},
    )


def what_stays(
    labels: Tensor, names: tuple[str, ...], cells: tuple[str, ...], label_name: str
) -> list[dict]:
    """The traces of a scene but for what moves: lines, corners, and the states of one label after
    another."""
    lines = {"mode": "lines", "line": {"color": "#999", "width": 2}, "hoverinfo": "skip"}
    corners = {
        "mode": "markers",
        "marker": {"symbol": "circle-open", "size": 8, "color": "#000"},
        "text": [plain(name) for name in names],
        "hovertemplate": "row of the head for %{text}<extra></extra>",
    }
    traces = [lines, corners]
    for label, states in shown_states(labels).items():
        marker = {
            "symbol": symbol(label),
            "size": 5 if len(labels) < 50 else 3,
            "color": COLOURS[label % 8],
        }
        hover = (
            f"%{{text}}<br>{label_name}: %{{meta}}<br>most probable action: %{{customdata[0]}}"
            "<br>its probability: %{customdata[1]}<extra></extra>"
        )
        traces.append(
            {
                "mode": "markers",
                "marker": marker,
                "text": [plain(cells[state]) for state in states],
                "meta": plain(names[label]),
                "hovertemplate": hover,
            }
        )
    return [{"type": "scatter3d"} | trace for trace in traces]


def symbol(label: int) -> str:
    return [*SYMBOLS][label % len(SYMBOLS)]


def scene(
    looks: list[tuple[int, Look]],
    chosen: list[int],
    limit: float,
    names: tuple[str, ...],
    cells: tuple[str, ...],
    label_name: str,
) -> dict:
    """The figure of a head at the beginning, and what moves at each position of the slider."""
    last = looks[-1][1]
    view = best_view(last)
    moves = [what_moves(looks[k][1], view, limit, names)._asdict() for k in chosen]
    axis = AXIS | {"range": [-limit, limit]}
    layout = {
        "scene": {
            "xaxis": axis,
            "yaxis": axis,
            "zaxis": axis,
            "aspectmode": "cube",
            "camera": CAMERA if view.shape[1] == 3 else CAMERA_OF_PLANE,
            "dragmode": "orbit",
        },
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "showlegend": False,
        "hoverlabel": {"font": {"size": 14}, "align": "left"},
    }
    traces = what_stays(last.labels, names, cells, label_name)
    return {"traces": traces, "layout": layout, "moves": moves}


# Measures
def last_step(rows: dict[str, list[dict]]) -> int:
    return max(row["global_step"] for row in itertools.chain(*rows.values()))


def panel(column: str, rows: dict[str, list[dict]], chosen: list[dict[str, int]]) -> dict:
    """A measure of both heads over training, with its values at each position of the slider."""
    curves = []
    for head, dash in zip(rows, DASHES):
        defined = [row for row in rows[head] if column in row]
        values = [row[column] for row in defined]
        curves.append(
            {
                "mode": "lines",
                "x": [row["global_step"] / 1000 for row in defined],
                "y": values if column == "agreement" else [max(value, FLOOR) for value in values],
                "line": {"color": HEADS[head][1], "width": 2, "dash": dash},
            }
        )
    end = last_step(rows) / 1000
    scale = {"range": [0, 1.05], "tickvals": [0, 0.5, 1]}
    if column != "agreement":
        scale = {"type": "log", "range": [-4.1, 0.6], "tickvals": [1e-4, 1e-3, 1e-2, 0.1, 1]}
        scale["ticktext"] = ["0.0001", "0.001", "0.01", "0.1", "1"]
    layout = {
        "xaxis": {"range": [0, end], "nticks": 5, "zeroline": False},
        "yaxis": scale | {"zeroline": False},
        "margin": MARGIN,
        "showlegend": False,
        "font": {"size": 11},
    }
    everything = [*itertools.chain(*rows.values())]
    return {
        "column": column,
        "title": PANELS[column].replace("\n", " "),
        "missing": "" if any(curve["x"] for curve in curves) else why_missing(column, everything),
        "values": [
            [value_text(rows[head][at[head]].get(column)) for head in rows] for at in chosen
        ],
        "data": curves,
        "layout": layout,
    }


def value_text(value: float | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.2g}" if value == 0 or value >= FLOOR else f"< {FLOOR}"


# The page
def packed(text: str) -> str:
    """The same in few letters, which `unpack` in page.html.jinja reads."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def legend(history: History, names: tuple[str, ...]) -> list[dict[str, str]]:
    """Symbol, colour and name of each label that occurs."""
    labels = sorted(
        {label for looks in history.values() for label in shown_states(looks[-1][1].labels)}
    )
    return [
        {"symbol": SYMBOLS[symbol(label)], "colour": COLOURS[label % 8], "name": names[label]}
        for label in labels
    ]


def caption(row: dict, states: int) -> str:
    agreeing = round(row["agreement"] * states)
    how = "states optimal" if row["labels"] == "optimal" else "as labelled"
    return f"step {row['global_step']:,}: {agreeing:,} of {states:,} {how}"


def write_page(
    rows: list[dict], history: History, names: tuple[str, ...], cells: tuple[str, ...], out: Path
) -> None:
    """The page of the first seed. `history` gives each head's looks with their steps, `rows` the
    measures of all runs, `names` those of the actions and `cells` those of the states."""
    mine = {
        head: [row for row in rows if row["seed"] == 1 and str(row["etf_head"]) == head]
        for head in history
    }
    first = rows[0]
    label_name = LABELS[first["labels"]]
    num_states = len(cells)
    chosen = positions(history)
    limit = max(
        extent([seen for _, seen in looks], best_view(looks[-1][1])) for looks in history.values()
    )
    heads = []
    for head, looks in history.items():
        shown = [at[head] for at in chosen]
        made = scene(looks, shown, limit, names, cells, label_name)
        heads.append(made | {"captions": [caption(mine[head][k], num_states) for k in shown]})
    leading = next(iter(history))
    drawn = {
        "steps": [history[leading][at[leading]][0] for at in chosen],
        "end": last_step(mine),
        "heads": heads,
        "panels": [panel(column, mine, chosen) for column in PANELS],
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    text = environment.get_template("page.html.jinja").render(
        library=packed(get_plotlyjs()),
        drawn=drawn,
        task=first["env_id"].split(":")[-1],
        command=f"--script {first['script']} --env-id {first['env_id']} {first['flags']}".strip(),
        heads=[HEADS[head] for head in history],
        label_name=label_name,
        legend=legend(history, names),
        space=SPACES.get(len(names), f"in 3 of the {len(names) - 1} dimensions"),
        some=num_states > MOST_STATES,
        num_states=num_states,
        floor=FLOOR,
        margin=MARGIN,
    )
    with replacing(out) as file:
        file.write(text)
