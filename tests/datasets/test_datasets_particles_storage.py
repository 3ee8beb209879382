"""Particle files: same bits, windows without the rest, continuing after a kill, and errors that say what to do."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch
from datasets_helpers import write_file as write_grid_file
from datasets_particles_helpers import assert_equal, make_info, make_trajectory, write_file

from sciml.datasets import DatasetFile
from sciml.datasets.particles import ParticleFile, ParticleInfo, ParticleTrajectory, ParticleWriter, is_particle_file
from sciml.datasets.particles import writer as writer_module
from sciml.errors import DataError


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_file(tmp_path_factory.mktemp("particles") / "a.h5")


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_round_trip_is_bit_equal(tmp_path, dim):
    file = ParticleFile(write_file(tmp_path / "a.h5", dim=dim))
    assert file.info == make_info(dim) and ParticleInfo.from_json(file.info.to_json()) == file.info
    assert list(file.info.parameters) == ["viscosity", "density"]  # the order of the columns
    assert (len(file), file.n_cases, file.subsets) == (3, 3, ("drop", "dam", "drop"))
    assert file.case_parameters["speed"].tolist() == [0.0, 0.5, 1.0]
    for case in range(3):
        assert_equal(file.trajectory(case), make_trajectory(case, dim))
        assert (file.frames(case), file.count(case)) == (17 + case, 20 + 3 * case)
    assert_equal(file.trajectory(-1), make_trajectory(2, dim))
    assert not (tmp_path / "a.h5.partial").exists()


def test_optional_arrays_and_no_parameters(tmp_path):
    info = make_info(parameters={}, case_parameters={})
    bare = ParticleTrajectory(torch.rand(4, 5, 2).double())
    assert bare.position.dtype == torch.float32 and bare.velocity is None and bare.parameters.shape == (5, 0)
    assert bare.mass.tolist() == [1.0] * 5 and not bare.fixed.any() and bare.kind.dtype == torch.int64
    with ParticleWriter(tmp_path / "a.h5", info, 1) as writer:
        writer.write(0, bare)
        writer.finish()
    file = ParticleFile(tmp_path / "a.h5")
    assert_equal(file.trajectory(0), bare)
    assert file.velocities(0) is None


def test_windows(path):
    file, whole = ParticleFile(path), make_trajectory(1)
    assert torch.equal(file.positions(1), whole.position)
    assert torch.equal(file.positions(1, 5, 12), whole.position[5:12])
    assert torch.equal(file.positions(1, 5, 12, [7, 2]), whole.position[5:12, [7, 2]])
    assert torch.equal(file.velocities(1, 3, 4, torch.tensor([0])), whole.velocity[3:4, [0]])
    for wrong in ((-1, 3), (5, 5), (0, 19)):
        with pytest.raises(DataError, match="frames 0 to 17"):
            file.positions(1, *wrong)
    with pytest.raises(DataError, match="particles 0 to 22"):
        file.positions(1, 0, 3, [23])
    with pytest.raises(DataError, match="cases 0 to 2"):
        file.trajectory(3)


def test_a_window_reads_only_its_chunks(tmp_path):
    """The last chunk of the positions is destroyed: windows before it are read, those in it are refused."""
    path = write_file(tmp_path / "a.h5", cases=1)
    with h5py.File(path) as raw:
        dataset = raw["traj/000000/position"]
        assert dataset.chunks == (8, 20, 2) and dataset.compression == "gzip" and dataset.shuffle
        chunk = dataset.id.get_chunk_info(2)
    with open(path, "r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    file = ParticleFile(path)
    assert torch.equal(file.positions(0, 0, 16), make_trajectory(0).position[:16])
    with pytest.raises(DataError, match=r"case 0 of .* is damaged"):
        file.positions(0, 10, 17)
    with pytest.raises(DataError, match=r"case 0 of .* is damaged"):
        file.trajectory(0)


def test_pickled_and_forked(path):
    file = ParticleFile(path)
    expected = file.positions(2, 1, 8)
    assert torch.equal(pickle.loads(pickle.dumps(file)).positions(2, 1, 8), expected)
    child = os.fork()
    if child == 0:  # the parent's handle is open here
        os._exit(0 if torch.equal(file.positions(2, 1, 8), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_header_for_other_readers(path):
    with h5py.File(path) as file:
        assert file.attrs["format"] == "sciml-lagrangian" and file.attrs["version"] == 1 and file.attrs["dim"] == 2
        assert file.attrs["bounds"].tolist() == [[0, 1], [0, 2]] and file.attrs["dt_frame"] == 0.01
        assert list(file.attrs["kinds"]) == ["water", "wall"]
        assert file["stats"].attrs["convention"] == "frame difference, dt=1"
        assert set(file["stats"]) == {f"{q}_{m}" for q in ("vel", "acc", "param") for m in ("mean", "std")}
        assert file["traj/000001/position"].dtype == np.float32 and file["traj/000001"].attrs["n_frames"] == 18


# ---------------------------------------------------------------------------------------------------------- writing


def test_same_bits_in_any_order(tmp_path, path):
    with ParticleWriter(tmp_path / "b.h5", make_info(), 3) as writer:
        writer.write(2, make_trajectory(2))
        writer.write(0, make_trajectory(1))  # replaced below
        assert writer.missing() == [1]
    with ParticleWriter(tmp_path / "b.h5", make_info(), 3) as writer:
        assert writer.missing() == [1]
        with pytest.raises(DataError, match=r"1 of 3 cases are missing \(first: \[1\]\)"):
            writer.finish()
        writer.write(1, make_trajectory(1))
        writer.write(0, make_trajectory(0))
        writer.finish()
    assert (tmp_path / "b.h5").read_bytes() == path.read_bytes()


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from datasets_particles_helpers import make_info, make_trajectory
from sciml.datasets.particles import ParticleWriter
with ParticleWriter({path!r}, make_info(), 12) as writer:
    for case in writer.missing():
        writer.write(case, make_trajectory(case))
        print(case, flush=True)
    writer.finish()
"""


