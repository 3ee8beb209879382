"""What the tests of the command line share: how to call it, and stand-ins for the work."""

from types import SimpleNamespace

from typer.testing import CliRunner

from sciml.cli.main import app

SUMMARY = {
    "operator": "unet",
    "n_parameters": 1234,
    "test": {
        "cases": 30,
        "nmse": 1e-5,
        "persistence_nmse": 1e-2,
        "lookup_nmse": 1e-4,
        "vrmse": 0.01,
        "rollout_relative_l2": [0.01, 0.02],
        "persistence_rollout_relative_l2": [0.3, 0.6],
        "lookup_rollout_relative_l2": [0.05, float("inf")],
        "rollout_worst_last": 0.04,
        "per_subset": {"bc": {"cases": 9, "nmse": 2e-5, "persistence_nmse": 2e-2, "rollout_mean": 0.011}},
    },
    "seconds": {"generate": 28.0, "train": 240.0, "evaluate": 9.0},
}


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


class Recorder:
    """Stands for ``sciml.training``'s functions: keeps the arguments, talks on the progress, returns a
    result.
    """

    def __init__(self, directory):
        self.directory = directory

    def train(self, config, out, resume, progress):
        self.config, self.out, self.resume = config, out, resume
        with progress.phase("train", 2):
            progress.advance(1, "loss [0.1]")
            progress.message("unet with 1,234 parameters [cpu]")
        return SimpleNamespace(directory=self.directory, summary=SUMMARY)
