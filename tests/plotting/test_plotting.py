"""Pictures: what the artists hold (scales, orientation, extents, points), and that the files are written."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from plotting_helpers import flow

from sciml.errors import DataError
from sciml.plotting import (
    animate_rollout,
    centreline_profiles,
    ghia,
    loss_curves,
    rollout_error,
    triptych,
)
from sciml.plotting.panels import make_panels, per_cent
from sciml.plotting.profiles import centre_line
from sciml.plotting.sheet import readable_length


def images(figure):
    return [axes.images[0] for axes in figure.axes if axes.images]


def rendered(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


class TestTriptych:
    def test_file_and_size(self, tmp_path):
        truth, prediction = flow()
        path = tmp_path / "new" / "fields.png"
        figure = triptych(truth, prediction, width=2.0, height=1.0, times=[0, 1, 2], path=path, streamlines=True)
        with Image.open(path) as picture:
            np.testing.assert_allclose(picture.size, figure.get_size_inches() * 150, atol=1)
            assert np.asarray(picture.convert("L")).std() > 10
        assert len(images(figure)) == 9

    def test_one_scale_for_truth_and_prediction_from_the_truth(self):
        truth, prediction = flow()
        shown = images(triptych(truth, 1.5 * prediction, width=1.0, height=1.0))
        top = np.linalg.norm(truth, axis=1).max()
        for index, image in enumerate(shown):
            if index % 3 < 2:
                assert image.get_clim() == pytest.approx((0, top))
        assert len({shown[index].get_clim() for index in (2, 5, 8)}) == 1

    def test_a_prediction_off_the_scale_is_marked(self):
        truth, _ = flow()
        assert make_panels(truth, 1.5 * truth).extend == "max"
        assert make_panels(truth, truth).extend == "neither"
        assert make_panels(truth, 100 * truth).error_extend == "max"

    def test_signed_field_has_a_symmetric_scale_and_error(self):
        truth, prediction = flow()
        panels = make_panels(truth[:, 0], prediction[:, 0])
        assert panels.limits[0] == -panels.limits[1] == -np.abs(truth[:, 0]).max()
        assert panels.error_limits[0] == -panels.error_limits[1]
        assert panels.error.min() < 0 < panels.error.max()

    def test_error_of_a_vector_sees_its_direction(self):
        truth, _ = flow()
        panels = make_panels(truth, -truth)
        assert panels.error.max() == pytest.approx(2 * panels.truth.max())
        assert panels.relative_l2 == pytest.approx(2.0)

    @pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (-1, -1), (0, 0)], ids=str)
    def test_orientation(self, corner):
        """A bright cell lands at its physical place: index 0 low, x to the right, y up."""
        nx, ny, width, height = 8, 4, 4.0, 2.0
        field = np.zeros((1, nx, ny))
        field[(0, *corner)] = 1.0
        figure = triptych(field, field, width=width, height=height)
        axes = images(figure)[0].axes
        picture = rendered(figure)
        x, y = (np.array(corner) % (nx, ny) + 0.5) * (width / nx, height / ny)
        column, row = axes.transData.transform((x, y))
        seen = picture[picture.shape[0] - 1 - round(row), round(column), :3]
        expected = matplotlib.colormaps["viridis"](1.0)[:3]
        np.testing.assert_allclose(seen / 255, expected, atol=0.02)
        # A cell two away is dark: the spot is one cell and not a row.
        column, row = axes.transData.transform((width / 2, height / 2))
        seen = picture[picture.shape[0] - 1 - round(row), round(column), :3]
        np.testing.assert_allclose(seen / 255, matplotlib.colormaps["viridis"](0.0)[:3], atol=0.02)

    def test_box_keeps_its_proportion(self):
        truth, prediction = flow()
        figure = triptych(truth[:1], prediction[:1], width=3.0, height=1.0)
        figure.canvas.draw()
        axes = images(figure)[0].axes
        box = axes.get_window_extent()
        assert box.width / box.height == pytest.approx(3.0, rel=0.01)
        assert axes.get_xlim() == (0, 3) and axes.get_ylim() == (0, 1)

    def test_small_boxes_are_in_millimetres(self):
        assert readable_length(0.01, 0.02, "m") == (10.0, 20.0, "mm")
        assert readable_length(1.0, 0.02, "m") == (1.0, 0.02, "m")

    def test_not_finite_prediction_is_drawn_and_named(self):
        truth, prediction = flow()
        prediction[1, :, 2, 2] = np.nan
        figure = triptych(truth, prediction, width=1.0, height=1.0, streamlines=True)
        rendered(figure)
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        assert any("not finite" in title for title in titles)

    def test_fluid_at_rest(self):
        zero = np.zeros((1, 2, 6, 6))
        rendered(triptych(zero, zero, width=1.0, height=1.0, streamlines=True))
        assert per_cent(make_panels(zero, zero).relative_l2[0]) == "undefined"

    @pytest.mark.parametrize(
        ("truth", "prediction", "words"),
        [
            (np.zeros((2, 4, 4)), np.zeros((1, 4, 4)), "must both be"),
            (np.zeros((4, 4)), np.zeros((4, 4)), "must both be"),
            (np.full((1, 4, 4), np.nan), np.zeros((1, 4, 4)), "no finite value"),
        ],
    )
    def test_bad_input(self, truth, prediction, words):
        with pytest.raises(DataError, match=words):
            triptych(truth, prediction, width=1.0, height=1.0)


class TestProfiles:
    def test_centre_line_is_between_the_middle_cells(self):
        field = np.arange(8.0)[:, None] * np.ones((1, 3))
        assert centre_line(field, 0) == pytest.approx(3.5)
        assert centre_line(field[:7], 0) == pytest.approx(3.0)
        assert centre_line(field, 1) == pytest.approx(np.arange(8.0))

    @pytest.mark.parametrize(
        ("reynolds", "height", "lid", "points"),
        [
            (1000, 0.01, 10.0, True),
            (999, 0.01, 10.0, True),
            (870, 0.01, 10.0, False),
            (1000, 0.012, 10.0, False),
            (1000, 0.01, None, False),
            (None, 0.01, 10.0, False),
        ],
    )
    def test_ghia_points_only_where_they_belong(self, tmp_path, reynolds, height, lid, points):
        truth, prediction = flow()
        path = tmp_path / "profiles.png"
        figure = centreline_profiles(
            truth[0], prediction[0], width=0.01, height=height, lid_velocity=lid, reynolds=reynolds, path=path
        )
        labels = [line.get_label() for line in figure.axes[0].lines]
        assert any("Ghia" in str(label) for label in labels) == points
        assert path.stat().st_size > 10_000

    def test_curves_are_the_data(self):
        truth, prediction = flow(nx=9, ny=8)
        figure = centreline_profiles(truth[2], prediction[2], width=1.0, height=2.0, lid_velocity=2.0)
        u_line, v_line = figure.axes[0].lines[0], figure.axes[2].lines[0]
        np.testing.assert_allclose(u_line.get_xdata(), truth[2, 0, 4] / 2.0)
        np.testing.assert_allclose(u_line.get_ydata(), (np.arange(8) + 0.5) / 8)
        np.testing.assert_allclose(v_line.get_ydata(), truth[2, 1, :, 3:5].mean(-1) / 2.0)

    def test_bad_input(self):
        with pytest.raises(DataError, match="velocity"):
            centreline_profiles(np.zeros((3, 4, 4)), np.zeros((3, 4, 4)), width=1.0, height=1.0)

    def test_ghia_table(self):
        for reynolds in (100, 400, 1000):
            assert len(ghia.U[reynolds]) == len(ghia.Y) == len(ghia.V[reynolds]) == len(ghia.X) == 17
            assert ghia.U[reynolds][0] == 1 and ghia.U[reynolds][-1] == 0
        assert np.isnan(ghia.V[400][ghia.X.index(0.9063)])
        assert np.isfinite([*ghia.V[100], *ghia.V[1000], *ghia.U[400]]).all()
        assert min(ghia.U[1000]) == -0.38289 and ghia.V[1000][ghia.X.index(0.9063)] == -0.5155


class TestCurves:
    def test_rollout_error(self, tmp_path):
        errors = np.random.default_rng(0).uniform(0.01, 0.02, (5, 19))
        path = tmp_path / "rollout.png"
        figure = rollout_error(errors, persistence=30 * errors, lookup=3 * errors, name="unet", path=path)
        axes = figure.axes[0]
        assert axes.get_yscale() == "log" and path.stat().st_size > 10_000
        lines = {str(line.get_label()): line.get_ydata() for line in axes.lines}
        np.testing.assert_allclose(lines["unet, mean"], errors.mean(0))
        np.testing.assert_allclose(lines["unet, worst case"], errors.max(0))
        np.testing.assert_allclose(lines["persistence, mean"], 30 * errors.mean(0))
        assert len(axes.collections) == 3

    def test_a_rollout_that_blew_up_is_not_averaged_away(self):
        errors = np.full((4, 5), 0.1)
        errors[2, 3:] = np.inf
        axes = rollout_error(errors).axes[0]
        mean = axes.lines[0].get_ydata()
        assert np.isfinite(mean[:3]).all() and np.isnan(mean[3:]).all()
        assert any("1 of 4 not finite" in str(line.get_label()) for line in axes.lines)

    def test_single_case_single_step_and_zeros(self):
        assert rendered(rollout_error(np.array([[0.1]]))).std() > 0
        assert rendered(rollout_error(np.array([[0.0, 0.1]]), persistence=np.zeros((1, 2)))).std() > 0

    def test_rollout_error_needs_cases_and_steps(self):
        with pytest.raises(DataError, match="cases, steps"):
            rollout_error(np.zeros(5))

    def test_loss_curves(self, tmp_path):
        records = [{"step": s, "loss": 1 / s, "learning_rate": 1e-3} for s in range(1, 201)]
        records += [{"step": 100, "validation_nmse": 0.1}, {"step": 200, "validation": {"nmse": 0.01}}]
        path = tmp_path / "training.png"
        figure = loss_curves(records, path=path)
        labels = {str(line.get_label()) for line in figure.axes[0].lines}
        assert "training loss (running median)" in labels and "validation nmse" in labels
        assert path.stat().st_size > 10_000

    def test_loss_curves_need_something(self):
        with pytest.raises(DataError, match="no loss"):
            loss_curves([{"step": 1, "note": "x"}])


class TestAnimation:
    def test_gif(self, tmp_path):
        truth, prediction = flow(frames=6, nx=32, ny=32)
        path = animate_rollout(
            truth, prediction, width=0.01, height=0.01, times=np.arange(6) * 1e-3, path=tmp_path / "a.gif"
        )
        assert path.stat().st_size < 2e6
        with Image.open(path) as gif:
            assert gif.n_frames == 6 and gif.info["loop"] == 0
            first = np.asarray(gif.convert("RGB")).copy()
            gif.seek(5)
            assert gif.info["duration"] > 1000
            last = np.asarray(gif.convert("RGB"))
            assert (first != last).any()


class TestNoGlobalState:
    def test_settings_come_back(self):
        before = dict(matplotlib.rcParams)
        truth, prediction = flow()
        triptych(truth, prediction, width=1.0, height=1.0)
        assert dict(matplotlib.rcParams) == before

    def test_pyplot_is_never_imported_and_the_room_is_light(self):
        code = (
            "import sys, sciml.plotting\n"
            "assert 'matplotlib' not in sys.modules\n"
            "from sciml.plotting import *\n"
            "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)

    def test_result_is_a_figure_that_pyplot_does_not_know(self):
        truth, prediction = flow()
        assert isinstance(triptych(truth, prediction, width=1.0, height=1.0), Figure)
        assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
