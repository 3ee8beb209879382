"""Bodies in the flow and free surfaces: what is blanked, the vorticity beside walls, interfaces and forces."""

from functools import partial

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from PIL import Image
from plotting_flows import write_flow, write_flow_run
from plotting_runs import write_map

from sciml.errors import ConfigError, DataError
from sciml.plotting import (
    Look,
    animate_field,
    animate_rollout,
    animation,
    case_figure,
    choices,
    field_frames,
    field_map,
    run_figures,
    series_over_time,
    style,
    triptych,
    vorticity,
)
from sciml.plotting.gif import snapshot
from sciml.plotting.looks import LIQUID, WAKE
from sciml.plotting.panels import make_panels
from sciml.plotting.predictions import cases_of, read_predictions

BOX = {"width": 4.0, "height": 2.0}
NX, NY = 16, 8


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    """What is tested needs no fine print, and drawing it costs a second each."""
    monkeypatch.setattr(style, "save", partial(style.save, dpi=50))


def block():
    """Fluid but for three by two cells."""
    fluid = np.ones((NX, NY))
    fluid[4:7, 3:5] = 0
    return fluid


def field(frames=2, seed=0):
    return np.random.default_rng(seed).uniform(0.05, 1.0, (frames, NX, NY))


def panels_of(figure):
    """The axes of fields: those of colour bars hold no picture of theirs."""
    return [axes for axes in figure.axes if axes.images and axes.get_xlim() == (0, BOX["width"])]


def pixel(figure, axes, x, y):
    figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())
    column, row = axes.transData.transform((x, y))
    return picture[picture.shape[0] - 1 - round(row), round(column), :3] / 255


def outlines(axes):
    return [each for each in axes.collections if isinstance(each, LineCollection)]


