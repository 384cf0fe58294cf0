"""The application that the commands hang on."""

import platform
from importlib.metadata import PackageNotFoundError, version

from cyclopts import App

from onnx_subprune._version import __version__
from onnx_subprune.runtime.session import environment

MATTER = ("numpy", "scipy", "onnx", "onnxruntime", "onnx-graphsurgeon")
"""Packages whose versions change what comes out."""


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
app.register_install_completion_command(add_to_startup=False)
