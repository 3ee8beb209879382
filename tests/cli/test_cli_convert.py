"""``sciml convert``, and what ``info`` and ``merge`` make of particle files."""

import json
import os
import pickle
from pathlib import Path

import meshio
import numpy as np
import pytest
import torch
from cli_helpers import invoke

from sciml.datasets.particles import ParticleFile, ParticleInfo, ParticleTrajectory, ParticleWriter

rng = np.random.default_rng(0)
POSITIONS = (rng.uniform(0.2, 0.8, (30, 2)) + 1e-3 * np.arange(12)[:, None, None] ** 1.5).astype(np.float32)


def particle_file(path="water.h5", cases=2, **changes):
    values = dict(
        problem="water",
        dim=2,
        interval=0.01,
        bounds=((0, 1), (0, 1)),
        gravity=(0, -9.8),
        kinds=("water", "wall"),
        parameters={"viscosity": "Pa s"},
        case_parameters={"speed": "m/s"},
        solver="made up",
        seed=7,
    )
    with ParticleWriter(path, ParticleInfo(**(values | changes)), cases) as writer:
        for case in range(cases):
            position = POSITIONS[: 12 - case, case:]
            more = dict(parameters=np.ones((30 - case, 1)), subset="drop", case_parameters={"speed": 1 + case})
            writer.write(case, ParticleTrajectory(position, **more))
        return writer.finish()


@pytest.fixture
def gns():
    """A directory as of a GNS data set, in the (temporary) working directory."""
    os.mkdir("WaterDrop")
    for split in ("train", "test"):
        item = np.empty(2, dtype=object)
        item[:] = [POSITIONS, np.full(30, 5)]
        np.savez(f"WaterDrop/{split}.npz", simulation_0=item)
    metadata = {"bounds": [[0, 1], [0, 1]], "dim": 2, "dt": 0.0025, "sequence_length": 12}
    with open("WaterDrop/metadata.json", "w") as file:
        json.dump(metadata, file)
    return "WaterDrop"


