"""The pictures of a run suit its problem: which files, that they show something, and what their axes say."""

from functools import partial

import matplotlib
import numpy as np
import pytest
from PIL import Image
from plotting_runs import channel_flow, trajectory, write_map, write_predictions

from sciml.errors import DataError
from sciml.plotting import run_figures, style
from sciml.plotting.predictions import cases_of, read_predictions


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    """What is tested needs no fine print, and drawing it costs a second each."""
    monkeypatch.setattr(style, "save", partial(style.save, dpi=50))


def check_pictures(run, expected):
    """Exactly the expected files, each with contrast."""
    written = run_figures(run)
    assert {path.name for path in written} == set(expected)
    for path in written:
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 8, path.name


PERIODIC = [
    # problem, dim, fields, kinds of picture of a case
    ("vorticity", 2, {"vorticity": 1}, ("fields", "spectrum")),
    ("burgers", 2, {"velocity": 2}, ("fields",)),
    ("my own", 1, {"height": 1}, ("space_time", "lines")),
    ("periodic_flow", 3, {"velocity": 3}, ("fields", "slices", "spectrum")),
    ("gray_scott", 3, {"species_a": 1, "species_b": 1}, ("fields", "slices")),
    ("my own", 2, {"temperature": 1, "velocity": 2}, ("fields",)),
]


class TestProblems:
    @pytest.mark.parametrize(("problem", "dim", "fields", "kinds"), PERIODIC, ids=lambda v: str(v)[:20])
    def test_pictures(self, tmp_path, problem, dim, fields, kinds):
        grid = {1: (32,), 2: (16, 16), 3: (10, 8, 12)}[dim]
        truth, prediction = trajectory(grid, sum(fields.values()), frames=3, cases=1)
        units = ["m/s"] * len(fields)
        run = write_predictions(tmp_path, problem, fields, truth, prediction, (1.0,) * dim, units=units)
        expected = {f"{kind}_one_case0.png" for kind in kinds} | {"rollout_error.png"}
        check_pictures(run, expected | ({"rollout_one_case0.gif"} if dim > 1 else set()))

    @pytest.mark.parametrize("length", [4.0, 10.0])
    def test_tube(self, tmp_path, length):
        truth, prediction = channel_flow()
        run = write_predictions(tmp_path, "tube", {"velocity": 2}, truth, prediction, (length, 1.0), units=["m/s"])
        check_pictures(
            run, {"rollout_error.png", "rollout_one_case0.gif", "fields_one_case0.png", "profiles_one_case0.png"}
        )
        with Image.open(run / "figures" / "fields_one_case0.png") as picture:
            assert max(picture.size) < 1.6 * min(picture.size)

    def test_every_case_is_drawn_and_only_the_first_is_animated(self, tmp_path):
        truth, prediction = trajectory((12, 12), 1, frames=2, cases=3)
        run = write_predictions(tmp_path, "my own", {"height": 1}, truth, prediction, (1, 1), units=["m"])
        names = [path.name for path in run_figures(run)]
        assert sum(name.startswith("fields") for name in names) == 3
        assert [name for name in names if name.endswith("gif")] == ["rollout_one_case0.gif"]

    @pytest.mark.parametrize(
        ("problem", "dim", "value"),
        [("burgers", 1, np.nan), ("vorticity", 2, np.inf), ("periodic_flow", 3, 1e30), ("tube", 2, 1e30)],
    )
    def test_a_prediction_that_blew_up(self, tmp_path, problem, dim, value):
        if problem == "tube":
            truth, prediction = channel_flow(nx=24, ny=8)
        else:
            truth, prediction = trajectory((8,) * dim, dim if problem == "periodic_flow" else 1, cases=1)
        prediction[:, 2:] = value
        fields = {"vorticity" if problem == "vorticity" else "velocity": truth.shape[2]}
        run = write_predictions(tmp_path, problem, fields, truth, prediction, (1.0,) * dim, units=["m/s"])
        assert len(run_figures(run)) >= 3

    def test_species_b_is_shown_and_a_vector_wherever_it_stands(self, tmp_path):
        truth, prediction = trajectory((8, 8), 3, cases=1)
        shown = {}
        for problem, fields in [
            ("gray_scott", {"species_a": 1, "species_b": 1, "x": 1}),
            ("other", {"p": 1, "velocity": 2}),
        ]:
            write_predictions(tmp_path, problem, fields, truth, prediction, (2.0, 3.0), units=["1"] * len(fields))
            shown[problem] = next(cases_of(read_predictions(tmp_path / "predictions.npz")))
        np.testing.assert_array_equal(shown["gray_scott"].truth, truth[0, :, 1:2].astype(np.float32))
        np.testing.assert_array_equal(shown["other"].truth, truth[0, :, 1:].astype(np.float32))
        assert shown["other"].lengths == (2.0, 3.0) and shown["other"].label is None

    def test_pyplot_stays_out(self, tmp_path):
        before = dict(matplotlib.rcParams)
        run_figures(write_map(tmp_path, (12, 12), 2))
        assert dict(matplotlib.rcParams) == before


