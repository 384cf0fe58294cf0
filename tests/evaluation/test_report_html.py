"""HTML reports: self-contained, escaped, complete."""

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import onnx
import pytest

from onnx_subprune import Channels, Macs, Resources, compare, prune, sensitivity
from onnx_subprune.cli import run
from onnx_subprune.evaluation.report import report_table, text_of
from onnx_subprune.evaluation.report.html import report_html, sensitivity_html
from onnx_subprune.evaluation.report.values import Change, latency_words
from onnx_subprune.selection import Choice, Problem, conditioning
from tests.conftest import MODELS
from tests.small import fill

LENET = MODELS / "lenet_fashion.onnx"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Text, attributes and balance of the tags of a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.tags, self.links = [], "", set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.text += " " * (tag == "td")

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def report(images):
    return prune(LENET, images[:96], budget=Macs(0.5), resources=Resources(samples=64)).report


def test_a_page_needs_nothing_but_itself(report):
    page = Page(report_html(report))
    assert not page.open
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert page.links
    assert all(link.startswith("data:image/svg+xml;base64,") for link in page.links)


def test_a_page_shows_costs_fidelity_groups_consumers_reasons_settings_and_time(report):
    text = " ".join(Page(report_html(report)).text.split())
    for group in report.groups:
        assert f"{group.name} {group.width[0]} → {group.width[1]}" in text
        for item in group.consumers:
            assert f"{item.node} {max(item.fitted_error, 0.0):.4f} {max(item.heldout_error, 0.0):.4f}" in text
    for pinned in report.pinned:
        assert pinned.reason in text
    for wanted in (
        "32 held-out samples",
        "logits",
        "latency (ms)",
        "Macs(fraction=0.5)",
        "sensitivity",
        report.model["sha256"],
    ):
        assert wanted in text, wanted


def test_names_from_the_model_are_escaped(report):
    evil = replace(report.groups[0], name="<script>alert(1)</script>")
    page = Page(report_html(replace(report, groups=(evil, *report.groups[1:]))))
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text


def test_without_curves_and_latency_the_page_is_still_whole(images):
    found = prune(LENET, images[:32], budget=Channels(0.5)).report
    page = Page(report_html(replace(found, latency=None, latency_single=None)))
    assert not page.links
    assert "latency (ms)" not in page.text
    assert "Latency kept" not in page.text


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ((0.71, 0.74, 0.78), "74.0 % (71 to 78 %)"),
        ((0.97, 0.99, 1.04), "not measurable here (97 to 104 %)"),
        ((1.1, 1.2, 1.3), "120.0 % (110 to 130 %)"),
    ],
)
def test_latency_comes_with_its_spread_and_is_not_told_where_that_covers_the_difference(report, ratios, words):
    found = replace(report, latency=Change(10.0, 10.0 * ratios[1]), latency_ratios=ratios)
    assert latency_words(found.latency, ratios) == words
    assert words in Page(report_html(found)).text
    assert words in text_of(report_table(found))


def test_sensitivities_are_a_page_of_curves_the_steepest_first(images):
    found = sensitivity(LENET, images[:32])
    page = Page(sensitivity_html(found, "a&b"))
    assert "a&b" in page.text
    assert len(page.links) == len(found)
    steepest = max(found, key=lambda item: max(item.output.errors))
    assert page.text.index(steepest.name) == min(page.text.index(item.name) for item in found)


def test_equal_reports_give_equal_pages(report):
    assert report_html(report) == report_html(report)


def test_both_commands_write_the_page(tmp_path, few):
    np.save(tmp_path / "x.npy", few)
    common = ["--data", str(tmp_path / "x.npy"), "--quiet", "--report"]
    assert run(["prune", str(LENET), str(tmp_path / "s.onnx"), *common, str(tmp_path / "p.html")]) == 0
    assert run(["sensitivity", str(LENET), *common, str(tmp_path / "s.html")]) == 0
    for name in ("p.html", "s.html"):
        assert not Page((tmp_path / name).read_text(encoding="utf-8")).open


