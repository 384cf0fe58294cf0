"""The application that the commands hang on."""

from cyclopts import App

from onnx_subprune._version import __version__

app = App(
    name="onnx-subprune",
    version=__version__,
    help="Make an ONNX model smaller and faster with a few hundred unlabelled inputs.",
    help_epilogue="Example: onnx-subprune prune model.onnx small.onnx --data calibration.npz --macs 0.5",
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # what was left behind is told
)