class TestSolids:
    def test_a_body_is_grey_in_every_panel_and_its_values_count_nowhere(self):
        fluid, truth = block(), field()
        wild = np.where(fluid, truth, 1e6)
        figure = triptych(wild, np.where(fluid, 1.1 * truth, -1e6), fluid=fluid, **BOX)
        panels = panels_of(figure)
        assert len(panels) == 6
        for axes in panels:
            np.testing.assert_allclose(pixel(figure, axes, 1.4, 1.0), to_rgb(style.SOLID), atol=0.01)
        clean = make_panels(wild, np.where(fluid, 1.1 * truth, -1e6), fluid)
        assert clean.limits == (0.0, truth[:, fluid > 0].max())
        np.testing.assert_allclose(clean.relative_l2, 0.1)
        assert clean.error_limits[1] == pytest.approx(0.1 * truth[:, fluid > 0].max())
        assert clean.extend == "max" and np.isnan(clean.error[:, fluid == 0]).all()

    def test_a_vector_and_a_body_of_each_frame(self):
        """The second frame of a stack of cases has another body."""
        fluid = np.stack([block(), block()[::-1]])
        truth = np.stack([field(seed=1), field(seed=2)], 1)
        wild = np.where(fluid[:, None] > 0, truth, 1e3)
        panels = make_panels(wild, 1.2 * wild, fluid)
        np.testing.assert_allclose(panels.relative_l2, 0.2)
        assert panels.limits[1] < 2
        assert (np.isnan(panels.truth) == (fluid == 0)).all()
        figure = field_map(wild[:, 0], wild[:, 0], wild[:, 0], fluid=fluid, **BOX)
        rows = panels_of(figure)
        for axes, x in [(rows[0], 1.4), (rows[3], 1.4), (rows[4], 2.6), (rows[7], 2.6)]:
            np.testing.assert_allclose(pixel(figure, axes, x, 1.0), to_rgb(style.SOLID), atol=0.01)
        assert np.abs(pixel(figure, rows[4], 1.4, 1.0) - to_rgb(style.SOLID)).max() > 0.1

    def test_the_outline_is_that_of_the_cells_and_not_along_the_box(self):
        fluid = block()
        (outline,) = outlines(panels_of(triptych(field(1), field(1), fluid=fluid, **BOX))[0])
        found = sorted(tuple(map(tuple, segment.tolist())) for segment in outline.get_segments())
        corners = (1.0, 1.75), (0.75, 1.25)
        (left, right), (low, high) = corners
        expected = [((left, low), (left, high)), ((left, low), (right, low))]
        expected += [((left, high), (right, high)), ((right, low), (right, high))]
        assert found == sorted(expected)
        fluid = np.ones((NX, NY))
        fluid[4:7, :3] = 0
        (outline,) = outlines(panels_of(triptych(field(1), field(1), fluid=fluid, **BOX))[0])
        assert len(outline.get_segments()) == 3

    def test_what_is_not_finite_is_not_drawn_as_a_body(self):
        truth, prediction = field(1), field(1)
        prediction[0, 10, 4] = np.nan
        figure = triptych(truth, prediction, fluid=block(), **BOX)
        seen = pixel(figure, panels_of(figure)[1], 2.625, 1.125)
        np.testing.assert_allclose(seen, to_rgb(style.NOT_FINITE), atol=0.01)
        assert style.NOT_FINITE != style.SOLID

    def test_all_fluid_is_as_without(self):
        pictures = []
        for fluid in (None, np.ones((NX, NY))):
            figure = triptych(field(), field(seed=1), fluid=fluid, title="t", **BOX)
            figure.canvas.draw()
            pictures.append(np.asarray(figure.canvas.buffer_rgba()).copy())
        assert (pictures[0] == pictures[1]).all()

    @pytest.mark.parametrize(
        ("fluid", "words"),
        [(np.ones((NY, NX)), r"fluid has shape \(8, 16\)"), (np.zeros((NX, NY)), "no cell is in the fluid")],
        ids=["transposed", "nothing"],
    )
    def test_bad_input(self, tmp_path, fluid, words):
        draws = [
            lambda: triptych(field(), field(), fluid=fluid, **BOX),
            lambda: field_frames(field(), fluid=fluid, **BOX),
            lambda: animate_rollout(field(), field(), fluid=fluid, path=tmp_path / "a.gif", **BOX),
            lambda: animate_field(field(), fluid=fluid, path=tmp_path / "a.gif", **BOX),
            lambda: vorticity(np.zeros((2, NX, NY)), fluid=fluid, **BOX),
        ]
        for each in draws:
            with pytest.raises(DataError, match=words):
                each()

    def test_streamlines_stay_out_of_the_body(self):
        fluid = block()
        velocity = np.zeros((1, 2, NX, NY))
        velocity[:, 0] = 1.0
        figure = triptych(velocity, velocity, fluid=fluid, streamlines=True, **BOX)
        for axes in panels_of(figure)[:2]:
            lines = next(each for each in outlines(axes) if len(each.get_segments()) > 10)
            points = np.concatenate(lines.get_segments())
            inside = (np.abs(points[:, 0] - 1.375) < 0.375) & (np.abs(points[:, 1] - 1.0) < 0.25)
            assert not inside.any()
            assert (points[:, 0] > 2.5).any() and (points[:, 0] < 0.5).any()


