"""report.html in a real browser: headless chromium, started for one page at a time through files alone; nothing listens."""

import json
import re
import subprocess
from html import escape, unescape
from pathlib import Path

import numpy as np
import pytest

from benchmark import collate, report
from tests.made_runs import make_run

# Runs in the page when all has loaded, and writes what it sees into the document around it.
PROBE = """<script>
addEventListener("load", () => {
  const images = [...document.images].map(image => image.naturalWidth);
  const {clientWidth, scrollWidth} = document.documentElement;
  const seen = {images, innerWidth, clientWidth, scrollWidth, alerted: window.alerted === true};
  parent.document.body.setAttribute("data-seen", JSON.stringify(seen));
});
</script></body>"""
# The page in a frame, as no window can be as narrow as a phone's.
FRAME = '<!DOCTYPE html><meta charset="utf-8"><body><iframe width="{}" height="800" style="border: 0" srcdoc="{}"></iframe>'


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The report of two environments and three heads, one of whose flags tries to run a script."""
    root, random = tmp_path_factory.mktemp("page"), np.random.default_rng(0)
    evil = '"><img src=x onerror="window.alerted = true">'
    for env_id in ("CartPole-v1", f"Env-{evil}"):
        for head in ("linear", "etf", "orthogonal-trainable"):
            for seed in (1, 2):
                history = [{"global_step": 500, "within_variability": 0.5, "means_equinorm": 0.1}]
                folder = root / "runs" / f"{len(env_id)}-{head}-{seed}"
                run = make_run(
                    folder, random.normal(100, 9, 150), head=head, seed=seed, collapse=history
                )
                flags = json.loads((run / "args.json").read_text())
                (run / "args.json").write_text(json.dumps(flags | {"env_id": env_id}))
    collate.main(collate.Args(runs=root / "runs", out=root / "results"))
    report.main(report.Args(root / "results"))
    return root / "results" / "report.html"


def browse(html: str, width: int, folder: Path) -> tuple[dict, str]:
    """What PROBE sees in a frame of this width, and the browser's log."""
    framed = folder / "framed.html"
    framed.write_text(FRAME.format(width, escape(html.replace("</body>", PROBE))))
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--v=0",
    ]
    command += [
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=1300,900",
        "--dump-dom",
        framed.as_uri(),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(unescape(re.search(r'data-seen="([^"]*)"', result.stdout)[1])), result.stderr


@pytest.mark.parametrize("width", [390, 1200])
def test_the_report_in_a_browser(page, tmp_path, width):
    seen, log = browse(page.read_text(), width, tmp_path)
    assert seen["innerWidth"] == width and seen["scrollWidth"] <= seen["clientWidth"]
    assert len(seen["images"]) == 4 and min(seen["images"]) > 0
    assert not seen["alerted"] and "CONSOLE" not in log


def test_a_broken_page_is_found(tmp_path):
    """Else an empty log and a narrow page would prove nothing."""
    body = "<img src='missing.png'><p style='width: 500px'>wide</p><script>console.error('a'); undefined_function()</script>"
    seen, log = browse(f"<!DOCTYPE html><body>{body}</body>", 390, tmp_path)
    assert seen["images"] == [0] and seen["scrollWidth"] >= 500 and log.count("CONSOLE") >= 2
