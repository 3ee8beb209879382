"""GNS, NCLaw and GIOROM files in and out."""

import json
import pickle

import numpy as np
import pytest
import torch
from datasets_particles_helpers import assert_equal, make_info, make_trajectory, write_file

from sciml.datasets.particles import (
    ParticleFile,
    ParticleSource,
    ParticleTrajectory,
    ParticleWriter,
    convert_particles,
    open_source,
    particle_statistics,
    write_gns,
)
from sciml.errors import ConfigError, DataError

METADATA = {"bounds": [[0.0, 1.0], [0.0, 1.0]], "sequence_length": 12, "dim": 2, "dt": 0.0025}


def positions(case, frames=12, count=9, dim=2):
    return make_trajectory(case, dim, frames, count).position.numpy()


def objects(*parts):
    out = np.empty(len(parts), dtype=object)
    out[:] = parts
    return out


def gns(directory, name="train", metadata=METADATA, **arrays):
    directory.mkdir(exist_ok=True)
    np.savez_compressed(directory / f"{name}.npz", **arrays)
    if metadata is not None:
        (directory / "metadata.json").write_text(json.dumps(metadata))
    return directory / f"{name}.npz"


# ------------------------------------------------------------------------------------------------------------------ GNS


@pytest.mark.parametrize("layout", ["gns_data", "one key each"])
@pytest.mark.parametrize("types", ["array", "scalar"])
@pytest.mark.parametrize("properties", [None, "array", "scalar", "columns"])
def test_gns_in(tmp_path, layout, types, properties):
    kinds = [np.array([6, 6, 3] * 3), np.array([5, 3, 6] * 3)] if types == "array" else [6, 5]
    values = {None: [], "array": [np.linspace(0, 1, 9)], "scalar": [0.5], "columns": [np.ones((9, 2))]}[properties]
    items = [objects(positions(case, 12 + case), kinds[case], *values) for case in range(2)]
    arrays = {"gns_data": objects(*map(tuple, items))}
    if layout == "one key each":
        arrays = {f"simulation_trajectory_{k}": item for k, item in enumerate(items)}
    source = open_source(gns(tmp_path / "WaterDrop", **arrays), allow_pickle=True)
    file = ParticleFile(source.write(tmp_path / "a.h5"))
    assert (file.info.problem, file.info.interval, file.info.bounds) == ("train", 0.0025, ((0.0, 1.0), (0.0, 1.0)))
    assert file.info.kinds == (("fixed", "water", "sand") if types == "array" else ("water", "sand"))
    assert file.info.extra["gravity"] == "not known" and "bounds" not in file.info.extra
    for case in range(2):
        trajectory = file.trajectory(case)
        assert np.array_equal(trajectory.position, positions(case, 12 + case)) and trajectory.subset == "train"
        wanted = np.broadcast_to(kinds[case], 9)
        names = [file.info.kinds[k] for k in trajectory.kind]
        assert names == [{3: "fixed", 5: "water", 6: "sand"}[int(k)] for k in wanted]
        assert np.array_equal(trajectory.fixed, wanted == 3)
        assert trajectory.parameters.shape[1] == len(file.info.parameters) == {None: 0, "columns": 2}.get(properties, 1)
        if properties == "array":
            assert np.allclose(trajectory.parameters[:, 0], np.linspace(0, 1, 9))
        elif properties == "scalar":
            assert (trajectory.parameters == 0.5).all()


def test_gns_directory_gives_subsets(tmp_path):
    for case, split in enumerate(("train", "valid", "test")):
        gns(tmp_path / "set", split, a=objects(positions(case), 5))
    file = ParticleFile(convert_particles(tmp_path / "set", tmp_path / "a.h5", allow_pickle=True, problem="drop"))
    assert file.subsets == ("train", "valid", "test") and file.info.problem == "drop"
    assert np.array_equal(file.positions(2), positions(2))