class TestVorticity:
    def test_a_rotation_and_a_parabola_are_exact_beside_walls_and_bodies(self):
        x, y = np.meshgrid((np.arange(NX) + 0.5) / NX * 4, (np.arange(NY) + 0.5) / NY * 2, indexing="ij")
        fluid = block()
        turning = np.where(fluid, np.stack([-3 * y, 3 * x]), 1e9)
        curl = vorticity(turning, fluid=fluid, **BOX)
        np.testing.assert_allclose(curl[fluid > 0], 6.0)
        assert (curl[fluid == 0] == 0).all()
        parabola = np.where(fluid, np.stack([6 * y * (2 - y), np.zeros_like(y)]), -1e9)
        expected = -(12 - 12 * y)
        np.testing.assert_allclose(vorticity(parabola, fluid=fluid, **BOX)[fluid > 0], expected[fluid > 0], atol=1e-9)

    def test_a_gap_of_two_cells_has_first_order_and_one_of_one_has_none(self):
        fluid = np.zeros((NX, NY))
        fluid[5] = fluid[9:11] = 1
        velocity = np.zeros((2, NX, NY))
        velocity[1] = (np.arange(NX) ** 2 * 0.25)[:, None]  # of x = i / 4: v = 4 x^2
        curl = vorticity(velocity, fluid=fluid, **BOX)
        assert (curl[5] == 0).all()
        np.testing.assert_allclose(curl[9:11], (100 - 81) * 0.25 / 0.25)

    def test_order(self):
        errors = []
        for n in (16, 32):
            x, y = np.meshgrid(*((np.arange(n) + 0.5) / n,) * 2, indexing="ij")
            fluid = np.hypot(x - 0.5, y - 0.5) > 0.2
            curl = vorticity(np.stack([np.sin(3 * y), np.sin(4 * x)]), width=1.0, height=1.0, fluid=fluid)
            errors.append(np.abs(curl - (4 * np.cos(4 * x) - 3 * np.cos(3 * y)))[fluid].max())
        assert errors[0] / errors[1] > 3

    def test_transposed_with_its_components(self):
        velocity = np.random.default_rng(0).standard_normal((3, 2, NX, NY))
        fluid = block()
        across = velocity[:, ::-1].swapaxes(2, 3)
        found = vorticity(across, width=2.0, height=4.0, fluid=fluid.T)
        np.testing.assert_allclose(-found.swapaxes(1, 2), vorticity(velocity, fluid=fluid, **BOX))

    def test_bad_input(self):
        with pytest.raises(DataError, match=r"velocity has shape \(3, 4, 4\)"):
            vorticity(np.zeros((3, 4, 4)), width=1.0, height=1.0)

    def test_the_wake_sets_the_colours(self):
        values = np.random.default_rng(0).uniform(-1, 1, (2, 40, 20))
        values[:, 3, 3], values[:, 3, 4] = 50.0, -50.0
        panels = make_panels(values, values, look=WAKE)
        assert panels.limits[0] == -panels.limits[1] and 0.9 < panels.limits[1] < 1.0
        assert panels.extend == "both" and panels.colour_map == style.DIVERGING


class TestFreeSurface:
    def level(self, frame):
        """Liquid up to x = 1 + frame / 2 (cells are 1/4 wide): the line lies on a side of cells."""
        return np.where(np.arange(NX)[:, None] < 4 + 2 * frame, 1.0, 0.0) * np.ones(NY)

    def test_the_line_is_the_truths_over_both(self):
        truth = np.stack([self.level(0), self.level(2)])
        figure = triptych(truth, np.zeros_like(truth), look=LIQUID, **BOX)
        panels = panels_of(figure)
        for row, x in ((0, 1.0), (1, 2.0)):
            for column in range(2):
                (line,) = panels[3 * row + column].collections
                points = np.concatenate([path.vertices for path in line.get_paths()])
                np.testing.assert_allclose(points[:, 0], x)
            assert not panels[3 * row + 2].collections
        assert panels[0].images[0].get_clim() == (0.0, 1.0)

    def test_no_line_along_a_body_under_water(self):
        truth = np.where(block(), np.where(np.arange(NY) < 6, 1.0, 0.0) * np.ones((NX, 1)), 0.0)
        figure = triptych(truth[None], truth[None], look=LIQUID, fluid=block(), **BOX)
        line = next(each for each in panels_of(figure)[0].collections if not isinstance(each, LineCollection))
        points = np.concatenate([path.vertices for path in line.get_paths()])
        np.testing.assert_allclose(points[:, 1], 1.5)

    def test_in_an_animation_it_moves(self, tmp_path, monkeypatch):
        seen = []

        def record(canvas, palette):
            lines = [each for axes in canvas.figure.axes for each in axes.collections if hasattr(each, "levels")]
            seen.append([path.vertices[:, 0].mean() for line in lines for path in line.get_paths()])
            return snapshot(canvas, palette)

        monkeypatch.setattr(animation, "snapshot", record)
        truth = np.stack([self.level(frame) for frame in range(4)])
        animate_rollout(truth, np.zeros_like(truth), look=LIQUID, path=tmp_path / "a.gif", **BOX)
        animate_field(truth, look=LIQUID, path=tmp_path / "b.gif", **BOX)
        expected = [1.0, 1.5, 2.0, 2.5]
        np.testing.assert_allclose(seen[:4], [[x, x] for x in expected])
        np.testing.assert_allclose(seen[4:], [[x] for x in expected])
        with Image.open(tmp_path / "a.gif") as gif:
            assert gif.n_frames == 4

    @pytest.mark.parametrize("options", [{"quantile": 0.0}, {"quantile": 1.5}, {"limits": (1.0, 1.0)}], ids=str)
    def test_a_look_that_cannot_be(self, options):
        with pytest.raises(ConfigError, match=r"quantile is|limits are"):
            Look(**options)


