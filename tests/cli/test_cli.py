"""The command line as a whole: help, exit codes, errors without a trace, progress."""

import json
import os
import subprocess
import sys
import time
import warnings

import pytest
from cli_helpers import SUMMARY, invoke

import sciml
from sciml.cli import options
from sciml.cli.main import main
from sciml.errors import CheckpointError, ConfigError, DataError

COMMANDS = (
    *("train", "pretrain", "generate", "merge", "convert"),
    *("evaluate", "predict", "invert", "plot", "info", "problems"),
)
HEAVY = ("torch", "torch_geometric", "matplotlib", "numpy", "h5py")


def in_process(*arguments, code=None, **environment):
    """``sciml`` as a user runs it; ``code`` runs before it in the same interpreter."""
    start = [sys.executable, "-m", "sciml"]
    if code is not None:
        start = [
            sys.executable,
            "-c",
            f"{code}\nimport sys\nfrom sciml.cli.main import main\nsys.exit(main(sys.argv[1:]))",
        ]
    return subprocess.run(
        [*start, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=120,
    )


class TestHelp:
    @pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=str)
    def test_help_shows_examples(self, command):
        result = invoke(*command, "--help")
        assert result.exit_code == 0
        assert "Example" in result.stdout and "sciml " in result.stdout.split("Example")[1]

    @pytest.mark.parametrize("arguments", ["--help", "--version", "train --help", "generate --help", "info --help"])
    def test_help_is_light(self, arguments):
        check = (
            "import sys\nfrom sciml.cli.main import main\n"
            f"code = main({arguments.split()!r})\n"
            f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
            "assert code == 0 and not loaded, loaded"
        )
        result = subprocess.run([sys.executable, "-W", "error", "-c", check], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr

    def test_import_is_light(self):
        check = f"import sys, sciml\nassert not [name for name in {HEAVY!r} if name in sys.modules]"
        assert subprocess.run([sys.executable, "-c", check]).returncode == 0

    def test_help_is_quick(self):
        # Processor seconds of the best of three: the wall clock of a busy machine says little.
        best = 99.0
        for _ in range(3):
            before = os.times()
            subprocess.run([sys.executable, "-m", "sciml", "--help"], check=True, capture_output=True)
            after = os.times()
            best = min(
                best,
                after.children_user + after.children_system - before.children_user - before.children_system,
            )
        assert best < 1.0

    def test_version(self):
        assert invoke("--version").stdout.strip() == f"sciml {sciml.__version__}"

    def test_completion(self):
        result = in_process(
            code="import sys; sys.argv[0] = 'sciml'",
            _SCIML_COMPLETE="complete_bash",
            COMP_WORDS="sciml tr",
            COMP_CWORD="1",
        )
        assert result.stdout.split() == ["train"]

    def test_completed_names_are_the_registered_ones(self):
        from sciml.operators import OPERATORS
        from sciml.problems import PARTICLE_PROBLEMS, PROBLEMS

        for written, registry in ((options.PROBLEMS, PROBLEMS), (options.PARTICLE_PROBLEMS, PARTICLE_PROBLEMS)):
            assert {name: set(subsets) for name, subsets in written.items()} == {
                name: {subset for dim in problem.dims for subset in problem(dim).subsets}
                for name, problem in registry.items()
            }
        assert set(options.OPERATORS) == set(OPERATORS)

    @pytest.mark.parametrize(
        ("line", "names"),
        [
            ("sciml generate --problem cavity --subset ", {"all", "bc", "geo", "prop"}),
            ("sciml generate -p tube --subset g", {"geo"}),
            ("sciml generate --subset taylor", {"taylor_green"}),
            ("sciml generate -p jelly --subset ", {"all", "blocks", "drop", "obstacle"}),
        ],
    )
    def test_completed_subsets_are_those_of_the_problem(self, line, names):
        words = line.split(" ")
        result = in_process(
            code="import sys; sys.argv[0] = 'sciml'",
            _SCIML_COMPLETE="complete_bash",
            COMP_WORDS=line,
            COMP_CWORD=str(len(words) - 1),
        )
        assert set(result.stdout.split()) == names


class TestExitCodes:
    def test_unknown_command_suggests(self):
        result = in_process("trian")
        assert result.returncode == 2 and result.stdout == ""
        assert "Did you mean 'train'" in result.stderr

    def test_unknown_option_and_bad_value(self):
        assert invoke("train", "--problem", "cavity", "--sed", "3").exit_code == 2
        assert invoke("train", "--problem", "cavity", "--device", "tpu").exit_code == 2
        assert invoke("generate", "--problem", "cavity", "--out", "x.h5", "--cases", "0").exit_code == 2

    @pytest.mark.parametrize(
        ("error", "code", "words"),
        [
            (ConfigError("unknown key 'lr'"), 2, "error: unknown key 'lr'"),
            (DataError("NaN in case 3"), 1, "error: NaN in case 3"),
            (CheckpointError("no checkpoint"), 1, "error: no checkpoint"),
            (
                OSError(28, "No space left on device", "/data/x.h5"),
                1,
                "No space left on device: /data/x.h5; free",
            ),
            (PermissionError(13, "Permission denied", "/root/x"), 1, "Permission denied: /root/x; write"),
            (KeyboardInterrupt(), 130, "interrupted"),
            (KeyboardInterrupt("checkpoint written"), 130, "checkpoint written"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_errors_are_a_line(self, monkeypatch, tmp_path, error, code, words):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr("sciml.training.evaluate_run", fail, raising=False)
        result = invoke("evaluate", tmp_path)
        assert result.exit_code == code
        assert result.stdout == "" and words in result.stderr and "Traceback" not in result.stderr

    def test_debug_keeps_the_trace(self, monkeypatch, tmp_path):
        monkeypatch.setenv("SCIML_DEBUG", "1")
        result = invoke("plot", tmp_path)
        assert isinstance(result.exception, CheckpointError)

    def test_a_fault_of_ours_is_not_hidden(self, monkeypatch, tmp_path):
        def fail(*_, **__):
            raise ZeroDivisionError

        monkeypatch.setattr("sciml.training.evaluate_run", fail, raising=False)
        assert isinstance(invoke("evaluate", tmp_path).exception, ZeroDivisionError)

    def test_from_outside(self, tmp_path):
        result = in_process("plot", tmp_path / "none")
        assert result.returncode == 1 and result.stdout == ""
        assert (
            result.stderr
            == f"error: {tmp_path / 'none'} is not a directory: nothing to draw; give the directory "
            + ("that 'sciml train' wrote\n")
        )

    def test_ctrl_c(self):
        code = (
            "import signal, sciml.cli.info\nsciml.cli.info.describe = lambda path: signal.raise_signal(signal.SIGINT)"
        )
        result = in_process("info", ".", code=code)
        assert result.returncode == 130 and result.stderr == "interrupted\n" and result.stdout == ""

    def test_a_closed_pipe_is_quiet(self):
        command = f"{sys.executable} -m sciml info --help | true"
        result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert "Traceback" not in result.stderr

    def test_main_returns_the_code(self, capsys):
        assert main(["--version"]) == 0
        assert main(["nonsense"]) == 2
        capsys.readouterr()

    def test_warnings_are_a_line(self, monkeypatch, tmp_path):
        def warn(*_, **__):
            warnings.warn("log_reynolds is 9; trained on 4 to 7", stacklevel=1)
            return SUMMARY["test"]

        monkeypatch.setattr("sciml.training.evaluate_run", warn, raising=False)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            result = invoke("evaluate", tmp_path, "--json")
        assert result.stderr == "warning: log_reynolds is 9; trained on 4 to 7\n"
        json.loads(result.stdout)


class TestProgress:
    def test_silent_but_for_messages_without_a_terminal(self, capsys):
        from sciml.cli.progress import RichProgress

        with RichProgress() as progress, progress.phase("work", 10):
            progress.advance(3, "note")
            progress.message("a line [bold]")
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err == "a line [bold]\n"

    def test_bars_on_a_terminal(self, monkeypatch, capsys):
        from sciml.cli.progress import RichProgress

        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
        with RichProgress() as progress:
            with progress.phase("outer [1]", 2):
                with progress.phase("inner", 4):
                    progress.advance(4, "step [3]")
                    time.sleep(0.3)
                progress.advance(2)
            with pytest.raises(ValueError), progress.phase("fails", 1):
                raise ValueError
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "inner: done in 0.3 s" in captured.err and "outer [1]: done" in captured.err
        assert "fails: done" not in captured.err
