"""Whether the workers of a cluster have the execution providers that the models are to run on."""

from collections.abc import Sequence

from distributed import Client

from onnx_subprune.errors import ClusterError
from onnx_subprune.runtime.providers import Provider, lacking


def check_providers(client: Client, providers: Sequence[Provider], workers: Sequence[str]) -> None:
    """Raise ClusterError if one of the workers cannot start one of the providers."""
    if not providers:
        return
    for worker, missing in client.run(lacking, providers, workers=list(dict.fromkeys(workers))).items():
        if missing:
            raise ClusterError(
                f"worker {worker} has no {', '.join(missing)}, or cannot start it: every worker needs what --providers names"
            )