class TestFrames:
    def test_two_in_a_row_and_of_a_channel_one(self, tmp_path):
        path = tmp_path / "frames.png"
        figure = field_frames(field(3), times=[0, 1, 2], fluid=block(), name="w", path=path, **BOX)
        with Image.open(path) as picture:
            np.testing.assert_allclose(picture.size, figure.get_size_inches() * 50, atol=1)
        shown = panels_of(figure)
        assert len({round(axes.get_position().x0, 3) for axes in shown}) == 2
        assert [axes.get_title(loc="left") for axes in shown] == ["t = 0 s", "t = 1 s", "t = 2 s"]
        long = field_frames(field(3), width=4.0, height=0.5)
        assert len({round(axes.get_position().x0, 3) for axes in long.axes if axes.images}) == 1

    def test_arrows_are_where_the_vector_is(self):
        arrows = np.zeros((1, 2, NX, NY))
        arrows[0, 0, 8:] = 1.0
        arrows[0, 0, 4:7, 3:5] = 1.0
        figure = field_frames(field(1), arrows=arrows, fluid=block(), **BOX)
        quiver = next(each for each in panels_of(figure)[0].collections if hasattr(each, "U"))
        assert len(quiver.X) == 64 and quiver.X.min() == pytest.approx(2.125)
        assert (quiver.U == 1).all() and (quiver.V == 0).all()

    def test_what_a_body_holds_sets_no_scale(self):
        (axes, *_) = panels_of(field_frames(np.where(block(), field(1), 1e6), fluid=block(), **BOX))
        assert axes.images[0].get_clim()[1] < 1

    def test_bad_input(self, tmp_path):
        with pytest.raises(DataError, match=r"expected \(frames, nx, ny\)"):
            field_frames(np.zeros((3, 4)), **BOX)
        with pytest.raises(DataError, match=r"the arrows have shape"):
            field_frames(field(), arrows=np.zeros((2, NX, NY)), **BOX)
        with pytest.raises(DataError, match=r"expected \(frames, nx, ny\)"):
            animate_field(np.zeros((3, 4)), path=tmp_path / "a.gif", **BOX)


