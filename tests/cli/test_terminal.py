"""Help, words and tables of the command line."""

import json
import os
import pty
import re
import subprocess
import sys

import onnx
import pytest

from onnx_subprune.cli import main, run
from onnx_subprune.cli.application import COMMANDS, app, versions
from onnx_subprune.cli.progress import Bar
from onnx_subprune.runtime.files import json_text
from tests.conftest import ROOT
from tests.small import fill

NAMES = [*COMMANDS]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown_in_a_terminal(tokens, columns):
    """What a terminal of so many columns is sent."""
    main, other = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns)}
    process = subprocess.Popen([sys.executable, "-m", "onnx_subprune", *tokens], stdout=other, env=environment)
    os.close(other)
    text = b""
    try:
        while piece := os.read(main, 4096):
            text += piece
    except OSError:  # the other end is closed
        pass
    os.close(main)
    assert process.wait() == 0
    return text.decode().replace("\r\n", "\n")


def test_a_terminal_gets_what_fits_and_a_pipe_or_wide_gets_whole_names(folder, capsys, monkeypatch):
    model = onnx.load("model.onnx")
    model.graph.node[0].name = long = "/".join(["a_long_name"] * 12)
    onnx.save(model, "model.onnx")
    narrow = shown_in_a_terminal(["inspect", "model.onnx"], 80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert long not in narrow
    assert "…" in narrow
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["inspect", "model.onnx", "--wide"]) == 0
    assert long in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert run(["inspect", "model.onnx"]) == 0
    assert long in capsys.readouterr().out


