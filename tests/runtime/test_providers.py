"""Models on other execution providers: what is there runs, what is not is an error, and what falls back says so."""

import json
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_subprune import Macs, OptionError, Resources, compare, prune, prune_collected, sensitivity
from onnx_subprune.cli import run
from onnx_subprune.errors import ProviderNote
from onnx_subprune.runtime.placement import ON_PROCESSOR, Placement, trusted
from onnx_subprune.runtime.providers import Provider, lacking, providers_of
from onnx_subprune.runtime.session import Session, environment
from tests.small import small_model

X = np.random.default_rng(0).standard_normal((24, 3, 8, 8)).astype(np.float32)
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
OTHERS = sorted({*ort.get_available_providers()} - {CPU, "AzureExecutionProvider"})
unlisted = pytest.mark.filterwarnings("ignore:Specified provider")


@pytest.fixture
def with_cuda(monkeypatch):
    """An onnxruntime that has CUDA by its own account, and cannot start it, as on a machine without its libraries."""
    if CUDA in ort.get_available_providers():
        pytest.skip("CUDA is there")
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])


def test_providers_are_known_by_short_names_whole_ones_and_options(with_cuda):
    cuda = Provider(CUDA)
    for words in ("cuda", "CUDA", CUDA, ["cuda"], ("cuda", "cpu")):
        assert providers_of(words) == (cuda,)
    assert providers_of(["cuda:device_id=1,arena=x"]) == (Provider(CUDA, (("device_id", "1"), ("arena", "x"))),)
    assert providers_of("cpu") == providers_of(()) == ()
    assert Provider("OpenVINOExecutionProvider", (("num_of_threads", "3"),)).on(2) == {"num_of_threads": "3"}
    assert Provider("OpenVINOExecutionProvider").on(2) == {"num_of_threads": "2"}
    assert cuda.on(2) == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("tensorrt", "as it is installed here, has cpu, cuda only"),
        ("cudda", "did you mean 'cuda'"),
        ("quantum", "no execution provider of onnxruntime; here: cpu, cuda"),
        ("cuda:device", "cuda:KEY=VALUE"),
        (["cuda", CUDA], "each of them once"),
    ],
)
def test_a_provider_that_is_not_there_is_an_error_with_what_is(with_cuda, words, said):
    with pytest.raises(OptionError, match=said):
        Resources(providers=words)


@unlisted
def test_a_provider_that_cannot_be_started_is_a_note_and_the_processor_does_the_same(with_cuda):
    settings = {"budget": Macs(0.5), "round_to": 4}
    plain = prune(small_model(), X, **settings, resources=Resources(threads=1, trials=0))
    with pytest.warns(ProviderNote, match="cuda is installed and could not be started here: the processor"):
        found = prune(small_model(), X, **settings, resources=Resources(threads=1, trials=0, providers="cuda"))
    assert found.model.SerializeToString() == plain.model.SerializeToString()
    assert "providers" not in found.report.settings
    assert lacking(providers_of("cuda")) == ["cuda"]


@unlisted
def test_the_command_line_says_so_once_on_stderr(with_cuda, tmp_path, capsys):
    onnx.save(small_model(), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", X[:8])
    about = [str(tmp_path / "m.onnx"), "--data", str(tmp_path / "x.npy"), "--threads", "1", "--providers", "cuda"]
    for words in (
        ["sensitivity", *about],
        ["compare", str(tmp_path / "m.onnx"), *about],
        ["collect", *about, "-o", str(tmp_path / "s.npz")],
        ["profile", *about, "-o", str(tmp_path / "t.json")],
    ):
        assert run(words) == 0
        assert capsys.readouterr().err.count("note: cuda is installed and could not be started") == 1
    assert json.loads((tmp_path / "t.json").read_text())["providers"] == [CPU]
    assert run(["sensitivity", *about[:-1], "tensorrt"]) == 2
    assert "has cpu, cuda only" in capsys.readouterr().err
    with pytest.raises(OptionError, match="nothing is run on data"):
        prune_collected(str(tmp_path / "m.onnx"), tmp_path / "s.npz", resources=Resources(providers="cuda"))


@unlisted
def test_a_part_of_a_model_that_a_provider_refuses_runs_on_the_processor_with_a_note(with_cuda, monkeypatch):
    whole, made = small_model().SerializeToString(), ort.InferenceSession

    def refusing(*places, providers, **words):
        if len(providers) > 1:
            raise RuntimeError("this graph is not for me")
        return made(*places, providers=providers, **words)

    monkeypatch.setattr(ort, "InferenceSession", refusing)
    with pytest.warns(ProviderNote, match="cuda does not take a part of the model"):
        session = Session(whole, threads=1, providers=providers_of("cuda"))
    assert np.isfinite(session.run({"input": X})["logits"]).all()
    with pytest.raises(OptionError, match="cannot start it like this: this graph is not for me"):
        prune(small_model(), X, resources=Resources(providers="cuda"))


@pytest.mark.skipif(
    "AzureExecutionProvider" not in ort.get_available_providers(), reason="another build of onnxruntime"
)
def test_a_provider_that_runs_nothing_of_the_model_is_a_note():
    with pytest.warns(ProviderNote, match="azure runs no operator of this model"):
        found = compare(small_model(), small_model(), X[:4], threads=1, providers="azure")
    assert found.macs.ratio == 1.0


def test_what_rounds_otherwise_decides_nothing_and_what_computes_something_else_is_timed_alone():
    there = (Provider(CUDA),)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trusted(there, 1e-6) == Placement(there, there, there)
    with pytest.warns(ProviderNote, match="which decide, are measured on the processor"):
        assert trusted(there, 1e-3) == Placement(there, there)
    with pytest.warns(ProviderNote, match="it is timed there"):
        assert trusted(there, np.inf) == Placement(there)
    assert Placement(there, there).deciding == ON_PROCESSOR
    assert str(Placement(there, there)) == "latency, calibration on cuda; sensitivities on cpu"


@pytest.mark.skipif(not OTHERS, reason="onnxruntime has no other provider here")
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.filterwarnings("default")
def test_another_provider_gives_the_processors_result_up_to_rounding(name):
    settings = {"budget": Macs(0.5), "round_to": 4}
    here = prune(small_model(), X, **settings, resources=Resources(threads=1, trials=0))
    there = prune(small_model(), X, **settings, resources=Resources(threads=1, trials=0, providers=name))
    assert [group.width for group in there.report.groups] == [group.width for group in here.report.groups]
    errors = [item.report.fidelity.outputs["logits"].relative_error for item in (here, there)]
    assert errors[1] == pytest.approx(errors[0], rel=0.05)
    assert sensitivity(small_model(), X, resources=Resources(threads=1, providers=name))


def test_versions_are_those_of_what_is_imported_whatever_package_it_came_in():
    assert environment()["onnxruntime"] == ort.__version__