def test_gns_newer_metadata(tmp_path):
    both = {"train": METADATA, "rollout": METADATA | {"dt": 0.005}}
    gns(tmp_path / "set", "train", both, a=objects(positions(0), 5))
    path = gns(tmp_path / "set", "test", both, a=objects(positions(1), 5))
    assert open_source(path, allow_pickle=True).info.interval == 0.005
    with pytest.raises(DataError, match=r"convert the .npz files one by one"):
        open_source(tmp_path / "set", allow_pickle=True)


def test_plain_arrays_need_no_pickle(tmp_path):
    path = gns(tmp_path / "mine", "drops", None, first=positions(0), second=positions(1, 15))
    with pytest.raises(ConfigError, match=r"how far apart its frames are in time: give interval \(--interval S\)"):
        open_source(path)
    source = open_source(path, interval=0.01, kind="honey", gravity=(0, -9.8))
    assert source.info.kinds == ("honey",) and source.info.gravity == (0, -9.8) and source.cases == 2
    both = np.concatenate([positions(0).reshape(-1, 2), positions(1, 15).reshape(-1, 2)]).astype(np.float64)
    low, high = both.min(0), both.max(0)
    margin = 0.05 * (high - low).max()
    np.testing.assert_allclose(source.info.bounds, np.stack([low - margin, high + margin], axis=1), rtol=1e-12)
    assert "5%" in source.info.extra["bounds"]
    assert np.array_equal(source.load(1).position, positions(1, 15))


