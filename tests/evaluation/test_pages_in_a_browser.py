"""Every page in headless Chromium, as wide as a phone and as a desk: nothing sticks out, nothing is empty. Skipped where there is no Chromium."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from onnx_subprune.cli import run
from tests.conftest import MODELS
from tests.small import fill

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
ASK = """<script>
const map = document.querySelector(".map"), cell = [...document.querySelectorAll("td")];
parent.postMessage([document.documentElement.scrollWidth, innerWidth, cell.length, map ? map.children.length : 0,
    map ? map.getBoundingClientRect().right : 0, matchMedia("(prefers-color-scheme: dark)").matches].join(" "), "*");
</script>"""
FRAME = """<iframe src="{page}" width="{width}" height="2000"></iframe>
<script>addEventListener("message", event => document.title = event.data)</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages of every command that writes one; the prune is one with recurrent layers, whose sentences are long."""
    folder = tmp_path_factory.mktemp("pages")
    fill(folder)
    model, data = str(folder / "model.onnx"), str(folder / "calibration.npz")
    with np.load(MODELS / "words_calibration.npz") as words:
        np.savez(folder / "words.npz", **{name: array[:48] for name, array in words.items()})
    words = [str(MODELS / "lstm_words.onnx"), str(folder / "words_small.onnx")]
    commands = {
        "inspect": ["inspect", model, "--data", data],
        "prune": ["prune", *words, "--data", str(folder / "words.npz"), "--channels", "0.5", "--accept-any"],
        "sensitivity": ["sensitivity", model, "--data", data],
        "compare": ["compare", *words, "--data", str(folder / "words.npz")],
    }
    for name, command in commands.items():
        assert run([*command, "--report", str(folder / f"{name}.html")]) == 0
    return folder


def seen(folder, name, width, *options):
    """Widths of the page and of its window, cells, blocks of the map and their right end, and whether the page is dark."""
    page, frame = folder / f"{name}.asked.html", folder / f"{name}.{width}.html"
    page.write_text((folder / f"{name}.html").read_text() + ASK)
    frame.write_text(FRAME.format(page=page.name, width=width))
    command = [CHROMIUM, "--headless", *QUIET, *options, f"--user-data-dir={folder / 'profile'}"]
    command += ["--virtual-time-budget=4000", "--dump-dom", frame.as_uri()]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    numbers = re.search(r"<title>([^<]*)</title>", found).group(1).split()
    return *map(float, numbers[:5]), numbers[5] == "true"


@pytest.mark.parametrize("name", ["inspect", "prune", "sensitivity", "compare"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out(pages, name, width):
    page, window, cells, blocks, right, _ = seen(pages, name, width)
    assert window == width
    assert page <= width
    assert cells >= 2
    assert (blocks > 0) == (name == "inspect")
    assert right <= width
