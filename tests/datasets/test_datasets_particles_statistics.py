"""Statistics of particles against sums over everything, and merged files."""

import h5py
import numpy as np
import pytest
import torch
from datasets_particles_helpers import assert_equal, make_info, make_trajectory, write_file

from sciml.datasets.particles import (
    ParticleFile,
    ParticleTrajectory,
    ParticleWriter,
    merge_particle_files,
    particle_statistics,
)
from sciml.datasets.particles import statistics as statistics_module
from sciml.errors import DataError


def expected(cases, dim=2):
    """Mean and population standard deviation over the free particles of all cases, in frame differences."""
    found = {"velocity": [], "acceleration": [], "parameter": []}
    for case in cases:
        trajectory = make_trajectory(case, dim)
        free = trajectory.position[:, ~trajectory.fixed].double().numpy()
        found["velocity"].append(np.diff(free, axis=0).reshape(-1, dim))
        found["acceleration"].append(np.diff(free, n=2, axis=0).reshape(-1, dim))
        found["parameter"].append(trajectory.parameters[~trajectory.fixed].double().numpy())
    joined = {name: np.concatenate(values) for name, values in found.items()}
    means = {f"{name}_mean": values.mean(0) for name, values in joined.items()}
    return means | {f"{name}_std": values.std(0) for name, values in joined.items()}


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("dim", [2, 3])
def test_pooled(tmp_path, monkeypatch, stored, dim):
    monkeypatch.setattr(statistics_module, "BLOCK_VALUES", 300)  # several blocks a case
    path = write_file(tmp_path / "a.h5", cases=4, dim=dim)
    if not stored:
        with h5py.File(path, "r+") as file:
            for case in file["traj"].values():
                del case["moments"]
    file = ParticleFile(path)
    got = particle_statistics([(file, 0), (file, 3), (file, 2)]).to_dict()
    for name, values in expected([0, 3, 2], dim).items():
        np.testing.assert_allclose(got[name], values, rtol=1e-9, atol=1e-12, err_msg=name)


def test_stored_are_those_of_all_cases(tmp_path):
    with h5py.File(write_file(tmp_path / "a.h5")) as file:
        for short, name in (("vel", "velocity"), ("acc", "acceleration"), ("param", "parameter")):
            for moment in ("mean", "std"):
                got, wanted = file[f"stats/{short}_{moment}"][()], expected(range(3))[f"{name}_{moment}"]
                np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


def write(path, *trajectories, **changes):
    info = make_info(**({"parameters": {}, "case_parameters": {}} | changes))
    with ParticleWriter(path, info, len(trajectories)) as writer:
        for case, trajectory in enumerate(trajectories):
            writer.write(case, trajectory)
        return ParticleFile(writer.finish())


def test_what_does_not_vary_has_std_1(tmp_path):
    """Free fall: the acceleration is the same everywhere, and along x nothing happens."""
    frames = torch.arange(12.0)
    start = torch.rand(30, 2, generator=torch.Generator().manual_seed(0)).double() * 0.5 + 0.3
    position = start.expand(12, 30, 2).clone()
    position[..., 1] -= 2.0**-10 * frames.double()[:, None] ** 2
    statistics = particle_statistics([(write(tmp_path / "a.h5", ParticleTrajectory(position)), 0)])
    assert statistics.velocity_std[0] == 1.0 and statistics.velocity_mean[0] == 0.0
    assert statistics.acceleration_mean[1] == pytest.approx(-(2.0**-9), rel=1e-6)
    assert statistics.parameter_mean == [] and statistics.parameter_std == []


def test_short_and_fixed_cases(tmp_path):
    position = make_trajectory(0).position
    walls = ParticleTrajectory(position, fixed=torch.ones(20))
    file = write(tmp_path / "a.h5", walls, ParticleTrajectory(position[:1]), ParticleTrajectory(position[:2]))
    with pytest.raises(DataError, match="need at least one case"):
        particle_statistics([])
    with pytest.raises(DataError, match=r"3 cases of .*a.h5: no free particle has 3 frames"):
        particle_statistics([(file, case) for case in range(3)])
    with h5py.File(file.path, locking=False) as raw:
        assert "stats" not in raw
    more = write(tmp_path / "b.h5", ParticleTrajectory(position))
    alone = particle_statistics([(more, 0)])
    assert particle_statistics([(file, 0), (more, 0), (file, 1)]) == alone


def test_cases_that_do_not_agree(tmp_path):
    a, b = (ParticleFile(write_file(tmp_path / f"{dim}.h5", dim=dim)) for dim in (2, 3))
    with pytest.raises(DataError, match="cannot have common statistics"):
        particle_statistics([(a, 0), (b, 0)])


# ---------------------------------------------------------------------------------------------------------- merging


def test_merge(tmp_path):
    a, b = write_file(tmp_path / "a.h5", cases=2), write_file(tmp_path / "b.h5", cases=3, seed=5, solver="other")
    merged = ParticleFile(merge_particle_files(tmp_path / "sub" / "all.h5", [a, b]))
    assert len(merged) == 5 and merged.info.seed is None and merged.info.solver == "made up; other"
    for number, case in enumerate([0, 1, 0, 1, 2]):
        assert_equal(merged.trajectory(number), make_trajectory(case))
    with h5py.File(merged.path, locking=False) as file:
        wanted = expected([0, 1, 0, 1, 2])
        np.testing.assert_allclose(file["stats/vel_std"][()], wanted["velocity_std"], rtol=1e-9)
    assert [each.name for each in (tmp_path / "sub").iterdir()] == ["all.h5"]


def test_shards_make_the_whole_sample_again(tmp_path):
    parts = []
    for index in (1, 2):
        path = tmp_path / f"part{index}.h5"
        with ParticleWriter(path, make_info(extra={"shard": f"{index}/2"}), 3 - (index - 1)) as writer:
            for number, case in enumerate(range(index - 1, 5, 2)):
                writer.write(number, make_trajectory(case))
            parts.append(writer.finish())
    whole = tmp_path / "whole.h5"
    with ParticleWriter(whole, make_info(extra={"shard": "1/1"}), 5) as writer:
        for case in range(5):
            writer.write(case, make_trajectory(case))
        writer.finish()
    merged = merge_particle_files(tmp_path / "all.h5", parts[::-1])
    assert merged.read_bytes() == whole.read_bytes()
    with pytest.raises(DataError, match="shard 2/2 of the sample"):
        merge_particle_files(tmp_path / "b.h5", parts[:1])


def test_merge_refuses(tmp_path):
    a, b = write_file(tmp_path / "a.h5"), write_file(tmp_path / "b.h5", interval=0.02)
    with pytest.raises(DataError, match=r"differ in interval: 0.01 and 0.02; merge files of one set"):
        merge_particle_files(tmp_path / "all.h5", [a, b])
    with pytest.raises(DataError, match="given twice"):
        merge_particle_files(tmp_path / "all.h5", [a, a])
    with pytest.raises(DataError, match="one of the files to merge"):
        merge_particle_files(a, [a])
    with pytest.raises(DataError, match="exists already"):
        merge_particle_files(b, [a])
    with pytest.raises(DataError, match="at least one file"):
        merge_particle_files(tmp_path / "all.h5", [])
    assert len(ParticleFile(merge_particle_files(b, [a], overwrite=True))) == 3
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.h5", "b.h5"]
