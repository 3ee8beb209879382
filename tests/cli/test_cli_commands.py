"""Each command: its arguments reach the work, its result goes to stdout and everything else to stderr."""

import json
from pathlib import Path

import pytest
from cli_helpers import SUMMARY, invoke

from sciml.errors import DataError
from sciml.problems import PARTICLE_PROBLEMS, PROBLEMS
from sciml.problems.generate import Generation
from sciml.problems.weak import WEAK_PROBLEMS


class TestTrain:
    def test_flags_reach_the_configuration(self, recorder, tmp_path):
        result = invoke(
            "train", "--problem", "cavity", "--operator", "fno", "--device", "cpu", "--seed", 7,
            "--epochs", 3, "--time-limit", 1.5, "--split", "extrapolate", "--out", tmp_path / "o",
            "batch_size=8", "optimizer.learning_rate=1e-3",
        )  # fmt: skip
        assert result.exit_code == 0, result.stderr
        config = recorder.config
        assert (config.problem, config.operator.name, config.device, config.seed) == (
            "cavity",
            "fno",
            "cpu",
            7,
        )
        assert (config.budget.epochs, config.budget.minutes, config.data.split) == (3, 1.5, "extrapolate")
        assert (config.batch_size, config.optimizer.learning_rate) == (8, 1e-3)
        assert recorder.out == tmp_path / "o" and recorder.resume is None

    def test_flags_that_are_not_given_change_nothing(self, recorder):
        from sciml.training import resolve_config

        assert invoke("train", "--problem", "cavity").exit_code == 0
        assert recorder.config == resolve_config("cavity")

    def test_data_files_from_a_shell_pattern(self, recorder):
        result = invoke("train", "-p", "cavity", "--data", "a.h5", "b.h5", "c.hdf5", "batch_size=4", "--data", "d.h5")
        assert result.exit_code == 0, result.stderr
        assert sorted(recorder.config.data.files) == ["a.h5", "b.h5", "c.hdf5", "d.h5"]

    def test_table_and_next_steps(self, recorder):
        result = invoke("train", "--problem", "cavity")
        for words in (
            "unet",
            "look-up",
            "persistence",
            "all (30)",
            "bc (9)",
            "1e-05",
            "sciml plot",
            "sciml predict",
            "sciml.load",
        ):
            assert words in result.stdout
        assert "unet with 1,234 parameters [cpu]" in result.stderr
        assert "1,234" not in result.stdout and "\x1b" not in result.output

    def test_json_is_all_of_stdout(self, recorder):
        result = invoke("train", "--problem", "cavity", "--json")
        content = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert content["n_parameters"] == 1234 and content["directory"] == str(recorder.directory)
        assert content["test"]["lookup_rollout_relative_l2"] == [0.05, None]
        assert "persistence" in result.stderr

    def test_no_figures(self, recorder):
        assert json.loads(invoke("train", "-p", "cavity", "--json", "--no-figures").stdout)["figures"] == []

    def test_a_picture_that_fails_does_not_cost_the_result(self, recorder, monkeypatch):
        def fail(*_):
            raise DataError("damaged")

        monkeypatch.setattr("sciml.plotting.run_figures", fail, raising=False)
        result = invoke("train", "--problem", "cavity", "--json")
        assert result.exit_code == 0 and "no pictures: damaged" in result.stderr
        assert json.loads(result.stdout)["figures"] == []

    def test_print_config_can_be_read_again(self, recorder, tmp_path):
        printed = invoke("train", "--problem", "cavity", "--seed", 5, "--print-config")
        assert printed.exit_code == 0 and not hasattr(recorder, "config")
        file = tmp_path / "mine.yaml"
        file.write_text(printed.stdout)
        assert invoke("train", "--config", file, "batch_size=4").exit_code == 0
        assert (recorder.config.seed, recorder.config.batch_size) == (5, 4)

    def test_resume_alone_takes_the_configuration_of_the_run(self, recorder, tmp_path):
        run = tmp_path / "old"
        run.mkdir()
        (run / "config.yaml").write_text(invoke("train", "-p", "cavity", "--seed", 9, "--print-config").stdout)
        assert invoke("train", "--resume", run).exit_code == 0
        assert recorder.config.seed == 9 and recorder.resume == str(run)

    def test_from_reaches_the_configuration(self, recorder, tmp_path):
        (tmp_path / "published").mkdir()
        (tmp_path / "published" / "config.json").write_text('{"architectures": ["ScOT"]}')
        result = invoke("train", "--problem", "cavity", "--from", "published", "operator.resize=spectral")
        assert result.exit_code == 0, result.stderr
        config = recorder.config
        assert config.pretrained == str(tmp_path / "published")
        assert config.operator.model_dump() == {"name": "poseidon", "resize": "spectral"}
        assert config.optimizer.group_rates.keys() == {"embedding_recovery", "time_embedding"}
        # As a run records it, and 'sciml train --resume RUN' reads it.
        (tmp_path / "config.yaml").write_text(config.to_yaml())
        assert invoke("train", "--resume", tmp_path).exit_code == 0
        assert recorder.config == config

    def test_from_a_hub_needs_the_operator(self, recorder):
        arguments = ("train", "--problem", "cavity", "--from", "camlab-ethz/Poseidon-T")
        result = invoke(*arguments)
        assert result.exit_code == 1 and "with --operator poseidon a hub id" in " ".join(result.stderr.split())
        assert invoke(*arguments, "--operator", "poseidon").exit_code == 0
        assert recorder.config.pretrained == "camlab-ethz/Poseidon-T"

    def test_resume_auto(self, recorder):
        assert invoke("train", "-p", "cavity", "--resume", "auto").exit_code == 0
        assert recorder.resume == "auto"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--problem", "cavty"], "did you mean 'cavity'"),
            (["--problem", "cavity", "--operator", "fnoo"], "fno"),
            (["--problem", "cavity", "optimizer.learning_rat=1"], "learning_rate"),
            (["--problem", "cavity", "batch_size"], "batch_size"),
            (["--problem", "cavity", "batch_size=-1"], "batch_size"),
            (["--problem", "cavity", "--config", "missing.yaml"], "missing.yaml"),
            (["--seed", "1"], "--problem"),
        ],
        ids=str,
    )
    def test_mistakes(self, recorder, arguments, words):
        result = invoke("train", *arguments)
        assert result.exit_code == 2, result.stderr
        assert result.stderr.startswith("error: ") and words in result.stderr and result.stdout == ""
        assert not hasattr(recorder, "config"), "found out after the work had begun"

    def test_only_the_first_process_speaks(self, recorder, monkeypatch):
        monkeypatch.setenv("RANK", "1")
        result = invoke("train", "--problem", "cavity", "--json")
        assert result.exit_code == 0 and result.output == ""


