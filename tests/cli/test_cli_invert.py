"""``sciml invert``, and what the other commands say of runs on weak problems."""

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cli_helpers import invoke

import sciml
from sciml.cli import options

QUICK = ("--samples", 32, "--chains", 2, "--warmup", 10)


@pytest.fixture(scope="module")
def case(latent_run):
    """Input function ``(P,)`` of a case, sensors ``(12, 2)`` and the pressure there."""
    problem = sciml.load(latent_run).problem
    inputs = problem.inputs(problem.draw_cases(1, 5))
    solution = problem.solve(inputs)[0, 0]
    inner = problem.points[(solution > 0.2 * solution.max())]
    chosen = torch.arange(0, len(inner), max(1, len(inner) // 12))[:12]
    places = inner[chosen]
    at = torch.cdist(places, problem.points).argmin(1)
    return inputs[0].numpy(), places.numpy(), solution[at].numpy()


def write(path, header, rows):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


@pytest.fixture
def observations(case, tmp_path):
    _, places, values = case
    return write(tmp_path / "obs.csv", ("x", "y", "pressure"), np.column_stack([places, values]).tolist())


class TestInversion:
    def test_chains_write_posterior_table_record_and_picture(self, latent_run, observations, case, tmp_path):
        truth = tmp_path / "truth.npy"
        np.save(truth, case[0])
        found = tmp_path / "found"
        result = invoke(
            "invert",
            latent_run,
            "--observations",
            observations,
            "--noise",
            0.01,
            *QUICK,
            "--out",
            found,
            "--truth",
            truth,
        )
        assert result.exit_code == 0, result.stderr
        for words in ("pressure at 12 sensors", "misfit", "0.01 Pa, given", "R-hat", "permeability", "against truth"):
            assert words in result.stdout
        assert str(found / "posterior.png") in result.stdout
        assert sorted(path.name for path in found.iterdir()) == [
            "inversion.json",
            "posterior.csv",
            "posterior.npz",
            "posterior.png",
        ]
        assert not (tmp_path / "found.new").exists()
        record = json.loads((found / "inversion.json").read_text())
        assert (record["chains"], record["draws"], record["sensors"]) == (2, 16, 12)
        assert record["noise"]["pressure"]["given"] == 0.01 and record["rhat"] > 0.9
        assert 0 <= record["truth"]["coverage"] <= 1 and record["truth"]["relative_l2"] > 0
        with np.load(found / "posterior.npz") as file:
            assert file["input_mean"].shape == (64,) and file["input_samples"].shape == (32, 64)
            assert file["solution_low"].shape == (1, 81)
            assert (file["input_low"] <= file["input_high"]).all() and (file["input_deviation"] >= 0).all()
            assert (file["noise_samples"] == np.float32(0.01)).all()
            mean = file["input_mean"]
        with (found / "posterior.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert list(rows[0]) == ["x", "y", "mean", "low", "high"] and len(rows) == 64
        assert np.allclose([float(row["mean"]) for row in rows], mean, rtol=1e-5)

    def test_unknown_noise_is_found_in_the_unit_of_the_field(self, latent_run, observations, case, tmp_path):
        result = invoke(
            "invert", latent_run, "-i", observations, *QUICK, "--out", tmp_path / "a", "--json", "--no-figures"
        )
        assert result.exit_code == 0, result.stderr
        record = json.loads(result.stdout)
        noise, size = record["noise"]["pressure"], np.sqrt(np.mean(case[2] ** 2))
        assert noise["given"] is None and record["misfit"] is None and record["figures"] == []
        assert 0 < noise["low"] < noise["median"] < noise["high"] < size

    def test_signal_to_noise_ratio_is_a_deviation(self, latent_run, observations, case, tmp_path):
        result = invoke(
            "invert", latent_run, "-i", observations, "--snr", 20, "--method", "map", "--out", tmp_path / "a", "--json"
        )
        expected = np.sqrt(np.mean(case[2] ** 2) / 100)
        record = json.loads(result.stdout)
        assert record["noise"]["pressure"]["given"] == pytest.approx(expected, rel=1e-3)
        assert (record["draws"], record["rhat"], record["effective_draws"]) == (1, None, None)

    def test_gaussian_and_most_probable(self, latent_run, observations, tmp_path):
        common = ("invert", latent_run, "-i", observations, "--noise", 0.01, "--no-figures", "--json")
        vi = json.loads(invoke(*common, "--method", "vi", "--samples", 30, "--out", tmp_path / "vi").stdout)
        assert (vi["chains"], vi["draws"]) == (1, 30)
        best = json.loads(invoke(*common, "--method", "map", "--out", tmp_path / "map").stdout)
        assert best["quantities"]["pressure"]["deviation"] == 0

    def test_the_same_seed_gives_the_same_draws(self, latent_run, observations, tmp_path):
        means = []
        for name, seed in (("a", 3), ("b", 3)):
            words = ("--samples", 16, "--chains", 2, "--warmup", 4, "--seed", seed, "--noise", 0.01, "--no-figures")
            invoke("invert", latent_run, "-i", observations, *words, "--out", tmp_path / name)
            with np.load(tmp_path / name / "posterior.npz") as file:
                means.append(file["input_mean"])
        assert (means[0] == means[1]).all() and means[0].std() > 0

    def test_what_the_training_has_not_seen_is_said(self, latent_run, case, tmp_path):
        _, places, values = case
        far = write(tmp_path / "far.csv", ("x", "y", "pressure"), np.column_stack([places, -values]).tolist())
        result = invoke("invert", latent_run, "-i", far, "--noise", 0.01, "--method", "map", "--out", tmp_path / "a")
        assert result.exit_code == 0
        assert "warning: the observations are not explained" in result.stderr
        record = json.loads((tmp_path / "a" / "inversion.json").read_text())
        assert any("not explained" in sentence for sentence in record["warnings"])

    def test_results_lie_in_the_run_and_are_replaced_on_demand_only(self, latent_run, observations, tmp_path):
        run = tmp_path / "run"
        shutil.copytree(latent_run, run)
        words = ("invert", run, "-i", observations, "--noise", 0.01, "--method", "map", "--no-figures")
        assert invoke(*words).exit_code == 0
        result = run / "inversions" / "obs"
        assert (result / "inversion.json").is_file()
        before = (result / "inversion.json").read_text()
        refused = invoke(*words)
        assert refused.exit_code == 2 and "--overwrite" in refused.stderr
        assert (result / "inversion.json").read_text() == before
        assert invoke(*words, "--overwrite", "--seed", 1).exit_code == 0
        assert json.loads((result / "inversion.json").read_text())["seed"] == 1
        mine = tmp_path / "mine"
        mine.mkdir()
        (mine / "thesis.tex").write_text("years")
        refused = invoke(*words, "--out", mine, "--overwrite")
        assert refused.exit_code == 2 and "not the result of an inversion" in refused.stderr
        assert (mine / "thesis.tex").is_file()


class TestBadInput:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--noise", 0), "--noise is 0; expected a standard deviation"),
            (("--noise", -1), "--noise is -1"),
            (("--noise", "nan"), "--noise is nan"),
            (("--snr", "inf"), "--snr is inf"),
            (("--noise", 0.1, "--snr", 20), "--noise and --snr exclude each other"),
            (("--method", "map", "--samples", 5), "--method map finds the most probable input function alone"),
            (("--method", "vi", "--chains", 5), "--method vi draws from a Gaussian"),
            (("--samples", 20), "over 8 chains are 3 a chain, too few"),
            (("--method", "mcmc"), "mcmc"),
        ],
    )
    def test_wrong_options_before_anything_is_loaded(self, observations, tmp_path, words, message):
        result = invoke("invert", tmp_path / "no_run", "-i", observations, *words)
        assert result.exit_code == 2 and message in result.stderr
        assert not (tmp_path / "no_run").exists()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (None, "No such file"),
            ("", "is empty; expected x,y and one or more of pressure"),
            ("x,pressure\n0.5,1\n", "y is missing"),
            ("x,y,presure\n0.5,0.5,1\n", "did you mean 'pressure'"),
            ("x,y\n0.5,0.5\n", "expected x,y and one or more of pressure"),
            ("x,y,pressure\n", "at least one sensor is needed"),
            ("x,y,pressure\n0.5,0.5,nan\n", "line 2: pressure is 'nan'; expected a number"),
            ("x,y,pressure\n0.5,0.5,high\n", "line 2: pressure is 'high'; expected a number"),
            ("x,y,pressure\n0.5,0.5\n", "line 2 has 2 entries; expected 3"),
            ("x,y,pressure\n0.5,0.5,1\n0.5,1.5,1\n", "sensor 1 at (0.5, 1.5)"),
        ],
    )
    def test_wrong_observations(self, latent_run, tmp_path, text, message):
        file = tmp_path / "obs.csv"
        if text is not None:
            file.write_text(text)
        result = invoke("invert", latent_run, "-i", file, "--noise", 0.1, "--out", tmp_path / "found")
        assert result.exit_code == 1 and message in result.stderr
        assert not (tmp_path / "found").exists()

    def test_observations_of_nothing_have_no_ratio(self, latent_run, tmp_path):
        file = write(tmp_path / "obs.csv", ("x", "y", "pressure"), [(0.5, 0.5, 0.0)])
        result = invoke("invert", latent_run, "-i", file, "--snr", 20, "--out", tmp_path / "found")
        assert result.exit_code == 2 and "these are all 0; give --noise" in result.stderr

    def test_noise_of_several_units(self):
        from sciml.cli.invert import _check_units
        from sciml.errors import ConfigError
        from sciml.problems.weak import get_weak_problem

        class Stub:
            problem = get_weak_problem("stokes", resolution=8)

        class Seen:
            channels = ("velocity_x", "velocity_y")

        _check_units(Stub, Seen)
        Seen.channels = ("velocity_x", "pressure")
        with pytest.raises(ConfigError, match=r"velocity_x \(m/s\), pressure \(Pa\)"):
            _check_units(Stub, Seen)

    def test_surrogates_of_another_kind(self, observations, tmp_path, monkeypatch):
        monkeypatch.setattr("sciml.surrogate.load", lambda run: SimpleNamespace(kind="step"))
        result = invoke("invert", tmp_path / "run", "-i", observations, "--noise", 0.1)
        assert result.exit_code == 2 and "is of kind step" in result.stderr and "dgno" in result.stderr

    @pytest.mark.parametrize(
        ("values", "message"),
        [(np.ones((2, 64)), "holds 2 input functions"), (np.ones(5), "(5,)"), (-np.ones(64), "must be positive")],
    )
    def test_wrong_truth(self, latent_run, observations, tmp_path, values, message):
        np.save(tmp_path / "truth.npy", values)
        out = ("--out", tmp_path / "found", "--truth", tmp_path / "truth.npy")
        result = invoke("invert", latent_run, "-i", observations, "--noise", 0.1, *out)
        assert result.exit_code == 1 and message in result.stderr


