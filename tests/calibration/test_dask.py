"""The same result on a cluster as here, whatever happens to its workers."""

import gc
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest

from onnx_subprune import Asymmetric, Channels, Gates, Layerwise, Macs, Refit, Resources, Sequential, prune
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.survey import LOCAL, survey
from onnx_subprune.cli import run
from onnx_subprune.errors import ClusterError, DataError
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.placement import Placement
from onnx_subprune.runtime.providers import Provider
from tests.conftest import MODELS
from tests.networks.recurrent import Recurrent, saturated

pytest.importorskip("distributed", reason="the extra [distributed] is not installed")
import dask
from distributed import Client, LocalCluster

from onnx_subprune.calibration.dask.cluster import Cluster
from onnx_subprune.calibration.dask.providers import check_providers
from onnx_subprune.calibration.dask.shipment import Mapped, Shipment

LENET, RESNET = (MODELS / f"{name}_fashion.onnx" for name in ("lenet", "resnet"))
ONE_THREAD = Resources(threads=1)


@pytest.fixture(scope="module")
def local_cluster():
    # A local cluster looks 15 s after a loss whether a worker of that name has come back, and closes its nanny if not. A second loss
    # at that very moment would be taken for the first, and the worker that has just been started again would go once more.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as found,
    ):
        yield found


@pytest.fixture
def cluster(local_cluster):
    with Client(local_cluster, set_as_default=False) as client:
        client.wait_for_workers(2)
        found = Cluster(client)
        yield found
        found.close()


def test_recurrent_layers_follow_the_same_gradients_on_a_cluster_as_here(cluster):
    model = saturated(Recurrent("RNN", units=12, features=6, steps=8))
    x = np.random.default_rng(1).standard_normal((160, 8, 3)).astype(np.float32)
    settings = {"budget": Channels(0.5), "round_to": 1, "resources": ONE_THREAD, "gates": Gates(accept_any=True)}
    here, there, without = (
        prune(model, {"x": x}, **settings, **more).model.SerializeToString()
        for more in ({}, {"executor": cluster}, {"refit": Refit(through_time=0)})
    )
    assert there == here
    assert here != without


@pytest.mark.parametrize(
    ("formulation", "budget"),
    [(Asymmetric(), Channels(0.5)), (Sequential(), Channels(0.5)), (Layerwise(), Macs(0.5))],
    ids=lambda item: type(item).__name__,
)
def test_every_formulation_gives_the_same_bytes_on_a_cluster_as_here(cluster, images, formulation, budget):
    resources = replace(ONE_THREAD, trials=0)
    settings = {"budget": budget, "formulation": formulation, "resources": resources, "round_to": 16}  # timed by nobody
    here = prune(RESNET, images[:80], **settings).model.SerializeToString()
    there = prune(RESNET, images[:80], executor=cluster, **settings).model.SerializeToString()
    assert there == here
    assert not cluster.lost


def test_the_command_line_prunes_on_a_scheduler(tmp_path, local_cluster, few):
    np.savez(tmp_path / "x.npz", input=few)
    tokens = [
        "prune",
        str(LENET),
        "OUT",
        "--data",
        str(tmp_path / "x.npz"),
        "--quiet",
        "--threads",
        "1",
        "--trials",
        "0",
    ]
    written, before = [], local_cluster.scheduler.transition_counter
    for name, more in (("here", []), ("there", ["--scheduler", local_cluster.scheduler_address])):
        tokens[2] = str(tmp_path / name)
        assert run([*tokens, *more]) == 0
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    assert local_cluster.scheduler.transition_counter > before  # and the workers did it


class KillingOnce:
    """A progress watch that kills one worker in the middle of the walk."""

    def __init__(self, client, stage, after):
        self.client, self.stage, self.after, self.killed = client, stage, after, None

    def __call__(self, stage, done, total):
        if stage == self.stage and done == self.after and self.killed is None:
            workers = self.client.run(os.getpid)
            self.killed = sorted(workers)[0]
            os.kill(workers[self.killed], signal.SIGKILL)


@pytest.mark.parametrize(("stage", "after"), [("surveying", 3), ("pruning", 6)])
def test_a_lost_worker_costs_its_shard_and_nothing_else(cluster, images, stage, after):
    budget = Channels(0.5) if stage == "pruning" else Macs(0.5)
    settings = {"budget": budget, "resources": replace(ONE_THREAD, trials=0)}
    some = images[:256]  # of large maps half of them are looked at: the others follow later, on a new worker too
    here = prune(RESNET, some, **settings).model.SerializeToString()
    killing = KillingOnce(cluster.client, stage, after)
    there = prune(RESNET, some, executor=cluster, progress=killing, **settings).model.SerializeToString()
    assert killing.killed is not None
    assert there == here
    assert len(cluster.lost) == 1