def test_gns_told_goes_first(tmp_path):
    path = gns(tmp_path / "set", a=objects(positions(0), 6))
    source = open_source(path, allow_pickle=True, interval=1.0, bounds=[(0, 2), (-1, 3)], kind="gravel")
    assert (source.info.interval, source.info.bounds) == (1.0, ((0.0, 2.0), (-1.0, 3.0)))
    assert source.info.kinds == ("gravel",)
    with pytest.raises(ConfigError, match="bounds must have 2 entries, got 1"):
        open_source(path, allow_pickle=True, bounds=[(0, 2)])
    two = gns(tmp_path / "two", a=objects(positions(0), np.array([5, 6, 3] * 3)))
    with pytest.raises(ConfigError, match=r"there are 2: \['water', 'sand'\]"):
        open_source(two, allow_pickle=True, kind="mud")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": objects(positions(0))}, "a is not a trajectory; expected positions"),
        ({"a": objects(positions(0), np.zeros(5))}, "a does not fit together"),
        ({"a": objects(positions(0)[0], 5)}, r"a has positions of shape \(9, 2\)"),
        ({"a": objects("text", 5)}, "a does not fit together"),
        ({"a": objects(positions(0), 5), "b": objects(positions(0), 5, 1.0)}, r"differ in .* properties \[0, 1\]"),
        ({"a": objects(positions(0), 5), "b": objects(positions(0, dim=3), 5)}, r"differ in dimension \[2, 3\]"),
        ({"a": np.zeros(4)}, "a is not a trajectory"),
        ({}, "holds no trajectory"),
    ],
)
def test_gns_refuses(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        open_source(gns(tmp_path / "set", **arrays), allow_pickle=True)


def test_gns_needs_allow_pickle(tmp_path):
    with pytest.raises(DataError, match="--allow-pickle"):
        open_source(gns(tmp_path / "set", a=objects(positions(0), 5)))
    damaged = gns(tmp_path / "damaged", metadata={"bounds": [0]}, a=objects(positions(0), 5))
    with pytest.raises(DataError, match=r"metadata.json is damaged or has no bounds or dt"):
        open_source(damaged, allow_pickle=True)


def test_gns_bad_positions_are_not_written(tmp_path):
    bad = positions(0).copy()
    bad[3, 2] = np.nan
    path = gns(tmp_path / "nan", a=objects(bad, 5))
    with pytest.raises(DataError, match="NaN or infinity in 'position': frame 3, particle 2"):
        convert_particles(path, tmp_path / "a.h5", allow_pickle=True)
    path = gns(tmp_path / "far", a=objects(positions(0) * 10, 5))
    with pytest.raises(DataError, match=r"case 0 is not written: .* leave the bounds .* give wider bounds"):
        convert_particles(path, tmp_path / "b.h5", allow_pickle=True)
    assert not (tmp_path / "b.h5").exists()


def test_gns_out_and_in(tmp_path):
    file = ParticleFile(write_file(tmp_path / "a.h5"))
    directory = write_gns(tmp_path / "gns", {"train": [(file, 0), (file, 2)], "test": [(file, 1)]}, radius=0.03)
    metadata = json.loads((directory / "metadata.json").read_text())
    assert metadata["bounds"] == [[0, 1], [0, 2]] and metadata["dt"] == 0.01 and metadata["dim"] == 2
    assert metadata["sequence_length"] == 19 and metadata["default_connectivity_radius"] == 0.03
    assert metadata["material_feature_len"] == 2
    statistics = particle_statistics([(file, 0), (file, 2)])  # of the train split, in frame differences
    for key, name in (("vel", "velocity"), ("acc", "acceleration")):
        assert metadata[f"{key}_mean"] == getattr(statistics, f"{name}_mean")
        assert metadata[f"{key}_std"] == getattr(statistics, f"{name}_std")
    # as the loader of geoelements/gns reads them
    with np.load(directory / "train.npz", allow_pickle=True) as archive:
        items = [item for _, item in archive.items()]
    assert len(items) == 2 and all(len(item) == 3 for item in items)
    position, kind, properties = items[1]
    assert np.array_equal(position, file.trajectory(2).position) and position.dtype == np.float32
    assert kind.tolist() == [3] * 3 + [5] * 23 and properties.shape == (26, 2)

    back = ParticleFile(convert_particles(directory, tmp_path / "b.h5", allow_pickle=True))
    assert back.subsets == ("train", "train", "test") and back.info.kinds == ("fixed", "water")
    for case, original in enumerate((0, 2, 1)):
        got, wanted = back.trajectory(case), file.trajectory(original)
        assert torch.equal(got.position, wanted.position) and torch.equal(got.parameters, wanted.parameters)
        assert torch.equal(got.fixed, wanted.fixed)
    # once more out and in: nothing more changes
    again = write_gns(tmp_path / "again", {"train": [(back, case) for case in range(3)]}, radius=0.03)
    twice = ParticleFile(convert_particles(again / "train.npz", tmp_path / "c.h5", allow_pickle=True))
    for case in range(3):
        one, other = twice.trajectory(case), back.trajectory(case)
        assert torch.equal(one.position, other.position) and torch.equal(one.kind, other.kind)


def test_gns_one_property_is_a_vector(tmp_path):
    """As the loader of geoelements/gns does it: ``numpy.full(N, property)``."""
    wanted = ParticleTrajectory(positions(0), parameters=np.arange(9.0)[:, None])
    info = make_info(parameters={"viscosity": "Pa s"}, case_parameters={})
    with ParticleWriter(tmp_path / "a.h5", info, 1) as writer:
        writer.write(0, wanted)
        file = ParticleFile(writer.finish())
    directory = write_gns(tmp_path / "gns", {"train": [(file, 0)]}, radius=0.1)
    with np.load(directory / "train.npz", allow_pickle=True) as archive:
        assert np.full(9, archive["simulation_0"][2], dtype=float).tolist() == list(range(9))
    back = open_source(directory, allow_pickle=True).load(0)
    assert torch.equal(back.parameters, wanted.parameters)


def test_gns_numbers_of_unknown_kinds(tmp_path):
    kinds = ("type 8", "mud", "water", "honey")
    file = ParticleFile(write_file(tmp_path / "a.h5", kinds=kinds, cases=1))
    directory = write_gns(tmp_path / "gns", {"train": [(file, 0)]}, radius=0.1)
    with np.load(directory / "train.npz", allow_pickle=True) as archive:
        assert set(archive["simulation_0"][1].tolist()) == {3, 8}
    with pytest.raises(DataError, match="no cases"):
        write_gns(tmp_path / "gns", {"train": []}, radius=0.1)


# ---------------------------------------------------------------------------------------------------------------- NCLaw


def nclaw(folder, case=0, steps=range(0, 50, 5), count=11, types=False):
    """States as NCLaw saves them; returns positions and velocities."""
    (folder / "state").mkdir(parents=True)
    trajectory = make_trajectory(case, 3, len(steps), count)
    for frame, step in enumerate(steps):
        x, v = trajectory.position[frame], trajectory.velocity[frame]
        state = dict(x=x, v=v, C=torch.zeros(count, 3, 3), F=torch.eye(3).expand(count, 3, 3), sections=[count])
        if types:
            state["types"] = (torch.arange(count) % 2).int()
        torch.save(state, folder / "state" / f"{step:04d}.pt")
    return trajectory


def test_nclaw(tmp_path):
    wanted = nclaw(tmp_path / "jelly")
    for path in (tmp_path / "jelly", tmp_path / "jelly" / "state"):
        source = open_source(path, kind="jelly")
        assert source.info.interval == 5 * 5e-4 and source.info.bounds == ((0, 1),) * 3
        assert source.info.gravity == (0, -9.8, 0) and source.info.kinds == ("jelly",) and source.cases == 1
        got = source.load(0)
        assert torch.equal(got.position, wanted.position) and torch.equal(got.velocity, wanted.velocity)
    assert open_source(tmp_path / "jelly", interval=0.1).info.interval == 0.1


def test_nclaw_several_and_types(tmp_path):
    wanted = [nclaw(tmp_path / "runs" / f"shape_{k}", k, count=11 + k, types=True) for k in range(3)]
    file = ParticleFile(convert_particles(tmp_path / "runs", tmp_path / "a.h5"))
    assert len(file) == 3 and file.info.kinds == ("type 0", "type 1")
    for case in range(3):
        assert torch.equal(file.trajectory(case).position, wanted[case].position)
        assert file.trajectory(case).kind[:3].tolist() == [0, 1, 0]


def test_nclaw_steps_past_9999_are_in_order(tmp_path):
    wanted = nclaw(tmp_path / "long", steps=range(9000, 12001, 1000))
    assert torch.equal(open_source(tmp_path / "long").load(0).position, wanted.position)


def test_nclaw_refuses(tmp_path):
    nclaw(tmp_path / "gap", steps=[0, 5, 15])
    with pytest.raises(DataError, match="not equally far apart"):
        open_source(tmp_path / "gap")
    nclaw(tmp_path / "count")
    torch.save({"x": torch.zeros(3, 3)}, tmp_path / "count" / "state" / "0050.pt")
    with pytest.raises(DataError, match=r"0050.pt has 3 particles, the first state has 11"):
        open_source(tmp_path / "count").load(0)
    nclaw(tmp_path / "other")
    torch.save({"y": torch.zeros(3, 3)}, tmp_path / "other" / "state" / "0000.pt")
    with pytest.raises(DataError, match=r"0000.pt is no state of NCLaw"):
        open_source(tmp_path / "other")
    (tmp_path / "other" / "state" / "0000.pt").write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(DataError, match=r"--allow-pickle|is refused"):
        open_source(tmp_path / "other")


# --------------------------------------------------------------------------------------------------------------- GIOROM


def rollouts(path, count=3, dim=3):
    """As parseNCLAWData.py saves rollouts: (n, T, d), numpy arrays in lists, type 5 for all."""
    wanted = [positions(case, 20, 9 + case, dim) for case in range(count)]
    content = {
        "particle_type": [np.full(p.shape[1], 5, np.int32) for p in wanted],
        "position": [p.swapaxes(0, 1) for p in wanted],
        "n_particles_per_example": [np.array([p.shape[1]], np.int32) for p in wanted],
        "output": [p.swapaxes(0, 1)[6] for p in wanted],
    }
    torch.save(content, path)
    return wanted


def windows(wanted, size=6):
    """As they save training data: every window of every trajectory."""
    content = {"particle_type": [], "position": [], "n_particles_per_example": [], "output": []}
    for p in wanted:
        for start in range(len(p) - size):
            content["particle_type"].append(np.full(p.shape[1], 5, np.int32))
            content["position"].append(p[start : start + size].swapaxes(0, 1).copy())
            content["n_particles_per_example"].append(np.array([p.shape[1]], np.int32))
            content["output"].append(p[start + size])
    return content


def test_giorom_rollouts(tmp_path):
    wanted = rollouts(tmp_path / "rollout_full.pt")
    with pytest.raises(DataError, match="--allow-pickle"):
        open_source(tmp_path / "rollout_full.pt", interval=0.0025)
    with pytest.raises(ConfigError, match="give interval"):
        open_source(tmp_path / "rollout_full.pt", allow_pickle=True)
    told = dict(interval=0.0025, bounds=[(0, 1)] * 3, kind="plasticine", allow_pickle=True)
    file = ParticleFile(convert_particles(tmp_path / "rollout_full.pt", tmp_path / "a.h5", **told))
    assert len(file) == 3 and file.info.kinds == ("plasticine",) and set(file.subsets) == {"rollout_full"}
    for case in range(3):
        assert np.array_equal(file.positions(case), wanted[case])


@pytest.mark.parametrize("suffix", ["obj", "pt"])
def test_giorom_windows_become_the_trajectories_they_were_cut_from(tmp_path, suffix):
    wanted = [positions(0, 20, 9), positions(1, 20, 9), positions(2, 20, 7)]
    path = tmp_path / f"train.{suffix}"
    torch.save(windows(wanted), path) if suffix == "pt" else path.write_bytes(pickle.dumps(windows(wanted)))
    source = open_source(path, interval=0.0025, allow_pickle=True)
    assert isinstance(source, ParticleSource) and source.cases == 3
    for case in range(3):
        assert np.array_equal(source.load(case).position, wanted[case])


def test_giorom_shuffled_windows_are_refused(tmp_path):
    content = windows([positions(0, 20, 9)])
    order = np.random.default_rng(0).permutation(len(content["position"]))
    content = {key: [values[k] for k in order] for key, values in content.items()}
    torch.save(content, tmp_path / "train.pt")
    with pytest.raises(DataError, match=r"14 windows of 6 frames which do not follow one another.*rollout_full.pt"):
        open_source(tmp_path / "train.pt", interval=0.1, allow_pickle=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"position": []}, "no file of GIOROM"),
        ([1, 2], "no file of GIOROM"),
        ({"particle_type": [], "position": [], "output": []}, "at least one"),
        ({"particle_type": [np.zeros(3)], "position": [np.zeros((3, 20))], "output": [0]}, "3 axes"),
        ({"particle_type": [np.zeros(3)], "position": [np.array([None])], "output": [0]}, "arrays of numbers"),
    ],
)
def test_giorom_refuses(tmp_path, content, message):
    (tmp_path / "a.obj").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=message):
        open_source(tmp_path / "a.obj", interval=0.1, allow_pickle=True)