class TestOtherCommands:
    def test_evaluate_and_info_print_the_table_of_a_latent_run(self, latent_run):
        result = invoke("evaluate", latent_run)
        assert result.exit_code == 0
        for words in ("3 held-out cases", "pressure", "finer mesh", "decoded input"):
            assert words in result.stdout
        assert "decoded input" in invoke("info", latent_run).stdout

    def test_predict_maps_arrays_and_tables(self, latent_run, case, tmp_path):
        surrogate = sciml.load(latent_run)
        inputs = np.stack([case[0], 0.5 * case[0]])
        np.save(tmp_path / "inputs.npy", inputs.reshape(2, 8, 8))
        result = invoke("predict", latent_run, "-i", tmp_path / "inputs.npy", "-o", tmp_path / "a.npz", "--json")
        assert json.loads(result.stdout)["cases"] == 2
        shuffled = np.random.default_rng(0).permutation(64)
        table = np.column_stack([surrogate.problem.input_points.numpy(), *inputs])[shuffled]
        write(tmp_path / "inputs.csv", ("x", "y", "first", "second"), table.tolist())
        assert invoke("predict", latent_run, "-i", tmp_path / "inputs.csv", "-o", tmp_path / "b.npz").exit_code == 0
        expected = surrogate.solve(torch.as_tensor(inputs))["pressure"].numpy()
        for name in ("a", "b"):
            with np.load(tmp_path / f"{name}.npz") as file:
                assert np.allclose(file["pressure"], expected, atol=1e-6)
                assert file["points"].shape == (81, 2) and file["permeability"].shape == (2, 64)

    @pytest.mark.parametrize(
        ("name", "content", "words", "message"),
        [
            ("a.npy", np.ones(64), ("--steps", 3), "leave out --steps"),
            ("a.npy", np.ones(64), ("--points", 3), "--points chooses"),
            ("a.npy", np.ones(63), (), "expected (cases, 64), or (cases, 8, 8)"),
            ("a.npy", np.zeros(64), (), "must be positive"),
            ("a.csv", "x,y,a\n0.5,0.5,1\n", (), "has 1 points; darcy has 64"),
            ("a.csv", "x,a\n0.5,1\n", (), "expected x,y and one or more columns of permeability"),
            ("a.csv", "x,y,a\n" + 64 * "0.5,0.5,1\n", (), "has no row at"),
            ("a.csv", "x,y,a\n0.5,0.5,one\n", (), "line 2 is '0.5,0.5,one'"),
            ("a.npy", "not an array", (), "cannot read"),
        ],
    )
    def test_predict_says_what_is_wrong(self, latent_run, tmp_path, name, content, words, message):
        if isinstance(content, str):
            (tmp_path / name).write_text(content)
        else:
            np.save(tmp_path / name, content)
        result = invoke("predict", latent_run, "-i", tmp_path / name, "-o", tmp_path / "out.npz", *words)
        assert result.exit_code in (1, 2) and message in result.stderr
        assert not (tmp_path / "out.npz").exists()

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--problem", "darcy", "--data", "x.h5"), "leave --data and --split out"),
            (("--problem", "darcy", "--split", "extrapolate"), "leave --data and --split out"),
            (("--problem", "darcy", "--dim", 3), "leave --dim out"),
            (("--problem", "cavity"), "no weak form of a problem 'cavity'"),
            (("--problem", "darcy", "--constraint", "divergence-free"), "constraints is for operators between fields"),
            (("--problem", "darcy", "data.subset=piecewse"), "did you mean 'piecewise'"),
        ],
    )
    def test_train_says_what_dgno_cannot(self, words, message):
        result = invoke("train", "--operator", "dgno", *words)
        assert result.exit_code == 2 and message in result.stderr

    def test_train_knows_dgno_among_the_operators(self):
        assert "did you mean 'dgno'" in invoke("train", "--problem", "darcy", "--operator", "dgn").stderr
        assert "did you mean 'stokes'" in invoke("train", "--problem", "stoks").stderr
        assert "learned by dgno alone" in invoke("train", "--problem", "stokes", "--operator", "fno").stderr
        config = invoke("train", "--problem", "stokes", "--physics-only", "--print-config").stdout
        assert "name: dgno" in config and "learn: physics" in config

    def test_generate_leaves_weak_forms_to_training(self):
        for words in (("--problem", "stokes"), ("--problem", "darcy", "--subset", "waves")):
            result = invoke("generate", *words, "--out", "x.h5")
            assert result.exit_code == 2 and "weak form alone" in result.stderr

    def test_names_are_the_registered_ones(self):
        from sciml.operators import LATENT_OPERATORS
        from sciml.problems.weak import WEAK_PROBLEMS
        from sciml.training.latent.config import OPERATOR, WEAK_ONLY

        assert {name: problem.subsets for name, problem in WEAK_PROBLEMS.items()} == options.WEAK_PROBLEMS
        assert set(options.LATENT_OPERATORS) == set(LATENT_OPERATORS) == {OPERATOR}
        assert set(options.WEAK_ONLY) == set(WEAK_ONLY)

    def test_problems_list_and_describe_weak_forms(self):
        text = invoke("problems").stdout
        assert "Weak forms" in text and "stokes" in text and "inflow" in text
        assert "piecewise, waves, smooth, fno" in invoke("problems", "darcy").stdout
        alone = invoke("problems", "stokes").stdout
        assert (
            alone.startswith("stokes: Stokes flow past a disc, 2D") and "velocity (2, m/s), pressure (1, Pa)" in alone
        )
        described = json.loads(invoke("problems", "stokes", "--json").stdout)
        assert described["weak_form"]["subsets"] == ["waves"]
        assert json.loads(invoke("problems", "cavity", "--json").stdout)["weak_form"] is None
        assert invoke("problems", "stokes", "--dim", 3).exit_code == 2
