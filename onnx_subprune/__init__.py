"""Make an ONNX model smaller with a few hundred unlabelled inputs."""

from importlib import import_module
from typing import TYPE_CHECKING

from onnx_subprune._version import __version__ as __version__

if TYPE_CHECKING:
    from onnx_subprune.pruning.public import *  # noqa: F403  # names that are given are those of its __all__
else:

    def __getattr__(name: str) -> object:
        """Load what the package gives, once: the command has to be able to answer while that goes on."""
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        public, given = import_module("onnx_subprune.pruning.public"), globals()
        given.update({item: getattr(public, item) for item in public.__all__}, __all__=[*public.__all__, "__version__"])
        if name not in given:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return given[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})
