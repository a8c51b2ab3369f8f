"""page.html of benchmark/collapse/ in a real browser: headless chromium, started for one page at a time through files alone; nothing listens."""

import json
import re
import subprocess
from html import unescape
from pathlib import Path

import pytest
import torch

from benchmark.collapse.__main__ import FILES
from benchmark.collapse.measures import Look
from benchmark.collapse.page import (
    names_at,
    plain,
    positions,
    value_text,
    what_moves,
    write_page,
)
from benchmark.collapse.pictures import PANELS, best_view
from benchmark.runner.check import load

PPO = load("ppo_acpg.py")
EVIL = "<b>&lt;<img src=x onerror='window.alerted = true'>"
STEPS = (0, 1000, 2000, 9000)

# What a user does, and what the page then shows; the frame's parent writes it down, as the browser prints the parent.
PROBE = """<script>
const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));
const scene = number => document.getElementById(`scene-${number}`);
const camera = number => scene(number).layout.scene.camera.eye;
const mouse = (kind, x, y, buttons) => scene(0).querySelector("canvas").dispatchEvent(
  new MouseEvent(kind, {clientX: x, clientY: y, buttons, bubbles: true}));
const finger = (kind, x, y) => {
  const target = scene(0).querySelector("canvas");
  const touch = new Touch({identifier: 1, target, clientX: x, clientY: y});
  target.dispatchEvent(new TouchEvent(kind, {changedTouches: [touch], bubbles: true, cancelable: true}));
};
const look = () => ({
  points: [0, 1].map(number => scene(number).data.map(trace => [...trace.x, ...trace.y, ...trace.z])),
  eyes: [camera(0), camera(1)],
  step: document.getElementById("step").textContent,
  at: getComputedStyle(document.querySelector(".panel"), "::after").left,
  values: document.querySelector(".values").innerText,
});
async function drag(act, kinds) {
  const {x, y} = scene(0).getBoundingClientRect();
  act(kinds[0], x + 100, y + 100, 1);
  for (let k = 1; k <= 10; k++) {
    act(kinds[1], x + 100 + 8 * k, y + 100, 1);
    await pause(50);
  }
  act(kinds[2], x + 180, y + 100, 0);
  await pause(500);
}
async function use() {
  const seen = {};
  const slider = document.getElementById("slider");
  await pause(500);
  seen.start = look();
  slider.value = slider.max;
  slider.dispatchEvent(new Event("input"));
  await pause(500);
  seen.end = look();
  await drag(mouse, ["mousedown", "mousemove", "mouseup"]);
  seen.turned = look();
  await drag(finger, ["touchstart", "touchmove", "touchend"]);
  seen.touched = look();
  document.getElementById("play").click();
  await pause(300);
  seen.playing = document.getElementById("play").textContent;
  await pause(3000);
  seen.played = look();
  seen.stopped = document.getElementById("play").textContent;
  const {clientWidth, scrollWidth} = document.documentElement;
  const tops = [0, 1].map(number => scene(number).getBoundingClientRect().top);
  const alerted = window.alerted === true;
  const text = document.body.innerText;
  const images = document.images.length;
  const fetched = performance.getEntriesByType("resource").map(entry => entry.name);
  parent.postMessage({...seen, innerWidth, clientWidth, scrollWidth, tops, alerted, text, images, fetched}, "*");
}
addEventListener("load", use);
</script></body>"""
# The page in a frame, as no window can be as narrow as a phone's.
FRAME = """<!DOCTYPE html><meta charset="utf-8"><body>
<script>addEventListener("message", event => document.body.setAttribute("data-seen", JSON.stringify(event.data)));</script>
<iframe width="{}" height="800" style="border: 0" src="page.html"></iframe>"""


def looks(num_actions: int, trained: float) -> list[tuple[int, Look]]:
    """Of two states an action, which go from anywhere to the rows of a frame."""
    generator = torch.Generator().manual_seed(1)
    weight = PPO.simplex_etf(num_actions, 8, generator)
    labels = torch.arange(num_actions).repeat(2)
    start = 0.3 * torch.randn(len(labels), 8, generator=generator)
    made = []
    for step in STEPS:
        share = trained * step / STEPS[-1]
        features = (1 - share) * start + share * weight[labels]
        made.append((step, Look(features, labels, weight, 9 * features @ weight.T)))
    return made


def made_page(folder: Path, names: tuple[str, ...]) -> Path:
    history = {"False": looks(len(names), 0.9), "True": looks(len(names), 1.0)}
    keys = {"env_id": f"benchmark.envs:{EVIL}", "script": "ppo_acpg", "flags": "--gamma 0.9"}
    rows = [
        keys
        | {"labels": "optimal", "etf_head": head == "True", "seed": 1, "global_step": step}
        | {column: step / STEPS[-1] for column in PANELS if column != "self_duality"}
        | {"actions_seen": len(names)}
        for head, looked in history.items()
        for step, _ in looked
    ]
    cells = tuple(f"cell {number}" for number in range(2 * len(names)))
    write_page(rows, history, names, cells, folder / "page.html")
    return folder / "page.html"


