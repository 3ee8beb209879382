"""Pictures of weak problems: layouts of points, cases of a run, posteriors, training curves."""

import json
import shutil

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import sciml
from sciml.errors import ConfigError, DataError
from sciml.plotting import inversion_figures, run_figures
from sciml.plotting.latent.cases import latent_case
from sciml.plotting.latent.curves import bound_curves
from sciml.plotting.latent.layout import make_layout
from sciml.plotting.latent.posterior import Uncertain, posterior_figure
from sciml.progress import Progress
from sciml.surrogate.latent import Observations


def grid(*sizes):
    axes = np.meshgrid(*(np.linspace(0, 1, n) for n in sizes), indexing="ij")
    return np.stack([axis.ravel() for axis in axes], -1)


def ring(n=400, hole=0.3, seed=0):
    """Scattered points of the square around a disc, its rim among them."""
    points = np.random.default_rng(seed).uniform(-1, 1, (n, 2))
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    rim = hole * np.stack([np.cos(angle), np.sin(angle)], -1)
    corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    return np.concatenate([points[np.linalg.norm(points, axis=1) > hole], rim, corners])


def texts(figure: Figure) -> str:
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
    return "\n".join(found)


class TestLayout:
    def test_a_product_is_a_grid_whose_cells_stay_in_the_box(self):
        layout = make_layout(grid(5, 3), ("x", "y"), ((0.0, 0.0), (1.0, 1.0)))
        assert layout.extent == ((0.0, 1.0), (0.0, 1.0))
        across, up = layout.edges
        assert np.allclose(across, [0, 0.125, 0.375, 0.625, 0.875, 1]) and len(up) == 4
        assert make_layout(grid(5, 3), ("x", "y")).extent[0] == (-0.125, 1.125)

    def test_the_first_coordinate_goes_to_the_right(self):
        points = grid(4, 3)
        layout = make_layout(points, ("x", "t"), ((0.0, 0.0), (1.0, 1.0)))
        axes = Figure().subplots()
        mesh = layout.draw(axes, points[:, 0], (0.0, 1.0), "viridis")
        image = np.asarray(mesh.get_array()).reshape(3, 4)
        assert np.allclose(image[0], np.linspace(0, 1, 4)) and np.allclose(image[:, 0], 0)
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("x (m)", "t (s)")

    def test_scattered_points_leave_the_hole_open(self):
        points = ring()
        layout = make_layout(points, ("x", "y"), inside=lambda p: np.linalg.norm(p, axis=-1) > 0.3)
        assert layout.edges is None
        shown = points[layout.triangles.get_masked_triangles()]
        assert (np.linalg.norm(shown.mean(1), axis=1) > 0.29).all()
        side_a, side_b = shown[:, 1] - shown[:, 0], shown[:, 2] - shown[:, 0]
        area = 0.5 * np.abs(side_a[:, 0] * side_b[:, 1] - side_a[:, 1] * side_b[:, 0]).sum()
        assert area == pytest.approx(4 - np.pi * 0.09, rel=0.01)

    def test_what_cannot_be_laid_out(self):
        with pytest.raises(DataError, match=r"expected one or two coordinates"):
            make_layout(grid(3, 3, 3), ("x", "y", "t"))
        with pytest.raises(DataError, match=r"span no area"):
            make_layout(np.array([[0, 0], [1, 1], [2, 2], [3, 3]]), ("x", "y"))


