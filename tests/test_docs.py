"""README and documentation: every block of code runs, links lead somewhere, generated pages are up to date.

A block behind `<!-- syntax only: reason -->` needs what is not here, and is parsed instead.
"""

import ast
import re
import shlex
import tomllib

import pytest

from onnx_subprune._version import __version__
from onnx_subprune.cli import app, run
from onnx_subprune.graph.rules import RULES
from tests.conftest import ROOT
from tests.small import fill, fill_before_commands, fill_more
from tools.reference import PAGES

PAGE = re.compile(r"(<!-- syntax only: [^>]+ -->\s+)?^```(\w+)\n(.*?)^```", re.M | re.S)
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GENERATED = ("api.md",)
"""Its examples are those of the docstrings, which run in a test of their own."""
FOREIGN = ("pip ", "trtexec ", "ovc ", "onnx2tf ", "python -m pytest")


def blocks(path):
    """Language, code and whether it is to be run, of each block."""
    return [(kind, code, not marked) for marked, kind, code in PAGE.findall(path.read_text(encoding="utf-8"))]


def commands(code):
    """The command lines of a block, as words."""
    lines = code.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def quicker(words):
    """Options with which a command takes less time here, and does the same."""
    tried = words[0] == "prune" and {"--macs", "--params"} & set(words) and "--statistics" not in words
    return [
        *["--threads", "1"] * (words[0] not in ("inspect", "merge")),
        *["--trials", "0", "--no-shifts"] * bool(tried),
    ]


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if p.name not in GENERATED], ids=lambda path: path.name)
def test_every_block_runs(path, tmp_path, monkeypatch):
    fill(tmp_path)
    (fill_before_commands if path.name == "commands.md" else fill_more)(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for kind, code, runs in blocks(path):
        if kind == "python":
            ast.parse(code)
            if runs:
                exec(compile(code, str(path), "exec"), names)
        elif kind == "sh":
            for words in commands(code):
                if words[0] != "onnx-subprune":
                    assert not runs or " ".join(words).startswith(FOREIGN), words
                elif runs and not any(word.startswith("models/") for word in words):
                    assert run([*words[1:], *quicker(words[1:])]) == 0, words
                else:
                    app.parse_args(words[1:], exit_on_error=False, print_error=False)
        else:
            assert kind in ("text", "pycon"), kind


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_that_are_there(path):
    for link in re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_up_to_date(name):
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert text == PAGES[name](), f"run python tools/reference.py: docs/{name} is not what the code says any more"


def test_every_operator_with_a_rule_is_on_its_page():
    page = PAGES["operators.md"]()
    assert not [op for op in RULES if f"`{op}`" not in page]
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert not [row for row in rows if "" in [cell.strip() for cell in row.split("|")[1:-1]] or "its ..." in row]


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 100


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_the_release_says_the_same_everywhere():
    """Versions, the newest entry of the changelog, the interpreters, and what a package index shows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = dict(re.findall(r"^(\w+): (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M))
    newest = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[0]
    assert cited["version"] == newest == __version__
    assert cited["license"] == project["license"]
    assert project["urls"]
    for version in ("3.11", "3.12", "3.13"):
        assert f"Programming Language :: Python :: {version}" in project["classifiers"]
    assert f"pip install {project['name']}" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
