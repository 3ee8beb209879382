"""Pooled statistics against numpy in float64, and splits by their properties."""

import numpy as np
import pytest
import torch
from datasets_helpers import make_coordinates, make_info, make_parameters, make_trajectory, write_file
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.datasets import DatasetWriter, FieldStatistics, field_statistics, split_cases
from sciml.errors import DataError


def plain(values):
    """(cases, T, C, X, Y) -> mean, std of each channel."""
    values = np.asarray(values, dtype=np.float64)
    return values.mean(axis=(0, 1, 3, 4)), values.std(axis=(0, 1, 3, 4))


def check(got, values, stride=1):
    for g, e in zip((got.mean, got.std), plain(values), strict=True):
        assert np.allclose(g, e, rtol=1e-10, atol=1e-12)
    for g, e in zip(
        (got.increment_mean, got.increment_std), plain(values[:, stride:] - values[:, :-stride]), strict=True
    ):
        assert np.allclose(g, e, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("first_frame", [0, 2])
def test_equal_numpy(tmp_path, stride, first_frame):
    path = write_file(tmp_path / "a.hdf5", 4)
    trajectory = make_trajectory(make_info(), [0, 3])
    values = np.concatenate([trajectory["velocity"], trajectory["pressure"]], axis=2)[:, first_frame:].astype(
        np.float64
    )
    got = field_statistics(path, ["velocity", "pressure"], [0, 3], first_frame=first_frame, stride=stride)
    check(got, values, stride)
    assert got.channels == ("velocity_x", "velocity_y", "pressure") and got.constant == () and got.n_cases == 2
    assert FieldStatistics.from_dict(got.to_dict()) == got


def test_transform_by_parameters(tmp_path):
    """The lead's use: velocities in units of the lid velocity that acts at each frame."""
    path = write_file(tmp_path / "a.hdf5")
    lid = make_parameters(make_info(), 3)["lid_velocity"][:, :, None, None, None]
    values = make_trajectory(make_info(), range(3))["velocity"].astype(np.float64) / lid
    got = field_statistics(path, transform=lambda u, p: u / p["lid_velocity"][:, :, None, None, None])
    check(got, values)
    with pytest.raises(DataError, match="must keep the shape"):
        field_statistics(path, transform=lambda u, p: u[:, 1:])


def test_large_mean_small_spread_and_constant_channels(tmp_path):
    """1e5 Pa that differ by 1 Pa: a one-pass sum of squares loses them; a constant channel divides by 1."""
    info = make_info(face_fields=())
    trajectory = make_trajectory(info, range(3))
    trajectory["pressure"] = (1e5 + trajectory["pressure"]).astype(np.float32)
    trajectory["velocity"][:, :, 0] = 0.0
    trajectory["velocity"][:, :, 1] = 1e5
    with DatasetWriter(tmp_path / "a.hdf5", info, 3, make_parameters(info, 3)) as writer:
        writer.write(range(3), trajectory, make_coordinates(info, range(3)))
        writer.finish()
    got = field_statistics(tmp_path / "a.hdf5", ["velocity", "pressure"])
    values = trajectory["pressure"].astype(np.float64)
    assert got.mean[2] == pytest.approx(values.mean(), rel=1e-13) and got.std[2] == pytest.approx(
        values.std(), rel=1e-9
    )
    assert got.constant == got.constant_increment == ("velocity_x", "velocity_y")
    assert got.std[:2] == got.increment_std[:2] == (1.0, 1.0) and got.mean[:2] == (0.0, 1e5)


def test_wrong_arguments(tmp_path):
    path = write_file(tmp_path / "a.hdf5")
    with pytest.raises(DataError, match="at least one case"):
        field_statistics(path, cases=[])
    with pytest.raises(DataError, match="did you mean 'pressure'"):
        field_statistics(path, ["presure"])
    with pytest.raises(DataError, match="no frame from 6 on"):
        field_statistics(path, first_frame=6)
    with pytest.raises(DataError, match="non-finite values in case 0"):
        field_statistics(path, transform=lambda u, p: u / torch.zeros(1))


labels_and_sizes = st.lists(st.sampled_from("abcd"), min_size=3, max_size=120).flatmap(
    lambda labels: st.tuples(
        st.just(labels),
        st.tuples(st.integers(1, len(labels) - 2), st.integers(1, len(labels) - 2)).filter(
            lambda s: sum(s) < len(labels)
        ),
    )
)


@settings(max_examples=150, deadline=None)
@given(labels_and_sizes, st.integers(0, 2**40))
def test_splits_are_disjoint_complete_and_even(labels_and_sizes, seed):
    labels, (val, test) = labels_and_sizes
    sizes = {"train": len(labels) - val - test, "val": val, "test": test}
    parts = split_cases(labels, sizes, seed)
    assert {name: len(p) for name, p in parts.items()} == sizes and list(parts) == list(sizes)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(labels)))
    again = split_cases(labels, sizes, seed)
    assert all(np.array_equal(parts[name], again[name]) for name in sizes)
    kinds = set(labels)
    for name, part in parts.items():
        for kind in kinds:
            count = sum(labels[i] == kind for i in part)
            share = labels.count(kind) * sizes[name] / len(labels)
            assert abs(count - share) < len(kinds) + 1
            if labels.count(kind) >= 3 and sizes[name] >= len(kinds):
                assert count >= 1


def test_split_depends_on_the_seed_only():
    labels = ["bc"] * 50 + ["prop"] * 84 + ["geo"] * 28
    parts = {"train": 120, "val": 12, "test": 30}
    first, second = split_cases(labels, parts, 0), split_cases(labels, parts, 1)
    assert not np.array_equal(first["test"], second["test"])
    assert first["val"].tolist() == split_cases(labels, parts, 0)["val"].tolist()
    assert [sum(labels[i] == k for i in first["test"]) for k in ("bc", "prop", "geo")] == [9, 16, 5]


def test_fractions():
    parts = split_cases(["a"] * 7 + ["b"] * 6, {"train": 0.8, "val": 0.1, "test": 0.1}, 0)
    assert [len(p) for p in parts.values()] == [11, 1, 1]
    assert [len(p) for p in split_cases(["a"] * 3, {"train": 0.98, "val": 0.01, "test": 0.01}, 0).values()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": 4, "val": 2}, "add up to 6; there are 5 cases"),
        ({"train": 5, "val": 0}, "every part must be positive"),
        ({"train": 0.8, "val": 0.1}, "fractions must add up to 1"),
        ({c: 1 / 6 for c in "abcdef"}, "too few cases"),
        ({}, "every part must be positive"),
    ],
)
def test_split_errors(parts, message):
    with pytest.raises(DataError, match=message):
        split_cases(["x"] * 5, parts, 0)