@pytest.mark.parametrize("after", [4, 12])
def test_killed_writing_continues_to_the_same_bits(tmp_path, after):
    whole = write_file(tmp_path / "whole.h5", cases=12)
    target = tmp_path / "killed.h5"
    code = KILLED.format(tests=os.path.dirname(__file__), path=str(target))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(after):
            process.stdout.readline()
        time.sleep(0.002)  # in the middle of the next case, or of finishing
        process.send_signal(signal.SIGKILL)
    with ParticleWriter(target, make_info(), 12, overwrite=True) as writer:
        if not target.exists():
            assert len(writer.missing()) <= 12 - after
        for case in writer.missing():
            writer.write(case, make_trajectory(case))
        writer.finish()
    assert target.read_bytes() == whole.read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["killed.h5", "whole.h5"]


@pytest.mark.parametrize("at", ["description", "case", "join"])
def test_unfinished_pieces_do_no_harm(tmp_path, path, at):
    target, partial = tmp_path / "a.h5", tmp_path / "a.h5.partial"
    if at == "description":
        partial.mkdir()
        (partial / "description.json.new").write_text("{")
    else:
        with ParticleWriter(target, make_info(), 3) as writer:
            writer.write(0, make_trajectory(0))
        (partial / {"case": "000001.h5.new", "join": "joined.new"}[at]).write_bytes(b"half")
    write_file(target)
    assert target.read_bytes() == path.read_bytes() and not partial.exists()


def test_another_data_set_is_not_continued(tmp_path):
    target = tmp_path / "a.h5"
    writer = ParticleWriter(target, make_info(), 3)
    with pytest.raises(DataError, match="being written by another process"):
        ParticleWriter(target, make_info(), 3)
    writer.close()
    with pytest.raises(DataError, match=r"differs from this one: seed: 3 and 4"):
        ParticleWriter(target, make_info(seed=4), 3)
    with pytest.raises(DataError, match=r"cases: 3 and 5"):
        ParticleWriter(target, make_info(), 5)
    (tmp_path / "a.h5.partial" / "description.json").write_text("{")
    with pytest.raises(DataError, match=r"description.json is damaged .* remove .*a.h5.partial to start again"):
        ParticleWriter(target, make_info(), 3)
    with pytest.raises(DataError, match="is closed"):
        writer.missing()


def test_what_is_there_already(tmp_path, path):
    with pytest.raises(DataError, match="exists already"):
        ParticleWriter(path, make_info(), 3)
    (tmp_path / "b.h5.partial").mkdir()
    (tmp_path / "b.h5.partial" / "my thesis.txt").touch()
    with pytest.raises(DataError, match=r"not an unfinished particle file, it holds \['my thesis.txt'\]"):
        ParticleWriter(tmp_path / "b.h5", make_info(), 3)
    (tmp_path / "c.h5.partial").touch()
    with pytest.raises(DataError, match=r"cannot create .*c.h5.partial"):
        ParticleWriter(tmp_path / "c.h5", make_info(), 3)
    with pytest.raises(DataError, match="at least 1 case"):
        ParticleWriter(tmp_path / "d.h5", make_info(), 0)