def test_gns_in_and_out(gns):
    refused = invoke("convert", gns, "--out", "water.h5")
    assert refused.exit_code == 1 and "--allow-pickle" in refused.stderr and not os.path.exists("water.h5")
    result = invoke("convert", gns, "-o", "water.h5", "--allow-pickle", "--gravity", "0,-9.8", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["cases"] == 2 and "wrote water.h5" in result.stderr
    file = ParticleFile("water.h5")
    assert file.subsets == ("train", "test") and file.info.gravity == (0, -9.8) and file.info.problem == "WaterDrop"
    assert np.array_equal(file.positions(1), POSITIONS)

    result = invoke("convert", "water.h5", "--out", "back", "--to", "gns", "--json")
    assert result.exit_code == 0, result.stderr
    assert sorted(os.listdir("back")) == ["metadata.json", "test.npz", "train.npz"]
    assert json.loads(Path("back/metadata.json").read_text())["default_connectivity_radius"] > 0
    assert invoke("convert", "back", "--out", "again.h5", "--allow-pickle").exit_code == 0
    assert np.array_equal(ParticleFile("again.h5").positions(0), POSITIONS)
    one = invoke("convert", "water.h5", "--out", "one", "--to", "gns", "--case", "1")
    assert one.exit_code == 0 and sorted(os.listdir("one")) == ["metadata.json", "test.npz"]


def test_vtk_out_and_in():
    particle_file()
    result = invoke("convert", "water.h5", "--case", "1", "--out", "vtk", "--to", "vtk")
    assert result.exit_code == 0, result.stderr
    assert "wrote vtk/water_case1.pvd and its 11 frames" in result.stderr
    mesh = meshio.read("vtk/water_case1_000010.vtu")
    assert np.array_equal(mesh.points[:, :2], POSITIONS[10, 1:])
    result = invoke("convert", "vtk", "--out", "mine.h5", "--kind", "honey", "--bounds", "0,1,0,1", "--problem", "pot")
    assert result.exit_code == 0, result.stderr
    assert "gravity: not known (--gravity to say them)" in result.stderr and "bounds:" not in result.stderr
    file = ParticleFile("mine.h5")
    assert file.info.kinds == ("honey",) and file.info.problem == "pot" and file.info.interval == pytest.approx(0.01)
    assert np.array_equal(file.positions(0), POSITIONS[:11, 1:])


def test_bounds_from_the_particles_are_said():
    np.savez("mine.npz", a=POSITIONS)
    result = invoke("convert", "mine.npz", "--out", "mine.h5", "--interval", "0.02")
    assert result.exit_code == 0 and "bounds: the particles' box and 5% around it" in result.stderr
    assert ParticleFile("mine.h5").info.interval == 0.02


class Creates:
    def __reduce__(self):
        return os.system, ("touch created",)


def test_malicious_files_do_nothing():
    torch.save({"position": Creates()}, "rollout.pt")
    item = np.empty(2, dtype=object)
    item[:] = [POSITIONS, Creates()]
    np.savez("train.npz", simulation_0=item)
    with open("train.obj", "wb") as file:
        pickle.dump({"position": [Creates()]}, file)
    for path in ("rollout.pt", "train.npz", "train.obj"):
        result = invoke("convert", path, "--out", "a.h5", "--interval", "1", "--allow-pickle")
        assert result.exit_code == 1 and "asks for posix.system" in result.stderr, path
        result = invoke("convert", path, "--out", "a.h5", "--interval", "1")
        assert result.exit_code == 1 and "--allow-pickle" in result.stderr, path
    assert sorted(os.listdir()) == ["rollout.pt", "train.npz", "train.obj"]


def test_mistakes(cavity_file):
    particle_file()
    np.savez("mine.npz", a=POSITIONS)
    cases = {
        ("none", "--out", "a.h5"): (1, "none is not there; expected one of"),
        ("mine.npz", "--out", "a.h5"): (2, "give interval (--interval S)"),
        ("mine.npz", "--out", "a"): (2, "expected a file name that ends in .h5"),
        ("mine.npz", "--out", "a.h5", "--bounds", "0,1,0"): (2, "low and high of each axis"),
        ("mine.npz", "--out", "a.h5", "--gravity", "down"): (2, "--gravity is 'down'; expected numbers"),
        ("mine.npz", "--out", "a.h5", "--interval", "1", "--bounds", "0,1"): (2, "bounds must have 2 entries"),
        ("mine.npz", "--out", "a.h5", "--interval", "0"): (1, "interval must be a positive number"),
        ("mine.npz", "--out", "a.h5", "--interval", "1", "--bounds", "0,.5,0,1"): (1, "give wider bounds"),
        ("mine.npz", "--out", "a.h5", "--case", "0"): (2, "--case goes with --to"),
        ("water.h5", "--out", "a.h5"): (2, "is a particle file already"),
        ("water.h5", "--out", "a", "--to", "vtk", "--case", "2"): (1, "has the cases 0 to 1, got --case 2"),
        ("water.h5", "--out", "a", "--to", "vtk", "--allow-pickle"): (2, "--allow-pickle is for reading"),
        ("mine.npz", "--out", "a", "--to", "vtk"): (1, "not an HDF5 file"),
        (cavity_file, "--out", "a", "--to", "vtk"): (1, "holds fields on a grid"),
        (cavity_file, "--out", "a.h5"): (1, "of no known format"),
    }
    for arguments, (code, message) in cases.items():
        result = invoke("convert", *arguments)
        assert result.exit_code == code and message in result.stderr, (arguments, result.stderr)
        assert not os.path.exists("a.h5") and result.stdout == ""


def test_info():
    particle_file()
    content = json.loads(invoke("info", "water.h5", "--json").stdout)
    assert content["kind"] == "particles" and content["cases"] == 2 and content["dim"] == 2
    assert (content["particles"], content["frames"]) == ("29 to 30", "11 to 12")
    assert (content["interval"], content["bounds"]) == ("0.01 s", "0 to 1 x 0 to 1 m")
    assert content["kinds"] == ["water", "wall"] and content["subsets"] == {"drop": 2}
    assert content["parameters of particles"] == {"viscosity": "Pa s"}
    assert content["parameters"] == {"speed": "1 to 2 m/s"}
    steps = [np.diff(POSITIONS[: 12 - case].astype(float), axis=0) for case in range(2)]
    speeds = [np.sqrt((step[:, case:] ** 2).sum(2).mean()) / 0.01 for case, step in enumerate(steps)]
    low, _, high, _ = content["speed (rms)"].split()
    assert (float(low), float(high)) == pytest.approx((min(speeds), max(speeds)), rel=1e-3)
    assert float(content["fastest component"].split()[0]) == pytest.approx(np.abs(steps[0]).max() / 0.01, rel=1e-3)
    said = invoke("info", "water.h5").stdout
    assert "viscosity  Pa s" in said and "gravity            0, -9.8 m/s^2" in said
    with open("water.h5", "r+b") as file:
        file.truncate(3000)
    result = invoke("info", "water.h5")
    assert result.exit_code == 1 and "water.h5" in result.stderr


def test_merge(cavity_file):
    particle_file("a.h5"), particle_file("b.h5", 1), particle_file("c.h5", interval=0.02)
    result = invoke("merge", "all.h5", "a.h5", "b.h5", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["cases"] == 3 and json.loads(result.stdout)["parts"] == []
    assert "3 cases of 2 files; look at it" in result.stderr
    assert np.array_equal(ParticleFile("all.h5").positions(2), POSITIONS)
    result = invoke("merge", "d.h5", "a.h5", "c.h5")
    assert result.exit_code == 1 and "differ in interval: 0.01 and 0.02" in result.stderr
    result = invoke("merge", "d.h5", cavity_file, "c.h5")
    assert result.exit_code == 1 and "holds fields on a grid" in result.stderr
    assert "exists already" in invoke("merge", "all.h5", "a.h5").stderr
    assert invoke("merge", "all.h5", "a.h5", "--overwrite").exit_code == 0 and len(ParticleFile("all.h5")) == 2