class TestFigures:
    def test_a_case_on_a_line_and_on_scattered_points(self, tmp_path):
        line, points = grid(20), ring()
        given = np.sin(3 * line[:, 0])
        truth = np.stack([points[:, 0], points[:, 1] ** 2])
        figure = latent_case(
            make_layout(line, ("y",)),
            make_layout(points, ("x", "y")),
            given,
            1.1 * given,
            truth,
            1.01 * truth,
            input_name=("inflow", "m/s"),
            channels=[("velocity_x", "m/s"), ("pressure", "Pa")],
            title="a case",
            path=tmp_path / "case.png",
        )
        assert (tmp_path / "case.png").stat().st_size > 10_000
        said = texts(figure)
        assert "rel. L2 10 %" in said and said.count("rel. L2 1 %") == 2
        assert "velocity x (m/s)" in said and "pressure (Pa)" in said and "y (m)" in said and "a case" in said
        inside = [axes.get_position() for axes in figure.axes]
        assert all(box.x0 >= 0 and box.x1 <= 1 and box.y0 >= 0 and box.y1 <= 1 for box in inside)

    def test_shapes_that_do_not_fit(self):
        layout, points = make_layout(grid(4, 4), ("x", "y")), np.zeros(16)
        named = {"input_name": ("a", "1"), "channels": [("u", "1")]}
        with pytest.raises(DataError, match=r"do not fit 1 channels at 16 points"):
            latent_case(layout, layout, points, points, np.zeros((2, 16)), np.zeros((2, 16)), **named)
        with pytest.raises(DataError, match=r"do not fit 16 points"):
            latent_case(layout, layout, points[:3], points[:3], points[None], points[None], **named)

    def test_a_band_holds_draws_mean_and_truth(self):
        line = make_layout(grid(20), ("x",))
        mean = np.linspace(0, 1, 20)
        found = Uncertain(mean, 0.1 + 0 * mean, mean - 0.2, mean + 0.2)
        figure = posterior_figure(
            line,
            line,
            found,
            [found],
            input_name=("initial", "m/s"),
            channels=[("velocity", "m/s")],
            sensors=np.array([[0.5]]),
            observed={"velocity": np.array([0.5])},
            samples=np.stack([mean, mean + 0.1]),
            truth=mean + 0.05,
        )
        labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert labels == ["90 % band", "draws", "posterior mean", "truth"]

    def test_sensors_have_the_colour_of_what_they_saw(self):
        layout = make_layout(grid(6, 6), ("x", "y"), ((0.0, 0.0), (1.0, 1.0)))
        mean = layout.points[:, 0]
        found = Uncertain(mean, 0.1 + 0 * mean, mean - 0.2, mean + 0.2)
        sensors, values = np.array([[0.2, 0.2], [0.9, 0.5]]), np.array([0.25, 0.8])
        figure = posterior_figure(
            layout,
            layout,
            found,
            [found],
            input_name=("permeability", "1"),
            channels=[("pressure", "Pa")],
            sensors=sensors,
            observed={"pressure": values},
        )
        dots = [c for axes in figure.axes for c in axes.collections if len(c.get_offsets()) == 2]
        assert all(np.allclose(each.get_offsets(), sensors) for each in dots) and len(dots) == 4
        assert [np.asarray(each.get_array()).tolist() for each in dots if each.get_array() is not None] == [
            values.tolist()
        ]

    def test_a_bound_of_both_signs_is_drawn(self, tmp_path):
        records = [{"step": n, "loss": 1.0 - n, "residual": 0.9**n, "learning_rate": 1e-3} for n in range(10)]
        records.append({"step": 9, "validation": {"relative_l2": 0.2}})
        figure = bound_curves(records, path=tmp_path / "a.png")
        lines = [line for axes in figure.axes for line in axes.get_lines()]
        assert [len(line.get_xdata()) for line in lines] == [10, 1, 10, 10]
        assert lines[2].get_ydata().min() == -8
        with pytest.raises(DataError, match=r"nothing to draw"):
            bound_curves([{"step": 1}])


class TestRun:
    def test_pictures_of_a_run(self, latent_run, tmp_path):
        run = tmp_path / "run"
        shutil.copytree(latent_run, run)
        shutil.rmtree(run / "figures", ignore_errors=True)
        written = run_figures(run)
        assert [path.name for path in written] == ["training.png", "case_0.png", "case_1.png", "case_2.png"]
        assert all(path.stat().st_size > 10_000 for path in written)

    def test_damaged_predictions_are_said(self, latent_run, tmp_path):
        run = tmp_path / "run"
        shutil.copytree(latent_run, run)
        np.savez(run / "predictions.npz", input=np.zeros((1, 3)))
        with pytest.raises(DataError, match=r"lacks input_decoded, solution, solution_predicted"):
            run_figures(run)
        (run / "predictions.npz").write_bytes(b"nothing")
        with pytest.raises(DataError, match=r"cannot read"):
            run_figures(run)

    def test_a_problem_of_ones_own_keeps_its_training_curve(self, latent_run, tmp_path, monkeypatch):
        class Told(Progress):
            def message(self, text):
                said.append(text)

        def unknown(run):
            raise ConfigError("no problem 'mine'")

        said: list[str] = []
        monkeypatch.setattr("sciml.surrogate.load", unknown)
        run = tmp_path / "run"
        shutil.copytree(latent_run, run)
        assert [path.name for path in run_figures(run, Told())] == ["training.png"]
        assert said == ["the cases are not drawn: no problem 'mine'"]

    def test_pictures_of_an_inversion(self, latent_run, tmp_path):
        surrogate = sciml.load(latent_run)
        problem = surrogate.problem
        inputs = problem.inputs(problem.draw_cases(1, 3))
        solution = problem.solve(inputs)[0]
        seen = Observations(problem.points[30:50:3], solution[:, 30:50:3].T, ("pressure",))
        found = surrogate.invert(seen, 0.01, method="map", draws=1, chains=1, starts=2)
        (path,) = inversion_figures(found, tmp_path, truth=inputs[0].numpy())
        assert path.name == "posterior.png" and path.stat().st_size > 10_000
        with pytest.raises(DataError, match=r"the truth has shape \(3,\)"):
            inversion_figures(found, tmp_path, truth=np.zeros(3))

    def test_posteriors_are_summarised_in_parts(self, latent_run, monkeypatch):
        from sciml.surrogate.latent import posterior

        surrogate = sciml.load(latent_run)
        problem = surrogate.problem
        solution = problem.solve(problem.inputs(problem.draw_cases(1, 3)))[0]
        seen = Observations(problem.points[30:50:3], solution[:, 30:50:3].T, ("pressure",))
        found = surrogate.invert(seen, 0.01, method="vi", draws=20, chains=1, starts=2)
        whole = posterior.summarise(found)
        monkeypatch.setattr(posterior, "AT_ONCE", 20 * 7)
        parts = posterior.summarise(found)
        assert torch.allclose(whole.solution.mean, parts.solution.mean, atol=1e-6)
        assert torch.allclose(whole.solution.high, parts.solution.high, atol=1e-6)
        assert whole.rhat is None and whole.samples.shape == (20, 64)
        assert json.dumps(whole.effective) == "null"