def browse(page: Path, width: int) -> tuple[dict, str]:
    """What PROBE sees in a frame of this width, and the browser's log."""
    html = page.read_text()
    page.write_text(html.replace("</body>", PROBE))
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.format(width))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu"]
    command += ["--enable-unsafe-swiftshader", "--enable-logging=stderr", "--v=0"]
    command += [f"--user-data-dir={page.parent / 'profile'}", "--window-size=1400,900"]
    command += ["--virtual-time-budget=20000", "--dump-dom", frame.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    page.write_text(html)
    return json.loads(unescape(re.search(r'data-seen="([^"]*)"', result.stdout)[1])), result.stderr


def errors(log: str) -> list[str]:
    """The lines of the page's console, without what the library's drawing costs."""
    lines = [line for line in log.splitlines() if "CONSOLE" in line]
    return [line for line in lines if not re.search(r"ReadPixels|willReadFrequently", line)]


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_in_a_browser(tmp_path, width):
    page = made_page(tmp_path, ("up", "down", "left", EVIL))
    assert page.stat().st_size < 2_500_000
    seen, log = browse(page, width)
    assert errors(log) == [] and not seen["alerted"] and seen["images"] == 0
    assert seen["fetched"] == []
    assert seen["innerWidth"] == width and seen["scrollWidth"] <= seen["clientWidth"]
    assert (seen["tops"][0] < seen["tops"][1]) == (width == 390)
    assert seen["text"].count(EVIL) == 3  # heading, legend, command
    start, end, turned, touched = (seen[k] for k in ("start", "end", "turned", "touched"))
    for before, after in zip(start["points"], end["points"]):
        assert len(before) == len(after) == 6 and all(a != b for a, b in zip(before[2:], after[2:]))
    assert (start["step"], end["step"]) == ("step 0", "step 9,000")
    assert start["at"] != end["at"] and start["values"].split() == ["0", "0"]
    assert end["values"].split() == ["1", "1"] and end["eyes"] == start["eyes"]
    assert turned["eyes"][0] != end["eyes"][0] and turned["eyes"][0] == turned["eyes"][1]
    assert touched["eyes"][0] != turned["eyes"][0] and touched["eyes"][0] == touched["eyes"][1]
    assert seen["playing"] == "Pause" and seen["stopped"] == "Play"
    assert seen["played"] == touched  # from the start to the end again, and not turned back


def test_a_plane_is_flat_in_the_scene(tmp_path):
    seen, log = browse(made_page(tmp_path, ("left", "none", "right")), 1280)
    assert errors(log) == []
    for trace in seen["end"]["points"][0]:
        z = [value for value in trace[2 * len(trace) // 3 :] if value is not None]
        assert z and not any(z)


def test_an_error_on_the_page_is_found(tmp_path):
    page = made_page(tmp_path, ("up", "down", "left", "right"))
    page.write_text(
        page.read_text().replace(
            "start();\n</script>", "start(); console.error('a'); undefined_function()</script>"
        )
    )
    assert len(errors(browse(page, 390)[1])) == 2


def test_of_many_states_some_are_shown_and_rows_without_lines():
    weight, labels = (
        PPO.simplex_etf(20, 30, torch.Generator().manual_seed(1)),
        torch.arange(2000) % 20,
    )
    looked = Look(weight[labels], labels, weight, weight[labels] @ weight.T)
    names = tuple(str(action) for action in range(20))
    seen = what_moves(looked, best_view(looked), 1.0, names).traces
    sizes = [len(trace) for trace in seen["x"]]
    assert sizes[:2] == [0, 20] and sum(sizes[2:]) == 200
    assert [len(trace) for trace in seen["customdata"][2:]] == sizes[2:]


def test_the_command_claims_the_page():
    assert "page.html" in FILES


def test_names_are_no_markup():
    assert plain("a <b> &lt; b") == "a <\u200bb> &\u200blt; b"


def test_names_of_near_corners_are_one_text():
    corners = torch.tensor([[0.0, 0, 0], [9, 0, 0], [0.1, 0, 0]]).numpy()
    texts = names_at(corners, ("a", "<b>", "c"), 1.0)
    assert [(text["x"], text["text"]) for text in texts] == [(0, "a, c"), (9, "<\u200bb>")]


def test_the_slider_shows_each_look_once_and_in_order():
    history = {
        "False": [(step, None) for step in range(0, 9000, 90)],
        "True": [(step + 1, None) for step in range(0, 9000, 90) if step != 4500],
    }
    chosen = positions(history)
    leading = [at["False"] for at in chosen]
    assert leading == sorted(set(leading)) and chosen[0] == {"False": 0, "True": 0}
    assert chosen[-1] == {"False": 99, "True": 98} and leading[:9] == [*range(9)]
    assert all(at["True"] in (at["False"], at["False"] - 1) for at in chosen)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "undefined"), (0.0, "0"), (1e-9, "< 0.0001"), (0.01234, "0.012")]
)
def test_values(value, text):
    assert value_text(value) == text
