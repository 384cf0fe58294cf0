"""The application that the commands hang on."""

import platform
from importlib.metadata import PackageNotFoundError, version

from cyclopts import App

from onnx_subprune._version import __version__
from onnx_subprune.runtime.session import environment

MATTER = ("numpy", "scipy", "onnx", "onnxruntime", "onnx-graphsurgeon")
"""Packages whose versions change what comes out."""


COMMANDS = {
    "prune": "Examples:\n\nonnx-subprune prune model.onnx small.onnx --data calibration.npz --speedup 2\n\n"
    "onnx-subprune prune model.onnx small.onnx --data calibration.npz --macs 50% --exclude 'op:Gemm' --report report.html",
    "apply": "Example: onnx-subprune apply finetuned.onnx recipe.json small.onnx --data calibration.npz",
    "inspect": "Example: onnx-subprune inspect model.onnx --data calibration.npz",
    "sensitivity": "Example: onnx-subprune sensitivity model.onnx --data calibration.npz --samples 256 --report curves.html",
    "compare": "Example: onnx-subprune compare model.onnx small.onnx --data test.npz --labels labels.npy",
    "collect": "Example: onnx-subprune collect model.onnx --data calibration.npz --shard 1/4 -o 1.npz",
    "merge": "Example: onnx-subprune merge 1.npz 2.npz 3.npz 4.npz -o all.npz",
    "profile": "Example: onnx-subprune profile model.onnx -o table.json",
}
"""The commands, with the examples below their help: `NAME_command` of the module that is called like it, which is loaded when it is asked for."""


def versions() -> str:
    """Return the version of this package, and those of what it stands on."""
    found, known = [f"Python {platform.python_version()}"], environment()
    for name in MATTER:
        try:
            found.append(f"{name} {known.get(name) or version(name)}")
        except PackageNotFoundError:
            continue
    return f"{__version__} ({', '.join(found)})"


app = App(
    name="onnx-subprune",
    version=versions,
    help="Make an ONNX model smaller and faster with a few hundred unlabelled inputs.",
    help_epilogue="Example: onnx-subprune prune model.onnx small.onnx --data calibration.npz --speedup 2",
    help_format="plaintext",  # globs are no markup
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # what was left behind is printed
)
for name, examples in COMMANDS.items():
    app.command(f"onnx_subprune.cli.{name}:{name}_command", name=name, help_epilogue=examples)
app.register_install_completion_command(add_to_startup=False)
