"""report.html in a real browser: headless chromium, started for one page at a time through files alone; nothing listens."""

import json
import re
import subprocess
from html import escape, unescape
from pathlib import Path

import pytest

from benchmark import report
from benchmark.reporting import verdicts
from tests.made_tables import HEADS, made_runs, write_tables

# Runs in the page when all has loaded and is unfolded, and writes what it sees into the document around it.
PROBE = """<script>
addEventListener("load", () => {
  document.querySelectorAll("details").forEach(details => details.open = true);
  const images = [...document.images].map(image => image.naturalWidth);
  const {clientWidth, scrollWidth} = document.documentElement;
  const boxes = [...document.querySelectorAll(".scroll")];
  const scrolled = boxes.filter(box => box.scrollWidth > box.clientWidth).length;
  const reach = element => element.getBoundingClientRect().right > innerWidth;
  const cut = [...document.querySelectorAll("h1, h2, p, li, summary, figcaption, .scroll")].filter(reach).length;
  const alerted = window.alerted === true;
  const seen = {images, innerWidth, clientWidth, scrollWidth, boxes: boxes.length, scrolled, cut, alerted};
  parent.document.body.setAttribute("data-seen", JSON.stringify(seen));
});
</script></body>"""
# The page in a frame, as no window can be as narrow as a phone's.
FRAME = '<!DOCTYPE html><meta charset="utf-8"><body><iframe width="{}" height="800" style="border: 0" srcdoc="{}"></iframe>'
EVIL = '"><img src=x onerror="window.alerted = true">'
ENVS = (
    "CartPole-v1",
    "benchmark.envs:envpool/Acrobot-v1",
    "benchmark.envs:MinAtar/SpaceInvaders-v1",
)


def page(folder: Path, envs: tuple[str, ...]) -> str:
    """The report on all heads in two groups and these environments."""
    runs = made_runs(list(envs), list(HEADS), 2)
    groups = {"ppo_acpg": runs, "reinforce_acpg": runs.assign(run="other " + runs["run"])}
    for group, frame in groups.items():
        frame["group"] = group
    made = groups["ppo_acpg"].merge(groups["reinforce_acpg"], how="outer")
    write_tables(made, folder)
    report.main(report.Args(folder))
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    """A usual report, and one where a name tries to run a script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdicts, "RESAMPLES", 100)
        root = tmp_path_factory.mktemp("page")
        return {"usual": page(root / "usual", ENVS), "evil": page(root / "evil", (ENVS[0], EVIL))}


def browse(html: str, width: int, folder: Path) -> tuple[dict, str]:
    """What PROBE sees in a frame of this width, and the browser's log."""
    framed = folder / "framed.html"
    framed.write_text(FRAME.format(width, escape(html.replace("</body>", PROBE))))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += ["--v=0", f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900"]
    command += ["--dump-dom", framed.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(unescape(re.search(r'data-seen="([^"]*)"', result.stdout)[1])), result.stderr


@pytest.mark.parametrize(("name", "width"), [("usual", 390), ("usual", 1280), ("evil", 390)])
def test_the_report_in_a_browser(pages, tmp_path, name, width):
    """Nothing is wider than the window but, on a phone, tables and pictures, which scroll in boxes of their own."""
    seen, log = browse(pages[name], width, tmp_path)
    assert seen["innerWidth"] == width and seen["scrollWidth"] <= seen["clientWidth"]
    assert seen["cut"] == 0 and seen["boxes"] > 10
    assert (seen["scrolled"] > 0) == (width == 390)
    assert len(seen["images"]) > 10 and min(seen["images"]) > 0
    assert not seen["alerted"] and "CONSOLE" not in log


def test_a_broken_page_is_found(tmp_path):
    """Else an empty log and a narrow page would prove nothing."""
    body = "<img src='missing.png'><p style='width: 500px'>wide</p><script>console.error('a'); undefined_function()</script>"
    seen, log = browse(f"<!DOCTYPE html><body>{body}</body>", 390, tmp_path)
    assert seen["images"] == [0] and seen["scrollWidth"] >= 500 and log.count("CONSOLE") >= 2
    assert seen["cut"] == 1
