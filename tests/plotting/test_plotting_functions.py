"""The new pictures as functions: what their artists hold, and what they refuse."""

from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from plotting_runs import channel_flow, random_field

from sciml.errors import DataError
from sciml.plotting import channel_profiles, error_distribution, field_map, line_profiles, slices, space_time, spectra
from sciml.plotting.panels import bulk_scale, make_panels, positive_scale, scale_of
from sciml.plotting.planes import mid_plane
from sciml.plotting.sheet import make_box, make_sheet
from sciml.plotting.style import readable_time, spread, value_limits, with_unit


def texts(figure):
    found = [text.get_text() for text in figure.texts]
    if figure._suptitle is not None:
        found.append(figure._suptitle.get_text())
    for axes in figure.axes:
        found += [axes.get_xlabel(), axes.get_ylabel(), *(axes.get_title(loc=where) for where in ("left", "center"))]
    return [text for text in found if text]


class TestSpaceTime:
    def test_labels_orientation_and_scales(self):
        truth = np.zeros((3, 4))
        truth[2, 0] = 1.0  # last time, low x
        figure = space_time(truth, 3 * truth, length=2.0, origin=-1.0, times=[0, 1, 4], name="u", unit="m/s")
        labels = texts(figure)
        assert {"x (m)", "t (s)", "u (m/s)", "prediction − truth (m/s)", "truth", "prediction"} <= set(labels)
        meshes = [axes.collections[0] for axes in figure.axes[:3]]
        assert meshes[0].get_clim() == meshes[1].get_clim() == (0, 1)
        assert figure.axes[0].get_xlim() == (-1, 1) and figure.axes[0].get_ylim() == (0, 4)
        figure.canvas.draw()
        column, row = figure.axes[0].transData.transform((-0.9, 3.5))
        picture = np.asarray(figure.canvas.buffer_rgba())
        seen = picture[picture.shape[0] - 1 - round(row), round(column), :3]
        np.testing.assert_allclose(seen / 255, matplotlib.colormaps["viridis"](1.0)[:3], atol=0.02)

    def test_days(self):
        truth = np.random.default_rng(0).random((3, 8))
        assert "t (d)" in texts(space_time(truth, truth, length=1.0, times=[0, 86400.0, 86400.0 * 500]))
        assert readable_time([0.0, 3600.0], "s") == (1.0, "s")

    @pytest.mark.parametrize("shape", [(3,), (2, 8), (3, 1, 8)])
    def test_bad_input(self, shape):
        with pytest.raises(DataError, match="do not fit"):
            space_time(np.zeros(shape), np.zeros(shape), length=1.0, times=[0, 1, 2])


class TestLines:
    def test_curves_are_the_data(self):
        truth = np.sin(np.linspace(0, 3, 16))[None] * np.array([[1.0], [0.5]])
        figure = line_profiles(truth, 1.1 * truth, length=0.016, times=[0.0, 2.0], name="c", unit="kg/m^3")
        lines = figure.axes[0].lines
        np.testing.assert_allclose(lines[1].get_ydata(), truth[1])
        np.testing.assert_allclose(lines[1].get_xdata(), np.arange(16) + 0.5)  # millimetres
        np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), 0.1 * truth[0])
        assert {"c (kg/m³)", "x (mm)"} <= set(texts(figure))
        assert {"t = 0 s", "t = 2 s", "truth", "prediction"} <= {str(line.get_label()) for line in lines}

    def test_a_prediction_that_blew_up_does_not_flatten_the_truth(self):
        truth = np.sin(np.linspace(0, 3, 16))[None]
        figure = line_profiles(truth, 1e250 * truth, length=1.0)
        figure.canvas.draw()
        assert figure.axes[0].get_ylim()[1] < 2
        assert value_limits(np.array([0.0, 1.0]), np.array([0.2, 1.2]))[1] > 1.2

    @pytest.mark.parametrize(
        ("truth", "prediction", "options"),
        [
            (np.zeros(8), None, {}),
            (np.zeros((2, 8)), np.zeros((1, 8)), {}),
            (np.zeros((2, 8)), None, {"labels": ["one"]}),
        ],
    )
    def test_bad_input(self, truth, prediction, options):
        with pytest.raises(DataError, match=r"must be|cannot have"):
            line_profiles(truth, prediction, length=1.0, **options)