class TestStatic:
    @pytest.mark.parametrize(("grid", "points"), [((24,), 0), ((16, 12), 20), ((8, 8, 10), 20)], ids=str)
    def test_pictures(self, tmp_path, grid, points):
        run = write_map(tmp_path, grid, cases=2, observed=points)
        check_pictures(run, {"case_errors.png", "fields_one.png", "fields_two.png"})

    def test_without_contenders_and_labels(self, tmp_path):
        run = write_map(tmp_path, cases=2, subset=None, case=None, mean_relative_l2=None, lookup_relative_l2=None)
        (run / "predictions.npz").rename(tmp_path / "old.npz")
        with np.load(tmp_path / "old.npz") as old:
            np.savez(run / "predictions.npz", **{k: old[k] for k in old.files if k not in ("inputs", "input_units")})
        check_pictures(run, {"case_errors.png", "fields.png"})

    def test_a_prediction_that_is_not_finite(self, tmp_path):
        errors = np.array([0.1, np.inf, np.nan])
        run = write_map(tmp_path, cases=2, prediction=np.full((2, 1, 1, 24, 24), np.nan), relative_l2=errors)
        assert len(run_figures(run)) == 3


class TestBadFiles:
    @pytest.mark.parametrize(
        ("extra", "words"),
        [
            ({"lengths": np.ones((2, 3))}, "lengths is"),
            ({"lengths": np.array([[1.0, -1.0]] * 2)}, "must be positive"),
            ({"origin": np.array([0.0, np.nan])}, "origin is"),
            ({"units": np.array(["m/s", "Pa"])}, "do not fit 1 channels"),
            ({"components": np.array([2])}, "do not fit 1 channels"),
            ({"kind": np.array("sideways")}, "'step' or 'map'"),
            ({"subset": np.array(["one"] * 5)}, "subset has shape"),
            ({"kind": np.array("map")}, "one frame"),
        ],
        ids=lambda v: str(v)[:20],
    )
    def test_arrays_that_do_not_fit(self, tmp_path, extra, words):
        truth, prediction = trajectory((8, 8), 1)
        values = {"lengths": (1.0, 1.0), "units": ["1/s"]} | extra
        write_predictions(tmp_path, "vorticity", {"vorticity": 1}, truth, prediction, **values)
        with pytest.raises(DataError, match=words):
            run_figures(tmp_path)

    @pytest.mark.parametrize(
        ("extra", "words"),
        [
            ({"input": None}, "input is missing"),
            ({"input": np.ones((4, 1, 9, 9))}, "input is of shape"),
            ({"points": np.ones((4, 5, 3))}, "points have shape"),
        ],
        ids=lambda v: str(v)[:20],
    )
    def test_a_static_file_that_does_not_fit(self, tmp_path, extra, words):
        with pytest.raises(DataError, match=words):
            run_figures(write_map(tmp_path, **extra))