class TestSeries:
    time = np.linspace(0, 1, 21)

    def test_lines_and_labels(self, tmp_path):
        drag, lift = 2 + np.sin(self.time), np.sin(9 * self.time)
        path = tmp_path / "series.png"
        figure = series_over_time(
            self.time,
            {"drag": drag, "lift": lift},
            truth={"drag": drag + 0.1, "lift": lift + 0.1},
            prediction={"lift": 2 * lift},
            units={"drag": "N/m", "lift": "N/m"},
            how="by hand",
            path=path,
        )
        top, bottom = figure.axes
        assert top.get_ylabel() == "drag (N/m)" and bottom.get_ylabel() == "lift (N/m)"
        assert bottom.get_xlabel() == "t (s)" and path.stat().st_size > 5_000
        drawn = {line.get_label(): line.get_ydata() for line in bottom.lines if line.get_label()[0] != "_"}
        assert list(drawn) == ["solver", "true fields, by hand", "predicted fields, by hand"]
        np.testing.assert_allclose(drawn["solver"], lift)
        np.testing.assert_allclose(drawn["predicted fields, by hand"], 2 * lift)
        assert [line.get_label() for line in top.lines] == ["solver", "true fields, by hand"]

    def test_a_steady_force_is_a_line_and_not_its_rounding(self):
        noise = 1e-12 * np.random.default_rng(0).standard_normal((2, 21))
        figure = series_over_time(self.time, {"drag": 2 + noise[0], "lift": noise[1]}, units={"drag": "N", "lift": "N"})
        for axes in figure.axes:
            low, high = axes.get_ylim()
            assert high - low == pytest.approx(0.1, rel=0.01)
        other = series_over_time(self.time, {"drag": 2 + noise[0], "turn": noise[1]}, units={"drag": "N", "turn": "J"})
        assert np.diff(other.axes[1].get_ylim()) < 1e-10

    def test_a_prediction_that_blew_up_leaves_the_axes(self):
        wild = np.full(21, 1e30)
        wild[10:] = np.nan
        figure = series_over_time(self.time, {"drag": np.sin(self.time)}, prediction={"drag": wild})
        assert figure.axes[0].get_ylim()[1] < 2
        figure.canvas.draw()

    def test_bad_input(self):
        with pytest.raises(DataError, match="solver: drag has shape"):
            series_over_time(self.time, {"drag": np.zeros(20)})
        for nothing in ({}, {"drag": np.full(21, np.nan)}):
            with pytest.raises(DataError, match="nothing to draw"):
                series_over_time(self.time, nothing)


RUNS = {
    "cylinder": {"rollout.gif", "fields.png", "vorticity.png", "series.png"},
    "dam": {"rollout.gif", "fields.png", "series.png"},
    "two_phase_tube": {"rollout.gif", "fields.png", "series.png"},
}
FILES = {
    "cylinder": {".png", ".gif", "_fields.png", "_series.png"},
    "dam": {".png", ".gif", "_fields.png", "_series.png"},
    "two_phase_tube": {".png", ".gif", "_fields.png", "_series.png"},
}


def has_grey(path):
    """Whether a picture holds a square of four by four pixels in the grey of bodies, of which a GIF has 32."""
    with Image.open(path) as picture:
        seen = np.asarray(picture.convert("RGB")).astype(int)
    off = 10 if path.suffix == ".gif" else 2
    near = np.abs(seen - 255 * np.array(to_rgb(style.SOLID))).max(-1) <= off
    return bool(np.lib.stride_tricks.sliding_window_view(near, (4, 4)).all((2, 3)).any())


