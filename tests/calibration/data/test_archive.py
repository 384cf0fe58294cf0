"""Members of an .npz file: mapped, or unpacked no further than is wanted."""

import io
import time
import zipfile
import zlib

import numpy as np
import pytest

from onnx_subprune.calibration.data.archive import MAPPED, Extent, read_archive
from onnx_subprune.calibration.data.mapped import mapping_of
from onnx_subprune.errors import DataError

ARRAYS = {
    "x": np.arange(24, dtype=np.float32).reshape(6, 4),
    "h": np.arange(12, dtype=np.int64).reshape(6, 2)[:, ::-1],
    "f": np.asfortranarray(np.arange(24.0).reshape(6, 2, 2)),
    "e": np.zeros((6, 0), np.float16),
    "b": np.arange(6, dtype=">i4"),
    "t": np.array([True, False] * 3),
}
SAVERS = [np.savez, np.savez_compressed]


@pytest.mark.parametrize("samples", [None, 1, 4, 6, 100])
@pytest.mark.parametrize("save", SAVERS)
def test_the_arrays_are_those_of_numpy(tmp_path, save, samples):
    save(tmp_path / "x.npz", s=np.float32(3) * np.ones(6), **ARRAYS)
    found = read_archive(tmp_path / "x.npz", Extent(samples, None))
    with np.load(tmp_path / "x.npz") as right:
        assert set(found) == set(right.files)
        for name, array in found.items():
            assert array.dtype == right[name].dtype
            assert np.array_equal(array[:samples], right[name][:samples])
            assert len(array) in (6, samples)


def test_large_members_that_are_not_compressed_are_mapped_and_others_cut(tmp_path):
    x = np.random.default_rng(0).standard_normal((1000, 300)).astype(np.float32)
    assert x.nbytes > MAPPED
    np.savez(tmp_path / "a.npz", small=np.arange(1000), x=x)
    found = read_archive(tmp_path / "a.npz", Extent(10, 1 << 16))
    assert mapping_of(found["x"]) is not None
    assert np.array_equal(found["x"], x)
    np.savez_compressed(tmp_path / "b.npz", x=x)
    found = read_archive(tmp_path / "b.npz", Extent(10, 1 << 16))
    assert np.array_equal(found["x"], x[:10])


def bomb(path, samples, columns):
    """A file of kilobytes whose array of zeros has samples x columns bytes."""
    head = io.BytesIO()
    described = {"descr": "|i1", "fortran_order": False, "shape": (samples, columns)}
    np.lib.format.write_array_header_1_0(head, described)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as file,
    ):
        file.write(head.getvalue())
        for _ in range(samples):
            file.write(bytes(columns))


def test_a_small_file_that_unpacks_to_too_much_is_refused_unread_and_its_first_samples_are_read(tmp_path):
    bomb(tmp_path / "x.npz", 64, 1 << 20)
    assert (tmp_path / "x.npz").stat().st_size < 1 << 18
    start = time.process_time()
    with pytest.raises(DataError, match=r"more than the 0\.01 GB of --memory: use the first --samples"):
        read_archive(tmp_path / "x.npz", Extent(None, 10**7))
    assert time.process_time() - start < 0.1
    assert read_archive(tmp_path / "x.npz", Extent(4, 10**7))["x"].shape == (4, 1 << 20)


def test_samples_behind_those_that_are_wanted_may_be_lost(tmp_path):
    x = np.random.default_rng(0).standard_normal((1000, 30)).astype(np.float32)
    np.savez_compressed(tmp_path / "x.npz", x=x)
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[80_000:80_100] = bytes(100)
    (tmp_path / "x.npz").write_bytes(content)
    assert np.array_equal(read_archive(tmp_path / "x.npz", Extent(10, None))["x"], x[:10])
    with pytest.raises((zipfile.BadZipFile, zlib.error)):
        read_archive(tmp_path / "x.npz", Extent(None, None))


def test_inputs_of_different_lengths_are_not_cut_to_one(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((8, 2)), h=np.zeros((9, 2)))
    found = read_archive(tmp_path / "x.npz", Extent(2, None))
    assert {name: len(array) for name, array in found.items()} == {"x": 8, "h": 9}


@pytest.mark.parametrize("shape", [(5, 4), (7, 4), (-6, -4), (2**62, 4), (6, 4, 2**31)])
def test_a_shape_that_disagrees_with_the_bytes_is_refused(tmp_path, shape):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", head.getvalue() + ARRAYS["x"].tobytes())
    with pytest.raises(ValueError, match="in it has the shape"):
        read_archive(tmp_path / "x.npz", Extent(3, None))


def test_objects_and_what_is_no_array_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.array([{}], object))
    with pytest.raises(ValueError, match="pickle"):
        read_archive(tmp_path / "x.npz", Extent(3, None))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("readme.txt", "text")
    with pytest.raises(ValueError, match="no array"):
        read_archive(tmp_path / "x.npz", Extent(3, None))