# ------------------------------------------------------------------------------------------------------------ in common


def test_unknown_formats(tmp_path):
    with pytest.raises(DataError, match=r"none is not there; expected one of: GNS .* NCLaw .* GIOROM .* series"):
        open_source(tmp_path / "none")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="of no known format"):
        open_source(tmp_path / "a.txt")
    with pytest.raises(DataError, match="of no known format"):
        open_source(tmp_path)
    (tmp_path / "a.npz").write_text("x")
    with pytest.raises(DataError, match="no numpy archive"):
        open_source(tmp_path / "a.npz", allow_pickle=True)


def test_conversion_that_stopped_continues(tmp_path):
    gns(tmp_path / "set", a=positions(0), b=positions(1), c=positions(2))
    source, loaded = open_source(tmp_path / "set"), []

    def load(case):
        loaded.append(case)
        if case == 1 and len(loaded) == 2:
            raise KeyboardInterrupt
        return source.load(case)

    watched = ParticleSource(source.info, source.cases, load)
    with pytest.raises(KeyboardInterrupt):
        watched.write(tmp_path / "a.h5")
    watched.write(tmp_path / "a.h5")
    assert loaded == [0, 1, 1, 2]
    whole = source.write(tmp_path / "b.h5")
    assert whole.read_bytes() == (tmp_path / "a.h5").read_bytes()
    with pytest.raises(DataError, match="exists already"):
        source.write(tmp_path / "a.h5")
    assert_equal(ParticleFile(source.write(tmp_path / "a.h5", overwrite=True)).trajectory(2), source.load(2))