class TestGenerate:
    def test_arguments(self, monkeypatch, tmp_path):
        given = {}

        def generate(problem, out, **options):
            given.update(options, problem=problem.name, dim=problem.dim)
            out.write_bytes(b"12345")
            return Generation(out, cases=3, solved=2, seconds=5.0, processes=2)

        monkeypatch.setattr("sciml.problems.generate.generate_timed", generate)
        out = tmp_path / "x.h5"
        result = invoke(
            "generate", "--problem", "cavity", "--subset", "geo", "--cases", 12, "--resolution", 32,
            "--frames", 5, "--out", out, "--shard", "2/4", "--seed", 3, "--workers", 2, "--dim", 2, "--json",
        )  # fmt: skip
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout) == {
            "file": str(out),
            "bytes": 5,
            "cases": 3,
            "solved": 2,
            "seconds": 5.0,
            "seconds_per_case": 2.5,
            "workers": 2,
        }
        assert "2 cases in 5 s, 2.5 s per case on 2 processes; look at it with: sciml info" in result.stderr
        expected = {
            "problem": "cavity",
            "subset": "geo",
            "cases": 12,
            "resolution": 32,
            "frames": 5,
            "shard": (2, 4),
            "dim": 2,
        }
        expected |= {"seed": 3, "workers": 2, "device": "cpu"}
        assert {name: given[name] for name in expected} == expected

    def test_defaults_are_the_problem_s(self, tmp_path):
        result = invoke("generate", "-p", "darcy", "--cases", 2, "--resolution", 16, "--out", "x.h5", "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["workers"] == 1
        content = json.loads(invoke("info", "x.h5", "--json").stdout)
        assert (content["frames"], content["grid"], content["cases"]) == (1, "16x16", 2)

    def test_unknown_dimension(self):
        result = invoke("generate", "-p", "cavity", "--dim", 3, "--out", "x.h5")
        assert result.exit_code == 2 and "does not exist in 3D; it exists in 2D" in result.stderr

    @pytest.mark.parametrize("shard", ["3", "0/2", "3/2", "a/b", "1/2/3"])
    def test_bad_shard(self, shard):
        result = invoke("generate", "-p", "cavity", "--out", "x.h5", "--shard", shard)
        assert result.exit_code == 2 and "I/N" in result.stderr


class TestSmallCommands:
    def test_problems(self):
        result = invoke("problems")
        assert result.exit_code == 0
        for name, problem in PROBLEMS.items():
            assert name in result.stdout and problem.title.split()[0] in result.stdout
        assert "lid_velocity" not in result.stdout and "sciml problems NAME" in result.stdout
        everything = json.loads(invoke("problems", "--json").stdout)
        assert {each["name"] for each in everything} == {*PROBLEMS, *PARTICLE_PROBLEMS, *WEAK_PROBLEMS}
        content = json.loads(invoke("problems", "cavity", "--json").stdout)
        assert content["fields"]["velocity"] == {"components": 2, "unit": "m/s"}
        assert (content["dims"], content["resolution"], content["frames"], content["static"]) == ([2], 64, 21, False)
        assert content["parameters"]["viscosity"]["default"] is None
        assert invoke("problems", "cavty").exit_code == 2

    @pytest.mark.parametrize("name", sorted(PROBLEMS))
    def test_a_problem(self, name):
        result = invoke("problems", name)
        assert result.exit_code == 0, result.stderr
        problem = PROBLEMS[name]()
        for parameter in problem.parameters:
            assert parameter.name in result.stdout
        words = (f"{problem.resolution} (default)", "one frame" if problem.static else f"{problem.frames}, ")
        assert all(word in result.stdout for word in words)
        assert result.stdout.count("draw (a whole number") == len(problem.draw_names)

    def test_a_problem_in_other_dimensions(self):
        content = json.loads(invoke("problems", "periodic_flow", "--dim", 2, "--json").stdout)
        assert content["dim"] == 2 and content["dims"] == [3, 2]
        assert content["fields"]["velocity"]["components"] == 2
        assert "2D" in invoke("problems", "periodic_flow", "--dim", 2).stdout.splitlines()[0]
        assert invoke("problems", "cavity", "--dim", 3).exit_code == 2
        assert "--dim goes with" in invoke("problems", "--dim", 3).stderr

    def test_evaluate(self, monkeypatch, tmp_path):
        given = []
        monkeypatch.setattr("sciml.training.evaluate_run", lambda *a: given.append(a) or SUMMARY["test"], raising=False)
        assert "persistence" in invoke("evaluate", tmp_path, "--split", "extrapolate").stdout
        assert json.loads(invoke("evaluate", tmp_path, "--data", "a.h5", "b.h5", "--json").stdout)["cases"] == 30
        assert given[0][:3] == (tmp_path, None, "extrapolate")
        assert given[1][:3] == (tmp_path, [Path("a.h5"), Path("b.h5")], None)
        assert invoke("evaluate", tmp_path, "--data", "a.h5", "--split", "random").exit_code == 2
        assert invoke("evaluate", tmp_path, "b.h5").exit_code == 2

    def test_plot(self, monkeypatch, tmp_path):
        paths = [tmp_path / "figures" / name for name in ("a.png", "b.gif")]
        monkeypatch.setattr("sciml.plotting.run_figures", lambda run, progress: paths, raising=False)
        assert invoke("plot", tmp_path).stdout.split() == [str(path) for path in paths]
        assert json.loads(invoke("plot", tmp_path, "--json").stdout) == {"figures": [str(path) for path in paths]}

    def test_info_of_a_run(self, tmp_path):
        run = tmp_path / "run"
        (run / "checkpoints" / "step_00000010").mkdir(parents=True)
        (run / "config.yaml").write_text("problem: cavity\nseed: 3\noperator: {name: fno}\n")
        content = json.loads(invoke("info", run, "--json").stdout)
        assert content["kind"] == "run" and content["checkpoint"] == "step_00000010"
        assert "--resume" in content["state"] and content["operator"] == "fno"
        (run / "summary.json").write_text(json.dumps(SUMMARY))
        result = invoke("info", run)
        assert "finished" in result.stdout and "persistence" in result.stdout and "1,234" not in result.stderr

    def test_info_of_a_surrogate(self, tmp_path):
        content = {
            "problem": "cavity",
            "fields": {"velocity": {"unit": "m/s"}},
            "ranges": {"height": [0.007, 0.014]},
        }
        (tmp_path / "surrogate.json").write_text(json.dumps(content))
        result = invoke("info", tmp_path)
        assert result.exit_code == 0 and "0.007 to 0.014" in result.stdout

    @pytest.mark.parametrize("content", ["not json", "[]", "{}"])
    def test_info_of_something_else(self, tmp_path, content):
        assert "neither a run" in invoke("info", tmp_path).stderr
        assert "is not there" in invoke("info", tmp_path / "x").stderr
        (tmp_path / "surrogate.json").write_text(content)
        result = invoke("info", tmp_path)
        assert result.exit_code == 1 and result.stderr.startswith("error: ")

    def test_info_of_a_foreign_file(self, tmp_path):
        file = tmp_path / "x.h5"
        file.write_text("hello")
        result = invoke("info", file)
        assert result.exit_code == 1 and str(file) in result.stderr
