"""Activations in memory and on disk."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from onnx_subprune.errors import OutputError
from onnx_subprune.runtime import memory as heap
from onnx_subprune.runtime.memory import in_use, resident
from onnx_subprune.runtime.spill import Shelf, Store


def array(seed, size=1000):
    return np.random.default_rng(seed).standard_normal(size)


def files(store):
    return sorted(path for path in store._folder.iterdir()) if store._folder else []


def test_what_does_not_fit_comes_back_from_disk():
    arrays = [array(seed) for seed in range(4)] + [
        np.zeros((0, 3), np.float16),
        np.array(7),
        np.asfortranarray(np.eye(40)),
    ]
    with Store(arrays[0].nbytes) as store:
        held = [store.put(item) for item in arrays]
        assert store.spilled > 0
        for item, found in zip(arrays, held, strict=True):
            assert found.get().dtype == item.dtype
            np.testing.assert_array_equal(found.get(), item)
        assert held[0].get() is arrays[0]


@pytest.mark.parametrize("sizes", [(1000, 1000), (1000, 10), (10, 1000)])
def test_a_file_that_is_free_is_written_over(sizes):
    with Store(0) as store:
        first = store.put(array(0, sizes[0]))
        other = store.put(array(1))
        store.release(first)
        again = store.put(array(2, sizes[1]))
        assert len(files(store)) == 2
        np.testing.assert_array_equal(again.get(), array(2, sizes[1]))
        np.testing.assert_array_equal(other.get(), array(1))


def test_the_smallest_file_that_is_large_enough_is_taken():
    with Store(0) as store:
        held = {size: store.put(array(0, size)) for size in (100, 1000, 5000)}
        paths = {size: item.path for size, item in held.items()}
        for item in held.values():
            store.release(item)
        assert store.put(array(1, 900)).path == paths[1000]
        assert store.put(array(1, 9000)).path == paths[5000]
        assert store.put(array(1, 900)).path == paths[100]


def test_the_files_go_with_the_store():
    with Store(0) as store:
        held = store.put(array(0))
        folder = store._folder
    assert not folder.exists()
    store.release(held)
    store = Store(0)
    store.put(array(0))
    folder = store._folder
    del store
    gc.collect()
    assert not folder.exists()


def test_a_full_disk_is_one_line():
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Store(0) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
        try:
            with pytest.raises(OutputError, match="set TMPDIR"):
                store.put(array(0))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        np.testing.assert_array_equal(store.put(array(1)).get(), array(1))


def test_room_that_is_given_back_is_used_again():
    with Store(array(0).nbytes) as store:
        first = store.put(array(0))
        assert store.put(array(1)).path is not None
        store.release(first)
        assert store.put(array(2)).path is None


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say what memory a process takes")
def test_more_is_held_while_the_process_is_small():
    assert 10 << 20 < resident() < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with Store(0, spare=int(2 * in_use()), ceiling=int(2 * resident())) as store:
        assert store.put(array(0)).path is None
    with Store(0, spare=int(in_use() / 2), ceiling=int(2 * resident())) as store:
        assert store.put(array(0)).path is not None
    with Store(0, spare=int(2 * in_use()), ceiling=int(resident() / 2)) as store:
        assert store.put(array(0)).path is not None


@pytest.mark.skipif(heap._function("mallinfo2") is None, reason="the C library does not say what memory is in use")
def test_what_is_let_go_of_is_not_in_use():
    before = in_use()
    held = np.ones(4 << 20)
    assert in_use() - before == pytest.approx(held.nbytes, rel=0.1)
    del held
    assert in_use() - before < 8 << 20


def test_where_the_c_library_does_not_say_the_process_does(monkeypatch):
    monkeypatch.setattr(heap, "_function", lambda name: None)
    assert in_use() == pytest.approx(resident(), rel=0.05)
    heap.give_back()
    heap.share_one_heap()


def test_a_shelf_forgets_what_is_replaced():
    shelf = Shelf(0)
    shelf["a"], shelf["b"] = array(0), array(1)
    shelf["a"] = array(2)
    del shelf["b"]
    assert list(shelf) == ["a"]
    np.testing.assert_array_equal(shelf["a"], array(2))