class TestSpectra:
    def test_a_single_wave(self):
        """cos(3 k x) has its half mean square, 1/4, in shell 3."""
        x = (np.arange(16) + 0.5) / 16
        field = np.cos(2 * np.pi * 3 * x)[None, None, :, None] * np.ones((1, 1, 1, 16))
        figure = spectra(field, 1.1 * field, lengths=(2.0, 2.0), times=[0.5], name="enstrophy", unit="1/s")
        line = figure.axes[0].lines[0]
        peak = np.nanargmax(line.get_ydata())
        assert line.get_xdata()[peak] == pytest.approx(3 * np.pi)
        assert line.get_ydata()[peak] * np.pi == pytest.approx(0.25)
        assert figure.axes[1].lines[0].get_ydata()[peak] == pytest.approx(0.01)
        assert "wave number (rad/m)" in texts(figure) and "enstrophy spectrum ((1/s)² m)" in texts(figure)
        assert figure.axes[0].get_xscale() == figure.axes[0].get_yscale() == "log"

    def test_fields_without_anything_to_show(self):
        zero = np.zeros((1, 2, 8, 8))
        spectra(zero, zero, lengths=(1.0, 1.0)).canvas.draw()
        spectra(zero + 1, np.full_like(zero, np.nan), lengths=(1.0, 1.0)).canvas.draw()

    @pytest.mark.parametrize(
        ("shape", "times", "words"), [((1, 8, 8), None, "must be"), ((2, 1, 8, 8), [0.0], "cannot have")]
    )
    def test_bad_input(self, shape, times, words):
        with pytest.raises(DataError, match=words):
            spectra(np.zeros(shape), lengths=(1.0, 1.0), times=times)


class TestSlices:
    def test_planes_and_their_names(self):
        x, y, z = np.meshgrid(*((np.arange(n) + 0.5) / n for n in (6, 8, 10)), indexing="ij")
        figure = slices(x + 10 * y + 100 * z, x + 10 * y + 100 * z, lengths=(1.0, 2.0, 3.0), name="c", unit="K")
        shown = [axes.images[0] for axes in figure.axes if axes.images]
        np.testing.assert_allclose(shown[0].get_array(), (x + 10 * y).mean(2).T + 50)
        np.testing.assert_allclose(shown[3].get_array(), (x + 100 * z).mean(1).T + 5)
        assert [tuple(shown[i].get_extent()) for i in (0, 3, 6)] == [(0, 1, 0, 2), (0, 1, 0, 3), (0, 2, 0, 3)]
        assert len({shown[i].get_clim() for i in (0, 1, 3, 4, 6, 7)}) == 1
        assert {"z = 1.5 m", "y = 1 m", "x = 0.5 m", "c (K)", "x (m)", "y (m)", "z (m)"} <= {
            *texts(figure),
            *(note.get_text() for axes in figure.axes for note in axes.texts),
        }

    def test_middle(self):
        assert mid_plane(np.arange(8.0)) == 3.5 and mid_plane(np.arange(7.0)) == 3.0

    def test_bad_input(self):
        with pytest.raises(DataError, match="three lengths"):
            slices(np.zeros((4, 4)), np.zeros((4, 4)), lengths=(1.0, 1.0))


