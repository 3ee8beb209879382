"""The restricted reader of pickles: arrays come out as they went in, and nothing that a pickle asks for is run."""

import collections
import os
import pickle

import numpy as np
import pytest
import torch

from sciml.datasets.particles.archives import read_npz, read_pickle, read_torch
from sciml.datasets.particles.restricted_pickle import load_pickle
from sciml.errors import DataError


def ragged(*parts):
    out = np.empty(len(parts), dtype=object)
    out[:] = parts
    return out


CONTENTS = {
    "float": np.arange(12, dtype=np.float32).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "big_endian": np.arange(5, dtype=">i4"),
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 3)),
    "zero_dim": np.array(4.5),
    "scalar": np.float64(1.25),
    "int_scalar": np.int32(7),
    "objects": ragged(np.arange(3.0), np.int64(5), [np.zeros(2), "text"]),
    "matrix_of_objects": np.array([[np.arange(2), None], [1, b"x"]], dtype=object),
    "nested": {"a": [np.ones(2), (1, 2.5, None)], "b": {"c": True}, 3: "x"},
}


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape
        if a.dtype.hasobject:
            for x, y in zip(a.ravel(), b.ravel(), strict=True):
                same(x, y)
        else:
            assert np.array_equal(a, b)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    else:
        assert a == b


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", CONTENTS)
def test_arrays_come_out_as_they_went_in(tmp_path, name, protocol):
    content = CONTENTS[name]
    same(load_pickle(pickle.dumps(content, protocol), tmp_path), content)


def test_names_of_older_numpy(tmp_path):
    content = pickle.dumps(CONTENTS["objects"], 2)
    assert b"numpy._core.multiarray" in content
    same(
        load_pickle(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"), tmp_path), CONTENTS["objects"]
    )


def test_one_array_in_many_places_stays_one(tmp_path):
    array = np.ones(1000)
    found = load_pickle(pickle.dumps([array] * 1000), tmp_path)
    assert all(each is found[0] for each in found)


class Creates:
    """Unpickled the usual way, it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("where", ["alone", "in_objects", "as_dtype"])
def test_malicious_pickle_is_refused_and_not_run(tmp_path, protocol, where):
    mark = tmp_path / "created"
    evil = Creates(mark)
    content = {"alone": evil, "in_objects": ragged(np.zeros(2), evil), "as_dtype": {"position": [evil]}}[where]
    data = pickle.dumps(content, protocol)
    pickle.loads(data)
    assert mark.exists()  # the test can fail
    mark.unlink()
    with pytest.raises(DataError, match=r"asks for (posix|nt).system.* nothing of it was run"):
        load_pickle(data, tmp_path / "evil.pkl")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (collections.Counter(), "collections.Counter"),
        (eval, r"builtins.eval|__builtin__.eval"),
        (np.load, "numpy.load"),
        (torch.zeros(2), "torch._utils._rebuild_tensor_v2"),
        (slice(1, 2), "slice"),
    ],
)
def test_what_is_refused_is_named(tmp_path, value, name):
    with pytest.raises(DataError, match=f"asks for .*({name})"):
        load_pickle(pickle.dumps(value), tmp_path)


def assembled(*opcodes):
    """A pickle by hand: what no library would write."""
    return b"".join(opcodes) + b"."


GLOBAL = b"cnumpy._core.multiarray\n_reconstruct\n"
DTYPE = b"cnumpy\ndtype\n"


@pytest.mark.parametrize(
    "content",
    [
        assembled(GLOBAL),  # a function by itself
        assembled(GLOBAL, b"}U\x08argumentsK\x01sb"),  # changes an attribute of what stands for the function
        assembled(DTYPE, b"(U\x02V8\x89\x88tR"),  # raw memory as a type
        assembled(b"cnumpy\nndarray\n)\x81"),
        b"",
        b"not a pickle",
        pickle.dumps(np.arange(100.0))[:-200],
        pickle.dumps(np.arange(100.0)).replace(b"f8", b"f4"),  # too many bytes for the shape
        pickle.dumps(np.arange(4)).replace(b"i8", b"O8"),  # bytes as pointers
        pickle.dumps(np.zeros(3, dtype=[("a", "i4"), ("b", "f8")])),
        pickle.dumps(np.array(["text"])),
        pickle.dumps({1, 2}),
        b"(" * 100_000 + b"t" * 100_000 + b".",
    ],
    ids=range(13),
)
def test_damaged_and_crafted(tmp_path, content):
    with pytest.raises(DataError):
        load_pickle(content, tmp_path / "x.pkl")
    assert np.array_equal(load_pickle(pickle.dumps(np.arange(3)), tmp_path), np.arange(3))  # nothing has been changed


def test_cut_anywhere(tmp_path):
    content = pickle.dumps(CONTENTS["objects"])
    for length in range(len(content)):
        with pytest.raises(DataError):
            load_pickle(content[:length], tmp_path / "x.pkl")


def test_any_byte_changed(tmp_path):
    """Whatever becomes of it, the outcome is an object of the listed types or a DataError."""
    content = bytearray(pickle.dumps({"a": np.arange(3.0), "b": [np.int64(2)]}, 4))
    rng = np.random.default_rng(0)
    for _ in range(3000):
        spoiled = bytearray(content)
        spoiled[rng.integers(len(content))] = rng.integers(256)
        try:
            load_pickle(bytes(spoiled), tmp_path / "x.pkl")
        except DataError:
            continue


# -------------------------------------------------------------------------------------------------------- archives


def test_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, plain=CONTENTS["fortran"], objects=CONTENTS["objects"])
    same(read_npz(path, "plain", False), CONTENTS["fortran"])
    with pytest.raises(DataError, match=r"holds Python objects \(a pickle\).*allow_pickle=True \(--allow-pickle\)"):
        read_npz(path, "objects", False)
    same(read_npz(path, "objects", True), CONTENTS["objects"])
    with pytest.raises(DataError, match="'none' is damaged"):
        read_npz(path, "none", True)


def test_torch_files(tmp_path):
    tensors, arrays = {"x": torch.arange(3.0), "n": [1, 2]}, {"x": np.arange(3.0), "n": [np.int64(1)]}
    torch.save(tensors, tmp_path / "tensors.pt")
    found = read_torch(tmp_path / "tensors.pt", False)
    assert torch.equal(found["x"], tensors["x"]) and found["n"] == [1, 2]
    torch.save(arrays, tmp_path / "arrays.pt")
    with pytest.raises(DataError, match="--allow-pickle"):
        read_torch(tmp_path / "arrays.pt", False)
    same(read_torch(tmp_path / "arrays.pt", True), arrays)

    mark = tmp_path / "created"
    torch.save({"x": Creates(mark)}, tmp_path / "evil.pt")
    with pytest.raises(DataError, match="--allow-pickle"):
        read_torch(tmp_path / "evil.pt", False)
    with pytest.raises(DataError, match=r"evil.pt is refused: its pickle asks for posix.system"):
        read_torch(tmp_path / "evil.pt", True)
    assert not mark.exists()


def test_plain_pickles_and_other_files(tmp_path):
    path = tmp_path / "a.obj"
    path.write_bytes(pickle.dumps(CONTENTS["nested"]))
    with pytest.raises(DataError, match="--allow-pickle"):
        read_pickle(path, False)
    same(read_pickle(path, True), CONTENTS["nested"])
    same(read_torch(path, True), CONTENTS["nested"])
    with pytest.raises(DataError, match="--allow-pickle"):
        read_torch(path, False)
    text = tmp_path / "a.pt"
    text.write_text("text")
    with pytest.raises(DataError):
        read_torch(text, True)