def test_full_disk(tmp_path, monkeypatch):
    with ParticleWriter(tmp_path / "a.h5", make_info(), 1) as writer:

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(writer_module, "pwrite", full)
        with pytest.raises(DataError, match=r"cannot write case 0 .*No space left on device; free space"):
            writer.write(0, make_trajectory(0))
        monkeypatch.undo()
        writer.write(0, make_trajectory(0))
        monkeypatch.setattr(writer_module, "reserve", full)
        with pytest.raises(DataError, match=r"cannot finish .*No space left"):
            writer.finish()
        monkeypatch.undo()
        assert writer.missing() == [] and writer.finish() == tmp_path / "a.h5"


def test_damaged_case_of_an_unfinished_file(tmp_path):
    with ParticleWriter(tmp_path / "a.h5", make_info(), 1) as writer:
        writer.write(0, make_trajectory(0))
        (tmp_path / "a.h5.partial" / "000000.h5").write_bytes(b"nothing")
        with pytest.raises(DataError, match=r"000000.h5 is damaged .*; remove it, write its case again"):
            writer.finish()


# ------------------------------------------------------------------------------------------------------- bad contents


def changed(**changes):
    trajectory = make_trajectory(0)
    values = {name: getattr(trajectory, name) for name in trajectory.__dataclass_fields__}
    return ParticleTrajectory(**(values | changes))


def with_value(tensor, index, value):
    tensor = tensor.clone()
    tensor[index] = value
    return tensor


BASE = make_trajectory(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"position": with_value(BASE.position, (4, 7, 1), torch.nan)},
            "NaN or infinity in 'position': frame 4, parti",
        ),
        (
            {"velocity": with_value(BASE.velocity, (0, 2, 0), torch.inf)},
            "NaN or infinity in 'velocity': frame 0, parti",
        ),
        ({"parameters": with_value(BASE.parameters, (5, 0), torch.nan)}, "NaN or infinity in 'parameters': particle 5"),
        ({"position": BASE.position[:, :0]}, "an empty scene has nothing to learn from"),
        ({"position": BASE.position[0]}, r"position must have the shape \(frames, particles, dim\), got \(20, 2\)"),
        ({"position": "words"}, "position must be numbers, got str"),
        ({"kind": [0, 1]}, "kind must have one value for each of 20 particles"),
        ({"kind": [0.5] * 20}, "kind must be whole numbers, got 0.5"),
        ({"fixed": [2] * 20}, "fixed must be true or false"),
        ({"mass": [-1.0] * 20}, "mass must not be negative; particle 0 has"),
        ({"parameters": BASE.parameters[:5]}, r"parameters must have the shape \(20, number of parameters\)"),
        ({"velocity": BASE.velocity[:3]}, "velocity must have the shape of position"),
    ],
)
def test_trajectory_refuses(changes, message):
    with pytest.raises(DataError, match=message):
        changed(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position": with_value(BASE.position, (3, 9, 0), 1.0002)}, r"1 of 20 particles leave .*frame 3: particle 9"),
        ({"position": BASE.position * 100}, r"leave the bounds .* reach from \(.*\) to \(.*\): give wider bounds"),
        ({"kind": [2] * 20}, r"index into the kinds \['water', 'wall'\], got 2 to 2"),
        ({"kind": [-1] * 20}, "got -1 to -1"),
        ({"parameters": BASE.parameters[:, :1]}, r"parameters \['viscosity', 'density'\], one a column, got 1"),
        ({"case_parameters": {}}, "case parameter 'speed' is missing"),
        ({"case_parameters": {"speed": 1, "sped": 2}}, "case parameter 'sped' is not in .* did you mean 'speed'"),
        ({"case_parameters": {"speed": np.nan}}, "case parameters must be finite"),
    ],
)
def test_writer_refuses(tmp_path, changes, message):
    with ParticleWriter(tmp_path / "a.h5", make_info(), 2) as writer:
        with pytest.raises(DataError, match="case 1 is not written: .*" + message):
            writer.write(1, changed(**changes))
        assert writer.missing() == [0, 1]


def test_writer_refuses_other_dimension_and_case(tmp_path):
    with ParticleWriter(tmp_path / "a.h5", make_info(3), 1) as writer:
        with pytest.raises(DataError, match="positions have 2 components, the 'water' file is 3-D"):
            writer.write(0, make_trajectory(0))
        with pytest.raises(DataError, match="case must be from 0 to 0, got 1"):
            writer.write(1, make_trajectory(0, 3))