def test_more_workers_than_chunks_are_not_all_used(cluster, images):
    settings = {"budget": Channels(0.5), "resources": ONE_THREAD}
    here = prune(LENET, images[:1], **settings).model.SerializeToString()
    assert prune(LENET, images[:1], executor=cluster, **settings).model.SerializeToString() == here


def test_an_error_on_a_worker_is_the_error_here(cluster, tmp_path, images):
    path = tmp_path / "x.npy"
    np.save(path, np.tile(images, (2, 1, 1, 1)))

    def gone(stage, done, total):
        path.unlink(missing_ok=True)

    with pytest.raises(DataError, match="a worker cannot read it"):
        prune(LENET, path, executor=cluster, resources=replace(ONE_THREAD, shifts=False), progress=gone)


def test_mapped_data_travel_as_their_place_in_the_file(tmp_path):
    values = np.random.default_rng(0).standard_normal((64, 100)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    loaded = np.asarray(np.load(tmp_path / "x.npy", mmap_mode="r"))
    whole = Calibration(arrays={"a": loaded, "b": np.arange(64)}, chunk=8)
    sent = pickle.dumps(Shipment.of(whole.part(2, 5)))
    assert len(sent) < 2000
    shipment = pickle.loads(sent)
    assert isinstance(shipment.arrays["a"], Mapped)
    arrived = shipment.open()
    np.testing.assert_array_equal(arrived.arrays["a"], values[16:40])
    np.testing.assert_array_equal(arrived.arrays["b"], np.arange(16, 40))
    (tmp_path / "x.npy").write_bytes(b"short")
    with pytest.raises(DataError, match=r"x\.npy"):
        shipment.open()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nowhere"])
def test_a_missing_scheduler_is_one_line_and_exit_2(tmp_path, few, capsys, monkeypatch, address):
    monkeypatch.setattr("onnx_subprune.calibration.dask.cluster.REACHED", 1.0)
    np.savez(tmp_path / "x.npz", input=few)
    tokens = ["prune", LENET, tmp_path / "o.onnx", "--data", tmp_path / "x.npz", "--scheduler", address]
    assert run([str(token) for token in tokens]) == 2
    gc.collect()  # what is left of the client says nothing either
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith(f"error: no scheduler at {address}")]) == 1
    assert not [line for line in lines if "Traceback" in line]


def test_a_cluster_without_workers_says_so(monkeypatch):
    monkeypatch.setattr("onnx_subprune.calibration.dask.cluster.PATIENCE", 0.2)
    with LocalCluster(n_workers=0, dashboard_address=":0") as empty, Client(empty, set_as_default=False) as client:
        cluster = Cluster(client)
        with pytest.raises(ClusterError, match="no workers"):
            cluster.places()
        cluster.close()


def test_a_missing_extra_says_what_to_install(tmp_path, few):
    np.savez(tmp_path / "x.npz", input=few)
    command = (
        "import sys, importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'distributed' else found(name, *rest)\n"
        "from onnx_subprune.cli import run\n"
        f"sys.exit(run(['prune', {str(LENET)!r}, {str(tmp_path / 'o')!r}, '--data', {str(tmp_path / 'x.npz')!r},"
        " '--scheduler', 'tcp://127.0.0.1:9']))\n"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "pip install 'onnx-subprune[distributed]'" in done.stderr


def test_a_worker_without_a_provider_is_an_error_and_one_with_it_runs_there(cluster, images):
    workers = [*cluster.client.nthreads()]
    other = next(name for name in ort.get_all_providers() if name not in ort.get_available_providers())
    with pytest.raises(ClusterError, match=r"has no .*every worker needs what --providers names"):
        check_providers(cluster.client, [Provider(other)], workers)
    there = [name for name in ort.get_available_providers() if name != "CPUExecutionProvider"]
    providers = tuple(Provider(name) for name in there)
    settings = Running(threads=1, placement=Placement(calibrated=providers))
    network, data = load(LENET), Calibration(arrays={"input": images[:32]}, chunk=16)
    contractions = [item for item in trace(network).contractions if item.op == "Gemm"]
    found = [
        [
            float(halves.whole.energy.sum())
            for _, halves in survey(network, contractions, data, settings, 1 << 28, executor)
        ]
        for executor in (LOCAL, cluster)
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-4)
