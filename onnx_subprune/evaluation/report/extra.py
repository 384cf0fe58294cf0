"""What HTML reports need installed."""

from importlib.util import find_spec

from onnx_subprune.errors import OptionError

PACKAGES = ("jinja2", "matplotlib")


def missing_packages() -> list[str]:
    """Return those of them that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def need_extra() -> None:
    """Raise OptionError, with the command that installs them, if packages that HTML reports need are missing."""
    if missing := missing_packages():
        raise OptionError(
            f"an HTML report needs {' and '.join(missing)}, which the extra `report` brings: pip install 'onnx-subprune[report]'"
        )
