"""Pictures of particle runs and particle data files."""

import meshio
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from PIL import Image, ImageSequence
from plotting_particles import drop, particle_arrays, write_particle_run

from sciml.errors import DataError
from sciml.plotting import animate_particles, case_figure, particle_errors, particle_frames, run_figures
from sciml.plotting.particles.clouds import Cloud, check_scene, displacement, rollout_remarks
from sciml.plotting.particles.colours import FIXED, KINDS, colouring_of
from sciml.plotting.particles.panel import spacing
from sciml.plotting.particles.predictions import OF_A_CASE, has_particles, read_particles
from sciml.plotting.particles.run import clouds_of
from sciml.plotting.particles.view import view_of
from sciml.plotting.particles.vtk import particle_series


def is_picture(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L")).std() > 8


def read_first(tmp_path, **options):
    """Clouds, scene and case of a synthetic run."""
    write_particle_run(tmp_path, **options)
    file = read_particles(tmp_path / "predictions.npz")
    case = file.case(0)
    return clouds_of(case, file.scene), file.scene, case


def panels_of(figure):
    """Axes with discs, row by row."""
    return [axes for axes in figure.axes if any(isinstance(each, PathCollection) for each in axes.collections)]


def hex_colours(axes):
    return {to_hex(colour) for colour in axes.collections[0].get_facecolors()}


class TestRun:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"dim": 3, "walls": 20, "gravity": None, "frames": 8},
            {"cases": 2, "kinds": ("water", "sand"), "particles": 50, "sides": (4.0, 1.0), "frames": 8},
        ],
        ids=["2D", "3D", "cases and kinds in a long box"],
    )
    def test_all_pictures(self, tmp_path, options):
        run = write_particle_run(tmp_path / "run", **options)
        written = run_figures(run)
        cases = [f"ball_case{3 + number}" for number in range(options.get("cases", 1))]
        drawn = [name for case in cases for name in (f"rollout_{case}.gif", f"frames_{case}.png")]
        assert [path.name for path in written] == ["training.png", "rollout_error.png", *drawn]
        assert all(path.parent == run / "figures" and is_picture(path) for path in written)

    def test_animation_moves_and_skips_frames(self, tmp_path, monkeypatch):
        monkeypatch.setattr("sciml.plotting.particles.animation.MOST_FRAMES", 6)
        clouds, scene, _ = read_first(tmp_path, particles=200)
        path = animate_particles(clouds, scene, path=tmp_path / "rollout.gif")
        assert path.stat().st_size < 2e5
        with Image.open(path) as gif:
            assert gif.n_frames == 6
            frames = [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(gif)]
        assert (frames[0][0, 0] == 255).all()  # the paper stays white in 256 colours
        assert np.abs(frames[0] - frames[3]).mean() > 0.5

    def test_without_predictions(self, tmp_path):
        run = write_particle_run(tmp_path / "run")
        (run / "predictions.npz").unlink()
        (run / "surrogate").mkdir()
        (run / "surrogate" / "surrogate.json").write_text("{}")  # not taken for that of a cavity
        assert [path.name for path in run_figures(run)] == ["training.png"]

    @pytest.mark.parametrize(
        "key",
        ["bounds", "interval", "subsets", "curve_constant_velocity", *(f"{k}_0" for k in OF_A_CASE if k != "truth")],
    )
    def test_missing_keys(self, tmp_path, key):
        run = write_particle_run(tmp_path / "run", **{key: None})
        with pytest.raises(DataError, match=rf"lacks .*{key}.*; run 'sciml evaluate'"):
            run_figures(run)

    def test_missing_case(self, tmp_path):
        path = write_particle_run(tmp_path / "run", cases=2, truth_1=None) / "predictions.npz"
        with pytest.raises(DataError, match="lacks truth_1;"):
            read_particles(path)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"dense_0": np.zeros((16, 399, 2))}, r"dense has shape \(16, 399, 2\); expected \(16, 400, 2\)"),
            ({"truth_0": np.zeros((16, 400, 3))}, r"expected \(frames, particles, 2\)"),
            ({"truth_0": np.full((16, 400, 2), np.nan)}, "the truth is not finite"),
            ({"sparse_index_0": np.arange(80) + 350}, "sparse_index must be whole numbers"),
            ({"kind_0": np.full(400, 1)}, r"kind must be whole numbers \(n,\) from 0 to 0"),
            ({"bounds": np.array([[0.0, 1.0], [1.0, 1.0]])}, "low < high"),
            ({"gravity": np.array([0.0, 0.0, -9.81])}, "gravity is .* expected 2 finite numbers"),
            ({"interval": np.array(0.0)}, "positive number of seconds"),
            ({"subsets": np.array(["a", "b"])}, "1 cases and 2 subsets"),
            ({"curve_dense": np.zeros(3)}, r"dense \(3,\)"),
        ],
        ids=lambda value: "" if isinstance(value, dict) else value[:12],
    )
    def test_wrong_arrays(self, tmp_path, wrong, message):
        run = write_particle_run(tmp_path / "run", **wrong)
        with pytest.raises(DataError, match=message):
            run_figures(run)

    def test_damaged(self, tmp_path):
        run = write_particle_run(tmp_path / "run")
        data = (run / "predictions.npz").read_bytes()
        (run / "predictions.npz").write_bytes(data[: len(data) // 2])
        assert not has_particles(run / "predictions.npz")
        with pytest.raises(DataError, match="cannot read"):
            run_figures(run)


class TestFrames:
    @pytest.mark.parametrize("dim", [2, 3])
    def test_panels(self, tmp_path, dim):
        clouds, scene, case = read_first(tmp_path, dim=dim, particles=300)
        assert [cloud.name for cloud in clouds] == ["truth", "sparse", "dense"] and case.given == 6
        panels = panels_of(particle_frames(clouds, scene, start=5))
        assert len(panels) == 15 and all(axes.get_aspect() == 1.0 for axes in panels)
        assert [len(axes.collections[0].get_offsets()) for axes in panels] == [300] * 5 + [60] * 5 + [300] * 5
        heads = [axes.get_title(loc="left") for axes in panels]
        assert heads[:5] == [f"t = {0.02 * frame:.3g} s" for frame in (5, 7, 10, 13, 15)]
        assert heads[5] == heads[10] == "given"
        truth, dense = case.truth.astype(float), case.dense.astype(float)
        way = np.sqrt(np.mean(np.sum((truth[6:] - truth[5]) ** 2, 2)))
        error = np.sqrt(np.mean(np.sum((dense[15] - truth[15]) ** 2, 1))) / way
        assert heads[14].startswith(f"error {100 * error:.3g} %")

    def test_sparse_is_dense(self, tmp_path):
        clouds, scene, _ = read_first(tmp_path, keep=1.0)
        assert [cloud.name for cloud in clouds] == ["truth", "prediction"]
        assert len(panels_of(particle_frames(clouds, scene))) == 10

    def test_a_rollout_that_diverged(self, tmp_path):
        dense = particle_arrays()["dense_0"]
        index = particle_arrays()["sparse_index_0"]
        dense[8:] *= 1e30
        dense[12:, 100:] = np.nan
        wrong = {
            "dense_0": dense,
            "sparse_0": dense[:, index],
            "curve_dense": np.where(np.arange(16) < 12, 0.1, np.nan),
        }
        clouds, scene, _ = read_first(tmp_path, **wrong)
        figure = particle_frames(clouds, scene, start=5)
        heads = [axes.get_title(loc="left") for axes in figure.axes]
        assert "error > 999 %" in heads and "300 of 400 not finite" in heads
        assert is_picture(animate_particles(clouds, scene, path=tmp_path / "rollout.gif"))

    def test_fixed_points_are_grey(self, tmp_path):
        clouds, scene, _ = read_first(tmp_path, walls=30, kinds=("water", "sand", "wall"))
        kind = np.where(clouds[0].fixed, 2, np.arange(400) % 2)
        truth = Cloud("truth", clouds[0].position, kind, clouds[0].fixed)
        panels = panels_of(particle_frames([truth], scene))
        assert hex_colours(panels[0]) == {KINDS[0], KINDS[1], FIXED}

    def test_points_are_thinned(self):
        position, bounds = drop(particles=12_000, frames=3)
        scene = check_scene(bounds, 0.1, ["water"], where="here")
        cloud = Cloud("truth", position, np.zeros(12_000, int), np.zeros(12_000, bool))
        panels = panels_of(particle_frames([cloud], scene))
        assert all(len(axes.collections[0].get_offsets()) == 10_000 for axes in panels)

    def test_small_boxes_are_in_millimetres(self, tmp_path):
        clouds, scene, _ = read_first(tmp_path, sides=(0.05, 0.08))
        panels = panels_of(particle_frames(clouds, scene))
        assert panels[-1].get_xlabel() == "x (mm)" and panels[-1].get_xlim()[1] == pytest.approx(50, abs=5)


class TestColours:
    def scene(self, kinds=("water",)):
        return check_scene([[0, 1], [0, 1]], 0.5, kinds, where="here")

    def test_speed(self):
        position = np.zeros((3, 2, 2), np.float32)
        position[:, 0, 0] = (0, 0.25, 0.5)
        cloud = Cloud("truth", position, np.zeros(2, int), np.zeros(2, bool))
        assert cloud.speed(0, 0.5).tolist() == cloud.speed(2, 0.5).tolist() == [0.5, 0.0]
        assert colouring_of([cloud], self.scene(), [0, 2]).top == pytest.approx(0.5, rel=0.01)
        fast = Cloud("dense", 3 * position, cloud.kind, cloud.fixed)
        assert colouring_of([cloud, fast], self.scene(), [0, 2]).extend == "max"

    def test_by_kind_only_where_several_move(self):
        position = np.random.default_rng(0).random((3, 4, 2))
        kind, free = np.array([0, 0, 1, 1]), np.zeros(4, bool)
        scene = self.scene(("water", "wall"))
        assert colouring_of([Cloud("truth", position, kind, kind == 1)], scene, [1]).top is not None
        colouring = colouring_of([Cloud("truth", position, kind, free)], scene, [1])
        assert colouring.top is None and colouring.kinds == ((0, "water"), (1, "wall"))
        assert len(colouring.palette()) <= 224

    def test_nothing_moves(self):
        cloud = Cloud("truth", np.ones((3, 4, 2)), np.zeros(4, int), np.ones(4, bool))
        assert colouring_of([cloud], self.scene(), [0, 1]).top == 1.0


class TestView:
    def test_three_dimensions(self):
        for up, gravity in ((1, None), (2, [0, 0, -9.81]), (0, [-1.0, 0, 0])):
            view = view_of(check_scene([[0, 1]] * 3, 1.0, ["a"], gravity=gravity, where="here"))
            assert np.allclose(view.axes @ view.axes.T, np.eye(2)) and np.allclose(view.axes @ view.towards, 0)
            # Right-handed: right x up points to the eye.
            assert np.allclose(np.cross(*view.axes), view.towards)
            above = np.full(3, 0.5) + 0.4 * np.eye(3)[up]
            (middle, high), depth = view.project(np.stack([np.full(3, 0.5), above]))
            assert high[0] == pytest.approx(middle[0]) and high[1] > middle[1] and depth[1] < depth[0]

    def test_near_points_are_drawn_last(self, tmp_path):
        clouds, scene, _ = read_first(tmp_path, dim=3, particles=50)
        place, depth = view_of(scene).project(clouds[0].position[0].astype(float))
        shown = panels_of(particle_frames(clouds[:1], scene))[0].collections[0].get_offsets()
        assert np.allclose(shown, place[np.argsort(-depth, kind="stable")])

    def test_spacing(self):
        lattice = 0.1 * np.stack(np.meshgrid(*[np.arange(10.0)] * 2), -1).reshape(-1, 2)
        assert spacing(lattice) == pytest.approx(0.1)
        assert spacing(np.random.default_rng(0).random((4000, 2))) == pytest.approx(4000**-0.5, rel=0.2)
        assert spacing(np.zeros((1, 2))) == 0.0


class TestErrors:
    def test_displacement(self):
        truth = np.array([[[9.0, 9.0], [5.0, 5.0]], [[0.0, 0.0], [1.0, 1.0]], [[3.0, 4.0], [1.0, 1.0]]])
        assert displacement(truth, given=2) == pytest.approx(np.sqrt(12.5))
        # Of the displacement: the place of the origin does not matter.
        assert displacement(truth + 7, given=2) == pytest.approx(np.sqrt(12.5))
        assert np.isnan(displacement(truth[[1, 1, 1]], given=1))

    def test_remarks(self):
        truth = np.zeros((4, 3, 2))
        truth[:, :2, 0] = np.array([0.0, 0.1, 0.2, 0.4])[:, None]
        fixed, bounds = np.array([False, False, True]), np.array([[0.0, 1.0], [0.0, 1.0]])
        prediction = truth.copy()
        prediction[2, :2, 1] = 0.01
        prediction[2, 2] = 0.7  # a fixed point does not count
        prediction[3, 0] = (0.4, -0.2)
        words = rollout_remarks(prediction, truth, fixed, bounds, given=2)
        assert words == ["given", "given", "error 4.47 %", "error 63.2 %, 1 outside"]
        prediction[3, 0, 0] = np.inf
        assert rollout_remarks(prediction, truth, fixed, bounds, given=2)[3] == "1 of 3 not finite"

    def test_curves(self, tmp_path):
        curves = {name: np.r_[0, 0, np.linspace(0.01, 0.1, 8)] for name in ("dense", "constant_velocity")}
        curves["dense"][7:] = np.nan
        figure = particle_errors(curves, given=2, path=tmp_path / "curves.png")
        axes = figure.axes[0]
        labels = {line.get_label() for line in axes.lines}
        assert {"dense points (not finite from frame 7)", "constant velocity"} <= labels
        mark = [line for line in axes.lines if len(set(line.get_xdata())) == 1]
        assert mark[0].get_xdata()[0] == 1 and axes.get_yscale() == "log" and is_picture(tmp_path / "curves.png")

    def test_an_extrapolation_that_flies_away(self):
        figure = particle_errors({"dense": [0, 0.1, 0.2], "constant_acceleration": [0, 1.0, 1e20]})
        assert figure.axes[0].get_ylim()[1] == 100

    def test_wrong_curves(self):
        with pytest.raises(DataError, match="no curves"):
            particle_errors({})
        with pytest.raises(DataError, match="unknown curves constant"):
            particle_errors({"constant": [1.0]})
        with pytest.raises(DataError, match=r"must be \(frames,\) and not empty, got \(1, 1\)"):
            particle_errors({"dense": [[1.0]]})


@pytest.fixture(scope="module")
def particle_file(tmp_path_factory):
    from sciml.datasets.particles import ParticleInfo, ParticleTrajectory, ParticleWriter

    path = tmp_path_factory.mktemp("particles") / "drops.h5"
    position, bounds = drop(3, 200, 12)
    box = tuple((float(low), float(high)) for low, high in bounds)
    info = ParticleInfo("water", 3, 0.02, box, (0.0, 0.0, -9.81), ("water",))
    with ParticleWriter(path, info, 2) as writer:
        for case in writer.missing():
            writer.write(case, ParticleTrajectory(position, subset="ball"))
        writer.finish()
    return path


class TestDataFile:
    def test_case_figure(self, particle_file, tmp_path):
        written = case_figure(particle_file, 1, folder=tmp_path)
        assert [path.name for path in written] == ["drops_case1.png", "drops_case1.gif"]
        assert all(path.parent == tmp_path and is_picture(path) for path in written)
        with pytest.raises(DataError, match="has no case 2; its 2 cases"):
            case_figure(particle_file, 2)

    def test_series_for_paraview(self, particle_file, tmp_path):
        run = write_particle_run(tmp_path / "run", dim=3, particles=30, frames=8)
        written = particle_series(run, tmp_path / "series")
        assert [path.name for path in written] == [f"ball_case3_{name}.pvd" for name in ("truth", "sparse", "dense")]
        frame = meshio.vtu.read(tmp_path / "series" / "ball_case3_dense_000007.vtu")
        arrays = particle_arrays(dim=3, particles=30, frames=8)
        assert np.array_equal(frame.points, arrays["dense_0"][7])
        speed = np.linalg.norm(np.diff(arrays["dense_0"].astype(float), axis=0)[-1], axis=1) / 0.02
        assert np.allclose(frame.point_data["speed"], speed)
        path = particle_series(particle_file, tmp_path / "series", 1)[0]
        assert path.name == "drops_case1.pvd" and path.read_text().count("timestep") == 12
        with pytest.raises(DataError, match="holds no particles"):
            particle_series(tmp_path, tmp_path)
        with pytest.raises(DataError, match="no case 2"):
            particle_series(particle_file, tmp_path, 2)
