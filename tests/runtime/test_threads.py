"""Work on chunks side by side: order, errors, and work that is itself split."""

import time
from threading import get_ident

import pytest

from onnx_subprune.runtime.threads import alongside, aside, cores_of, threads_each


def test_threads_change_neither_results_nor_their_order():
    def square(number: int, delay: float) -> int:
        time.sleep(delay)
        return number * number

    jobs = [(number, 0.01 * (number % 3 == 0)) for number in range(10)]
    for threads in (1, 2, 5):
        assert list(alongside(square, jobs, threads)) == [number * number for number, _ in jobs]


def test_work_that_is_split_again_stays_in_its_thread_and_does_not_wait_for_itself():
    def outer(start: int) -> set[int]:
        return {get_ident(), *alongside(lambda _: get_ident(), ((start + place,) for place in range(4)), 2)}

    assert all(len(threads) == 1 for threads in alongside(outer, ((number,) for number in range(8)), 2))


def test_an_error_stops_the_rest_and_leaves_nothing_at_work():
    done = []

    def work(number: int) -> None:
        if number == 1:
            raise ValueError("the second")
        time.sleep(0.02)
        done.append(number)

    with pytest.raises(ValueError, match="the second"):
        list(alongside(work, ((number,) for number in range(100)), 2))
    finished = len(done)
    time.sleep(0.1)
    assert len(done) == finished < 10


def test_threads_are_shared_out_among_jobs():
    assert [threads_each(8, jobs) for jobs in (0, 1, 3, 8, 100)] == [8, 8, 2, 1, 1]
    assert cores_of(3) == 3
    assert cores_of(None) >= 1


@pytest.mark.parametrize("threads", [1, 2])
def test_work_aside_is_done_in_order_by_the_end(threads):
    done, threads_of = [], set()

    def work(number: int) -> None:
        time.sleep(0.01 * (number == 0))
        done.append(number)
        threads_of.add(get_ident())

    with aside(threads) as later:
        for number in range(6):
            later(work, number)
    assert done == [0, 1, 2, 3, 4, 5]
    assert (get_ident() in threads_of) == (threads == 1)


@pytest.mark.parametrize("threads", [1, 2])
def test_errors_of_work_aside_come_out(threads):
    def fail() -> None:
        raise ValueError("aside")

    with pytest.raises(ValueError, match="aside"), aside(threads) as later:
        later(fail)


def test_an_error_beside_work_aside_drops_what_waits():
    done = []

    def interrupted() -> None:
        with aside(2) as later:
            for _ in range(50):
                later(lambda: done.append(time.sleep(0.01)))
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert len(done) < 50