def test_rounding_at_the_wall_is_no_error(tmp_path):
    with ParticleWriter(tmp_path / "a.h5", make_info(), 1) as writer:
        writer.write(0, changed(position=with_value(BASE.position, (3, 9, 0), 1.00005)))
        assert writer.missing() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 4}, "dim must be 1, 2 or 3"),
        ({"interval": 0.0}, "interval must be a positive number"),
        ({"bounds": ((0, 1), (1, 1))}, "low < high"),
        ({"bounds": (1, 2)}, "must be numbers"),
        ({"gravity": (0,)}, "gravity must be 2 finite numbers"),
        ({"kinds": ()}, "kinds must be 1 to 127 distinct names"),
        ({"kinds": ("a", "a")}, "distinct"),
    ],
)
def test_info_refuses(changes, message):
    with pytest.raises(DataError, match=message):
        make_info(**changes)


# -------------------------------------------------------------------------------------------------------- bad files


def edited(path, tmp_path, edit):
    copy = tmp_path / "edited.h5"
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r+") as file:
        edit(file)
    return copy


def replace(file, name, values):
    del file[name]
    file[name] = values


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda f: f.__delitem__("traj/000001/mass"), "/traj/000001/mass is missing"),
        (lambda f: f.__delitem__("traj/000001/position"), "damaged: .*position"),
        (lambda f: f.__delitem__("traj/000001"), "numbered from 000000 without a gap"),
        (lambda f: f.__delitem__("traj"), "damaged: .*traj"),
        (lambda f: f.attrs.__delitem__("info"), "damaged: .*info"),
        (lambda f: f.attrs.__setitem__("info", "{}"), "description of the particles is incomplete"),
        (lambda f: f.attrs.__setitem__("version", 2), "version 2 of sciml-lagrangian, this sciml reads 1"),
        (lambda f: f["traj/000000"].attrs.__delitem__("subset"), "damaged: .*subset"),
        (lambda f: f["traj/000000"].attrs.__setitem__("case_parameters", "{}"), "damaged: speed"),
        (lambda f: replace(f, "traj/000000/position", np.zeros((4, 5, 3), "f4")), r"frames, particles, 2\), has"),
        (lambda f: replace(f, "traj/000000/kinematic", np.zeros(3, bool)), r"kinematic must hold numbers of shape"),
        (lambda f: replace(f, "traj/000000/mass", np.array([b"x"] * 20)), "mass must hold numbers"),
    ],
)
def test_damaged_structures(path, tmp_path, edit, message):
    with pytest.raises(DataError, match=message):
        ParticleFile(edited(path, tmp_path, edit))


def test_damaged_values(path, tmp_path):
    def spoil(file):
        file["traj/000001/position"][3, 4, 1] = np.nan
        file["traj/000002/position"][3, 4, 1] = 7.0

    file = ParticleFile(edited(path, tmp_path, spoil))
    file.trajectory(0)
    with pytest.raises(DataError, match=r"case 1 of .* NaN or infinity in 'position': frame 3, particle 4"):
        file.trajectory(1)
    with pytest.raises(DataError, match=r"case 2 of .* 1 of 26 particles leave the bounds"):
        file.trajectory(2)


def test_files_that_are_none(path, tmp_path):
    assert is_particle_file(path)
    with pytest.raises(DataError, match=r"no particle file .*none.h5; check the path"):
        ParticleFile(tmp_path / "none.h5")
    assert not is_particle_file(tmp_path / "none.h5")

    short = tmp_path / "short.h5"
    short.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="is cut short"):
        ParticleFile(short)

    text = tmp_path / "text.h5"
    text.write_text("position")
    with pytest.raises(DataError, match=r"is not an HDF5 file; convert other .* sciml convert"):
        ParticleFile(text)
    assert not is_particle_file(text)

    grid = write_grid_file(tmp_path / "grid.h5")
    with pytest.raises(DataError, match=r"holds fields on a grid \(open it with DatasetFile\)"):
        ParticleFile(grid)
    assert not is_particle_file(grid)
    with pytest.raises(DataError, match=r"holds particles \(open it with .*ParticleFile\)"):
        DatasetFile(path)

    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = 1
    with pytest.raises(DataError, match=r"no particle file: its top level holds \['x'\]"):
        ParticleFile(other)

    with ParticleWriter(tmp_path / "half.h5", make_info(), 1):
        pass
    with pytest.raises(DataError, match=r"half.h5.partial is unfinished: run what writes it again"):
        ParticleFile(tmp_path / "half.h5")


def test_subsampled():
    part = BASE.subsampled(torch.tensor([4, 1]))
    assert torch.equal(part.position, BASE.position[:, [4, 1]]) and torch.equal(part.velocity, BASE.velocity[:, [4, 1]])
    assert torch.equal(part.parameters, BASE.parameters[[4, 1]]) and part.fixed.tolist() == [False, True]
    assert part.case_parameters == BASE.case_parameters
