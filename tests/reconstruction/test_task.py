"""Which samples the walk looks at: of large maps some, of small ones all."""

from dataclasses import dataclass, field, replace

import pytest

from onnx_subprune import Channels, Resources, prune
from onnx_subprune.calibration.streaming.executor import Local
from onnx_subprune.calibration.streaming.questions import Aimed, SentBack, Short
from tests.conftest import MODELS


@dataclass
class Noting:
    """Runs models in this process, and notes what is asked, and the answers where it is a residual's energy."""

    requests: list = field(default_factory=list)
    energies: list = field(default_factory=list)
    steps: list = field(default_factory=list)

    def begin(self, network, data, running, memory, *, original):
        run = Local().begin(network, data, running, memory, original=original)
        collect = run.collect

        def sampled(request, **changes):
            return collect(replace(request, sampling=replace(request.sampling, **changes)))

        def noted(request):
            self.requests.append(request)
            every = request.sampling.every
            if type(request.question) is Short:
                alone, both = (sampled(request, one_half=first).halves[0] for first in (True, False))
                self.energies.append([float(half.moments().energy.sum()) for half in (alone, both)])
            if isinstance(request.question, SentBack):
                few, pair = (sampled(request, every=number).residuals for number in (every, 2))
                self.steps.append((every, *([half.moments().energy.sum() for half in found] for found in (few, pair))))
            return collect(request)

        run.collect = noted
        return run


@pytest.fixture(scope="module")
def noted(images):
    noting = Noting()
    prune(MODELS / "resnet_fashion.onnx", images, budget=Channels(0.5), resources=Resources(), executor=noting)
    return noting


@pytest.fixture(scope="module")
def fits(noted):
    return [request for request in noted.requests if isinstance(request.question, Aimed)]


def test_whether_a_joint_step_pays_is_seen_on_one_half(noted):
    assert noted.energies
    assert all(item.sampling.one_half for item in noted.requests if type(item.question) is Short)
    assert all(alone == beside_the_other > 0.0 for alone, beside_the_other in noted.energies)


def test_a_step_on_few_samples_looks_at_the_first_chunk_alone(images):
    noting, chunks = Noting(), 4
    prune(MODELS / "resnet_fashion.onnx", images[: 16 * chunks], budget=Channels(0.5), executor=noting)
    alone = [energies for every, *energies in noting.steps if every >= chunks]
    assert alone
    assert all(few == [pair[0], 0.0] and pair[1] > 0.0 for few, pair in alone)
    assert all(few[1] > 0.0 for every, few, _ in noting.steps if every < chunks)


def test_all_fits_of_a_layer_look_at_the_same_samples(fits):
    seen = {}
    for request in fits:
        seen.setdefault(request.weight, set()).add(request.sampling.every)
    assert len(seen) > 5
    assert all(len(found) == 1 for found in seen.values())
    assert {1} < set.union(*seen.values())  # all of small maps, some of large ones


def test_a_step_looks_at_no_more_samples_than_the_fits_around_it(noted, fits):
    every = {request.weight: request.sampling.every for request in fits}
    steps = [request for request in noted.requests if isinstance(request.question, SentBack)]
    assert steps
    assert all(request.sampling.every >= every[request.weight] for request in steps)
