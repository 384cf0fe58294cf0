"""The door: what it does before the package is loaded."""

import subprocess
import sys

import pytest

import onnx_subprune
from onnx_subprune.runtime.later import later

INTERRUPTED = """
import sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
sys.argv = ["onnx-subprune", "prune", "model.onnx"]
from onnx_subprune.__main__ import main
main()
"""


def run(*code):
    return subprocess.run([sys.executable, "-c", *code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("module", ["onnx", "scipy", "onnx_subprune.cli", "onnx_subprune.cli.prune"])
def test_interrupted_while_it_loads_it_says_so_in_one_line(module):
    script = INTERRUPTED.replace("sys.argv[1]", repr(module))

    done = run(script)

    assert done.returncode == 130
    assert done.stderr == "error: interrupted; nothing was written\n"


def test_the_package_loads_what_it_gives_when_it_is_asked_for():
    done = run(
        "import sys, onnx_subprune as o; print('onnx' in sys.modules, o.prune is not None, 'onnx' in sys.modules)"
    )

    assert done.stdout == "False True True\n", done.stderr


def test_a_command_loads_neither_the_others_nor_what_a_run_may_do_without():
    done = run(
        "import sys, onnx_subprune.cli as cli\n"
        "from onnx_subprune.cli.progress import Bar\n"
        "cli.load(['prune', 'model.onnx'])\n"
        "with Bar(quiet=False) as watch: watch('measuring', 1, 1)\n"
        "few = ('rich', 'onnx_subprune.cli.inspect', 'onnx_subprune.cli.apply', 'onnx_subprune.graph.gradients.training')\n"
        "print('onnx_subprune.cli.prune' in sys.modules, [name for name in few if name in sys.modules])"
    )

    assert done.stdout == "True []\n", done.stderr


def test_what_is_loaded_later_is_what_it_would_have_been():
    assert later("math", "hypot")(3.0, 4.0) == 5.0
    assert later("builtins", "sorted")([1, 2], reverse=True) == [2, 1]


def test_every_name_that_the_package_gives_is_there():
    assert set(onnx_subprune.__all__) <= set(dir(onnx_subprune))
    assert run("from onnx_subprune import *; print(prune, Macs)").returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = onnx_subprune.nonsense