def test_inspect_and_compare_write_pages_with_all_that_they_print(tmp_path, few, capsys):
    np.save(tmp_path / "x.npy", few)
    data = ["--data", str(tmp_path / "x.npy")]
    for name, models in (("inspect", [LENET]), ("compare", [LENET, LENET])):
        page = tmp_path / f"{name}.html"
        assert run([name, *map(str, models), *data, "--report", str(page)]) == 0
        shown = Page(page.read_text(encoding="utf-8"))
        assert not shown.open
        assert not shown.tags & {"script", "link", "iframe", "object"}
        words = " ".join(shown.text.split())
        for word in capsys.readouterr().out.split():
            assert word in words, word
    assert "lie in layers that can get smaller" in Page((tmp_path / "inspect.html").read_text(encoding="utf-8")).text


def test_a_page_begins_with_warnings_and_with_what_is_left(report):
    text = " ".join(Page(report_html(replace(report, warnings=("it is poor",)))).text.split())
    share = f"{100 * report.params.ratio:.0f} % of the parameters"
    assert text.index("Warning: it is poor.") < text.index(share) < text.index("Fidelity")
    assert "on 32 held-out samples logits has a relative error of" in text.lower()
    assert all(layer.name in text for layer in report.layers)


def test_a_comparison_begins_with_warnings_and_a_summary_and_has_the_times_of_layers(tmp_path):
    fill(tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    good = compare(model, model, tmp_path / "test.npz")
    last = next(item for item in model.graph.initializer if item.name == model.graph.node[-1].input[1])
    last.CopyFrom(onnx.numpy_helper.from_array(-3 * onnx.numpy_helper.to_array(last), last.name))
    bad = compare(tmp_path / "model.onnx", model, tmp_path / "test.npz")
    bad.to_html(tmp_path / "bad.html")
    text = " ".join(Page((tmp_path / "bad.html").read_text(encoding="utf-8")).text.split())
    assert not good.warnings
    assert str(bad).startswith("warning: output 'logits' ")
    assert text.index("Warning: output 'logits' ") < text.index("100 % of the parameters and") < text.index("cost")
    assert {"conv1", "conv2", "classifier"} <= {layer.name for layer in bad.layers}
    assert "milliseconds by layer" in text
    assert len(bad.to_dict()["layers"]) == len(bad.layers)


def test_a_notebook_gets_the_tables_and_a_curve_of_each_group_if_the_extra_is_there(report, monkeypatch):
    curves = [group for group in report.groups if group.curve is not None]
    page = Page(report._repr_html_())
    assert len(page.links) == len(curves) > 0
    assert all(link.startswith("data:image/svg+xml;base64,") for link in page.links)
    assert not page.open
    assert all(f"{group.width[0]} → {group.width[1]}" in page.text for group in report.groups)
    monkeypatch.setattr("onnx_subprune.evaluation.report.notebook.missing_packages", lambda: ["matplotlib"])
    assert Page(report._repr_html_()).text == page.text
    assert not Page(report._repr_html_()).links


def test_a_missing_extra_is_one_line_before_any_work(tmp_path):
    code = (
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name in ('jinja2', 'matplotlib') else find(name, *rest)\n"
        "from onnx_subprune.cli import main\nmain()\n"
    )
    tokens = ["prune", LENET, tmp_path / "s.onnx", "--data", tmp_path / "missing.npz", "--report", tmp_path / "r.html"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, tokens)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*jinja2 and matplotlib.*pip install 'onnx-subprune\[report\]'\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_conditioning_is_the_eigenvalue_ratio_of_the_chosen_columns():
    gram = np.diag([4.0, 1.0, 2.0, 0.0])
    problem = Problem(
        gram=gram, cross=np.ones((4, 1)), energy=9.0, columns=np.arange(4)[:, None], prior=np.zeros((4, 1))
    )
    assert conditioning([problem], (0, 1)) == 0.25
    assert conditioning([problem], (0, 3)) == 0.0
    assert conditioning([problem], ()) is None
    assert Choice((0,), 0.0).conditioning is None


def test_the_report_gives_the_conditioning_of_every_narrowed_group(report):
    for group in report.groups:
        if group.width[1] < group.width[0]:
            assert 0.0 <= group.conditioning <= 1.0