class TestRuns:
    @pytest.mark.parametrize("problem", RUNS)
    def test_pictures(self, tmp_path, problem):
        written = run_figures(write_flow_run(tmp_path, problem))
        named = {name.replace(".", "_one_case0.") for name in RUNS[problem]}
        assert {path.name for path in written} == named | {"rollout_error.png"}
        for path in written:
            if path.name.startswith(("fields", "vorticity", "rollout_one")):
                assert has_grey(path) == (problem != "two_phase_tube"), path.name

    @pytest.mark.parametrize(("problem", "name"), [("cylinder", "vorticity"), ("dam", "volume fraction")])
    def test_what_is_animated(self, tmp_path, monkeypatch, problem, name):
        seen = []
        monkeypatch.setattr(choices, "animate_rollout", lambda *_, **options: seen.append(options))
        (case,) = cases_of(read_predictions(write_flow_run(tmp_path, problem) / "predictions.npz"))
        choices.draw_animation(case, tmp_path)
        assert seen[0]["name"] == name

    def test_a_static_problem(self, tmp_path):
        fluid = np.ones((2, 24, 24))
        fluid[:, 8:16, 8:16] = 0
        for path in run_figures(write_map(tmp_path, cases=2, fluid=fluid)):
            assert has_grey(path) == path.name.startswith("fields")

    def test_without_bodies_and_series(self, tmp_path):
        """Of files that were written before there were any."""
        names = [path.name for path in run_figures(write_flow_run(tmp_path, "cylinder", series=None, fluid=None))]
        assert "vorticity_one_case0.png" in names and "series_one_case0.png" not in names

    def test_series_of_which_some_sources_are_missing_or_not_finite(self, tmp_path):
        lost = {"solver_drag": None, "truth_drag": None, "prediction_drag": None, "solver_lift": None}
        names = [path.name for path in run_figures(write_flow_run(tmp_path / "a", "cylinder", **lost))]
        assert "series_one_case0.png" in names
        lost |= {key: np.full((1, 5), np.nan) for key in ("truth_lift", "prediction_lift")}
        names = [path.name for path in run_figures(write_flow_run(tmp_path / "b", "cylinder", **lost))]
        assert "series_one_case0.png" not in names

    def test_a_rollout_that_blew_up(self, tmp_path):
        run = write_flow_run(tmp_path, "cylinder")
        with np.load(run / "predictions.npz") as file:
            arrays = dict(file)
        arrays["prediction"][:, 2:] = 1e30
        arrays["prediction"][:, 3:] = np.nan
        np.savez(run / "predictions.npz", **arrays)
        assert len(run_figures(run)) == 5

    @pytest.mark.parametrize(
        ("extra", "words"),
        [
            ({"fluid": np.ones((1, 16, 32))}, r"fluid has shape \(1, 16, 32\); expected \(1, 32, 16\)"),
            ({"series_units": np.array(["N"])}, "a unit for each of the series"),
            ({"series_units": None}, "a unit for each of the series"),
            ({"truth_lift": np.zeros((1, 4))}, r"truth_lift has shape \(1, 4\); expected \(1, 5\)"),
        ],
        ids=lambda v: str(v)[:20],
    )
    def test_arrays_that_do_not_fit(self, tmp_path, extra, words):
        with pytest.raises(DataError, match=words):
            run_figures(write_flow_run(tmp_path, "cylinder", **extra))


class TestDataFiles:
    @pytest.mark.parametrize("problem", FILES)
    def test_pictures(self, tmp_path, problem):
        path = write_flow(tmp_path / "data.h5", problem)
        written = case_figure(path, folder=tmp_path / "pictures")
        assert {each.name.removeprefix("data_case0") for each in written} == FILES[problem]
        for each in written:
            if "series" not in each.name:
                assert has_grey(each) == (problem != "two_phase_tube"), each.name

    def test_the_channel_keeps_its_proportion(self, tmp_path, monkeypatch):
        kept = []
        monkeypatch.setattr(style, "save", lambda figure, path: kept.append(figure))
        monkeypatch.setattr("sciml.plotting.data_file.animate_field", lambda *_, path, **__: path)
        case_figure(write_flow(tmp_path / "data.h5", "dam"))
        sheet = kept[0]
        sheet.canvas.draw()
        shown = [axes for axes in sheet.axes if axes.images and axes.get_xlim()[1] == pytest.approx(1.5)]
        assert len(shown) == 4
        for axes in shown:
            extent = axes.get_window_extent()
            assert extent.width / extent.height == pytest.approx(3.75, rel=0.01)
        assert len({round(axes.get_position().x0, 3) for axes in shown}) == 1

    def test_what_a_body_holds_sets_no_scale(self, tmp_path, monkeypatch):
        kept = []
        monkeypatch.setattr(style, "save", lambda figure, path: kept.append(figure))
        monkeypatch.setattr("sciml.plotting.data_file.animate_field", lambda *_, path, **__: path)
        case_figure(write_flow(tmp_path / "data.h5", "cylinder", inside=1e4))
        limits = [axes.images[0].get_clim() for figure in kept[:2] for axes in figure.axes if axes.images]
        assert len(limits) >= 6 and max(high for _, high in limits) < 1e3

    def test_one_frame_has_no_course(self, tmp_path):
        written = case_figure(write_flow(tmp_path / "data.h5", "cylinder", frames=1))
        assert [path.name for path in written] == ["data_case0.png"] and has_grey(written[0])


def test_our_blue_is_not_registered():
    """Nothing global is touched."""
    field_frames(np.clip(field(), 0, 1), look=LIQUID, **BOX)
    assert style.LIQUID not in matplotlib.colormaps