def test_inspect_begins_with_the_verdict_and_has_the_largest_groups_first(folder, capsys):
    assert run(["inspect", "model.onnx"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d+ % of the parameters and \d+ % of the MACs lie in .* in 2 groups of channels\.", lines[0])
    shares = [float(share) for share in re.findall(r"^conv\d +\d+ +([\d.]+) %", "\n".join(lines), re.M)]
    assert len(shares) == 2
    assert shares == sorted(shares, reverse=True)


def test_sensitivity_ends_with_options_that_prune_takes(folder, capsys):
    assert run(["sensitivity", "model.onnx", "--data", "calibration.npz"]) == 0
    options = capsys.readouterr().out.splitlines()[-1].split(": ")[1].split()
    assert options[0] == "--exclude"
    tokens = ["prune", "model.onnx", "small.onnx", "--data", "calibration.npz", "--channels", "75%", "--accept-any"]
    assert run([*tokens, *options, "--quiet"]) == 0


DATA = ["--data", "calibration.npz"]
WORDS = {
    "prune": ["model.onnx", "small.onnx", *DATA, "--channels", "50%", "--recipe", "recipe.json"],
    "apply": ["model.onnx", "recipe.json", "again.onnx"],
    "inspect": ["model.onnx"],
    "sensitivity": ["model.onnx", *DATA, "--samples", "32"],
    "compare": ["model.onnx", "model.onnx", *DATA],
    "collect": ["model.onnx", *DATA, "-o", "1.npz"],
    "merge": ["1.npz", "-o", "all.npz"],
    "profile": ["model.onnx", "-o", "table.json"],
}
"""Every command, so that each finds what it needs of those before it."""


def test_every_command_shows_something_is_quiet_if_told_and_gives_its_json_alone(folder, capsys):
    """With `--json -` it is all that stdout gets, and the same as in a file."""
    assert set(WORDS) == set(NAMES)
    for name, words in WORDS.items():
        assert run([name, *words]) == 0, name
        assert capsys.readouterr().out, name
        assert run([name, *words, "--force", "--quiet", "--json", f"{name}.json"]) == 0, name
        assert capsys.readouterr() == ("", ""), name
        assert run([name, *words, "--force", "--json", "-"]) == 0, name
        shown = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        assert shown.keys() == json.loads((folder / f"{name}.json").read_text()).keys(), name
    assert not (folder / "-").exists()


@pytest.mark.parametrize("name", NAMES)
def test_every_option_stands_in_a_group_of_the_help_and_in_the_documentation(name):
    arguments = app[name].assemble_argument_collection(parse_docstring=True)
    options = [item for item in arguments if item.field_info.kind is item.field_info.KEYWORD_ONLY]
    assert not [item.name for item in options if item.parameter.group[0].name in ("Parameters", "Arguments")]
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8").split(f"\n## {name}\n")[1].split("\n## ")[0]
    assert not [item.name for item in options if f"`{item.name}`" not in page]
    assert all(item.parameter.help for item in arguments)
    data = {"--set", "--carry"} if any(item.name == "--data" for item in options) else set()
    assert {"--json", "--quiet", "--force", *data} <= {item.name for item in options}


def test_numbers_that_are_not_finite_are_null_in_json():
    assert json.loads(json_text({"a": [1.5, float("inf")], "b": (float("nan"),)})) == {"a": [1.5, None], "b": [None]}


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (["--channels", "50%"], ["--channels", "0.5"]),
        (["--holdout", "25%"], ["--holdout", "0.25"]),
        (["--channels", "0.5", "--max-error", "90%"], ["--channels", "0.5", "--max-error", "0.9"]),
    ],
)
def test_percentages_are_fractions(folder, words, same):
    written = []
    for number, given in enumerate((words, same)):
        tokens = ["prune", "model.onnx", f"{number}.onnx", "--data", "calibration.npz", "--quiet"]
        assert run([*tokens, *([] if "--channels" in given else ["--channels", "0.5"]), *given]) == 0
        written.append((folder / f"{number}.onnx").read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (["prune", "m", "o", "--macs", "half"], "write it like 0.5 or 50%"),
        (["prune", "m", "o", "--holdout", "100%"], "a share below 100%"),
        (["prune", "m", "o", "--speedup", "150%"], "like 1.5 or 2"),
        (["prune", "m", "o", "--round-to", "atuo"], "like 16, or auto"),
        (["prune", "m", "o", "--json", "--report"], "--json - for stdout"),
        (["compare", "model.onnx", "model.onnx", "--data", "test.npz", "--labels", "l.npy"], "labels are y.npy"),
        (["prune", "m", "o", "--mac", "0.5"], "Did you mean --macs?"),
        (["prun", "m", "o"], 'Did you mean "prune"?'),
        (["inspect", "model.onnx", "other.onnx"], "Too many arguments: other.onnx. See"),
        (["prune", "model.onnx", "o", "--data", "calibration.npz", "--only", "op:CONV"], "did you mean 'op:Conv'?"),
        (["inspect", "model.onnx", *DATA, "--set", "inptu=1"], "no such input; did you mean 'input'? its inputs"),
        (["inspect", "model.onnx", *DATA, "--carry", "inptu=b"], "no input 'inptu'; did you mean 'input'? its"),
        (["sensitivity", "model.onnx", *DATA, "--mask", "inptu"], "(samples, positions); did you mean 'input'? inputs"),
        (["compare", "model.onnx", "model.onnx", *DATA, "--threads", "-1"], "--threads -1: at least 1"),
        (["profile", "model.onnx", "-o", "t.json", "--threads", "0"], "--threads 0: at least 1"),
        (["prune", "model.onnx", "o", *DATA, "--threads", "99999"], "at most 1024"),
        (["prune", "model.onnx", "o", *DATA, "--memory", "inf"], "--memory 'inf'"),
        (["prune", "model.onnx", "o", *DATA, "--round-to", "99999999999999999999"], "no group has so many channels"),
        (["inspect", "model.onnx", "--carry", "a=b"], "--carry goes with --data"),
        (["profile", "model.onnx", "-o", "t.json", "--carry", "a=b"], "--carry goes with --data"),
        (["apply", "model.onnx", "recipe.json", "o", "--samples", "8"], "--samples goes with --data"),
        (["prune", "model.onnx", "o", "--data", "script.py:dta"], "did you mean 'data'?"),
        (["apply", "model.onnx", "none.json", "o.onnx"], "none.json: no recipe: no such file"),
        (["prun", "m", "o"], "See `onnx-subprune --help`."),
        (["prune", "m", "o", "--selector", "refind"], 'Did you mean "refined"?'),
        (["prune", "model.onnx", "o", "--data", "calibration.npz", "--exclude", "conv_2"], "did you mean 'conv2'?"),
    ],
)
def test_a_word_that_is_misspelt_or_makes_no_sense_is_one_line_that_says_what_is_meant(folder, capsys, tokens, says):
    (folder / "script.py").write_text("def data():\n    pass\n")
    assert run(tokens) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert says in lines[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_every_command_has_its_own_example_that_can_be_parsed(name, capsys):
    assert run([name, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    examples = re.findall(rf"onnx-subprune ({name} .*?)(?= onnx-subprune |$)", text.split("Example")[1])
    assert examples
    for example in examples:
        app.parse_args(example.replace("'", ""), exit_on_error=False, print_error=False)


def test_the_help_of_prune_is_divided_and_globs_stay_as_they_are(capsys):
    assert run(["prune", "--help"]) == 0
    text = capsys.readouterr().out
    heads = re.findall(r"─ ([A-Z][\w ()]+) ─", text)
    assert heads == [
        "Parameters",
        "Budget (give one)",
        "Data",
        "What may be pruned",
        "Quality",
        "Speed",
        "Gates",
        "Resources",
        "Output",
    ]
    assert "test_data_set_*" in text


def test_the_version_comes_with_those_that_matter_in_one_line(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"{versions()}\n"
    assert re.match(
        r"\d+\.\d+\.\d+ \(Python 3\.\d+\.\d+, numpy [\d.]+, scipy [\d.]+, onnx [\d.]+, onnxruntime [\d.]+", versions()
    )


def test_long_runs_in_a_pipe_say_which_stages_are_done(capsys, monkeypatch):
    with Bar(quiet=False) as watch:
        watch("surveying", 2, 2)
        assert not capsys.readouterr().err
        monkeypatch.setattr("onnx_subprune.cli.progress.LONG", 0.0)
        watch("measuring", 1, 2)
        watch("measuring", 2, 2)
    assert re.fullmatch(r"progress: measuring: 2 done after \d+ s\n", capsys.readouterr().err)
    with Bar(quiet=True) as watch:
        watch("measuring", 2, 2)
    assert not capsys.readouterr().err


def test_completion_can_be_installed():
    assert "onnx-subprune" in app.generate_completion(shell="bash")


def test_closed_streams_are_no_reason_to_fail(folder, monkeypatch):
    for name in ("share_one_heap", "end_like_ctrl_c"):
        monkeypatch.setattr(f"onnx_subprune.cli.{name}", lambda: None)
    for model, status in (("model.onnx", 0), ("nothing.onnx", 2)):
        monkeypatch.setattr(sys, "argv", ["onnx-subprune", "inspect", model])
        monkeypatch.setattr(sys, "stdout", None)
        monkeypatch.setattr(sys, "stderr", None)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == status
        sys.stdout.close()
        sys.stderr.close()


def test_a_pipe_hears_of_long_stages_before_they_end(capsys, monkeypatch):
    now = iter([0.0, 10.0, 31.0, 40.0, 62.0, 63.0])
    monkeypatch.setattr("onnx_subprune.cli.progress.time.perf_counter", lambda: next(now))
    with Bar(quiet=False) as watch:
        for done in (1, 2, 3, 4, 5):
            watch("measuring", done, 5)
    assert capsys.readouterr().err.splitlines() == [
        "progress: measuring: 2 of 5 after 31 s",
        "progress: measuring: 4 of 5 after 62 s",
        "progress: measuring: 5 done after 63 s",
    ]