class TestFieldMap:
    def test_columns_points_and_units(self):
        inputs = np.where(np.stack([random_field((12, 12), seed) for seed in (0, 1)]) > 0, 12.0, 3.0)
        truth = np.abs(np.stack([random_field((12, 12), seed) for seed in (2, 3)]))
        points = np.array([[[0.5, 0.2], [0.1, 0.9]]] * 2) * 0.01
        figure = field_map(
            inputs, truth, truth, width=0.01, height=0.01, points=points, labels=["case 4", "case 7"],
            input_name="permeability", input_unit="m^2", name="pressure", unit="Pa",
        )  # fmt: skip
        assert len([axes for axes in figure.axes if axes.images]) == 8
        marks = figure.axes[0].collections[0].get_offsets()
        np.testing.assert_allclose(marks, [[5, 2], [1, 9]])  # millimetres
        assert {"permeability (m²)", "pressure (Pa)", "input", "truth", "prediction"} <= set(texts(figure))
        assert "case 7" in [note.get_text() for note in figure.axes[4].texts]

    def test_decades_get_a_logarithmic_scale_and_a_wall_does_not(self):
        decades = np.exp(2 * random_field((16, 16)))
        assert positive_scale(decades) == (decades.min(), decades.max())
        x = np.linspace(0.002, 0.998, 50)
        assert positive_scale(np.outer(x * (1 - x), x * (1 - x))) is None
        assert positive_scale(np.array([-1.0, 100.0])) is None
        field_map(decades[None], decades[None], decades[None], width=1.0, height=1.0).canvas.draw()

    @pytest.mark.parametrize(
        ("inputs", "points", "words"),
        [(np.zeros((1, 4, 5)), None, "input has shape"), (np.zeros((1, 4, 4)), np.zeros((1, 3, 3)), "points have")],
    )
    def test_bad_input(self, inputs, points, words):
        with pytest.raises(DataError, match=words):
            field_map(inputs, np.ones((1, 4, 4)), np.ones((1, 4, 4)), points=points, width=1.0, height=1.0)


class TestErrorDistribution:
    def test_sorted_and_counted(self):
        axes = error_distribution([0.3, 0.1, np.inf, 0.2], mean=[1.0, 1.0], name="fno").axes[0]
        np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.1, 0.2, 0.3])
        np.testing.assert_allclose(axes.lines[0].get_xdata(), [0.125, 0.375, 0.625])
        labels = [str(line.get_label()) for line in axes.lines]
        assert labels == ["fno, median 25 %, 1 not finite", "training mean, median 100 %"]

    def test_bad_input(self):
        with pytest.raises(DataError, match="cases,"):
            error_distribution(np.zeros((2, 2)))


class TestChannel:
    def test_poiseuille_at_the_outlet_only(self):
        truth, prediction = channel_flow(64, 32)
        figure = channel_profiles(truth[0, -1], prediction[0, -1], width=4.0, height=1.0, time=0.4)
        labels = [[str(line.get_label()) for line in axes.lines] for axes in figure.axes]
        assert [any("Poiseuille" in label for label in each) for each in labels].count(True) == 1
        outlet = next(axes for axes in figure.axes if any("Poiseuille" in str(x.get_label()) for x in axes.lines))
        points = outlet.lines[2]
        assert points.get_xdata().max() == pytest.approx(1.5, rel=1e-2)
        np.testing.assert_allclose(outlet.lines[0].get_xdata(), truth[0, -1, 0, -1])
        assert "u (m/s)" in texts(figure) and "y / h" in texts(figure)

    def test_bad_input(self):
        with pytest.raises(DataError, match="velocity"):
            channel_profiles(np.zeros((1, 4, 4)), np.zeros((1, 4, 4)), width=1.0, height=1.0)


class TestSheet:
    @pytest.mark.parametrize("length", [4.0, 10.0, 40.0])
    def test_a_long_box_is_stacked_and_nothing_overlaps(self, length):
        sheet = make_sheet([make_box(length, 1.0)] * 3, (2, 1), 2.3, heading=True)
        boxes = [axes.get_window_extent() for row in sheet.axes for axes in row]
        assert sheet.stacked and all(a.y0 > b.y1 for a, b in pairwise(boxes))
        bars = [axes.get_window_extent() for axes in sheet.bars]
        assert bars[0].y0 > bars[1].y1 and bars[0].x0 > boxes[0].x1

    def test_units_and_scales(self):
        assert with_unit("p", "m^2/s^2") == "p (m²/s²)" and with_unit("k", "1") == "k"
        assert scale_of(np.array([-1e-9, 0.5])) == (0.0, 0.5)
        assert scale_of(np.array([-0.3, 0.5])) == (-0.5, 0.5)
        assert scale_of(np.array([-0.5, 1e-9])) == (-0.5, 0.0)
        corner = np.concatenate([np.linspace(-1, 1, 1000), [100.0]])
        assert bulk_scale(corner)[1] < 1.1 and bulk_scale(corner[:-1])[1] == 1.0
        assert make_panels(np.ones((1, 2, 2)), np.full((1, 2, 2), 1e300)).relative_l2[0] == np.inf
        assert spread(2, 4) == [0, 1] and spread(21, 3) == [0, 10, 20]
