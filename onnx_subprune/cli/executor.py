"""Where `--scheduler` has the models run."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from onnx_subprune.calibration.streaming.executor import Executor, Local
from onnx_subprune.errors import OptionError


@contextmanager
def executor_of(scheduler: str | None) -> Iterator[Executor]:
    """Connect to the scheduler, if one is given; OptionError if what that takes is not installed."""
    if scheduler is None:
        yield Local()
        return
    if find_spec("distributed") is None:
        raise OptionError("--scheduler needs dask.distributed: pip install 'onnx-subprune[distributed]'")
    from onnx_subprune.calibration.dask.cluster import connected  # noqa: PLC0415 - behind an extra

    with connected(scheduler) as cluster:
        yield cluster
