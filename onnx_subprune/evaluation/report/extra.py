"""What HTML reports need installed."""

from importlib.util import find_spec

from onnx_subprune.errors import OptionError

PACKAGES = ("jinja2", "matplotlib")


def need_extra() -> None:
    """Raise OptionError, with the command that installs them, if packages that HTML reports need are missing."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise OptionError(
            f"an HTML report needs {' and '.join(missing)}, which the extra `report` brings: pip install 'onnx-subprune[report]'"
        )
