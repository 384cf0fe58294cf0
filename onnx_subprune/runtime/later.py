"""What few runs need is loaded when it is called."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def later(module: str, name: str) -> Callable[..., Any]:
    """Return a function that loads `module` when it is called, and calls what is `name` there.

    Type checkers, and the test of who imports whom, see the import itself:

        if TYPE_CHECKING:
            from onnx_subprune.pruning.finetuning import tuned
        else:
            tuned = later("onnx_subprune.pruning.finetuning", "tuned")
    """

    def call(*arguments: Any, **named: Any) -> Any:
        return getattr(import_module(module), name)(*arguments, **named)

    return call
