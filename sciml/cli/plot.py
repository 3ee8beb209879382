"""``sciml plot``: the pictures of a run."""

from sciml.cli import options
from sciml.cli.console import print_json
from sciml.cli.progress import RichProgress

NEEDS_ARGUMENTS = True
EXAMPLES = """Example:

  sciml plot runs/cavity/unet/RUN"""


def plot(run: options.Run, json: options.Json = False) -> None:
    """Draw the pictures of a run into its figures/.

    Fields, centre-line profiles, rollout error, training curves, and an animated rollout.
    """
    from sciml.plotting import run_figures

    with RichProgress() as progress:
        figures = run_figures(run, progress)
    if json:
        print_json({"figures": [str(path) for path in figures]})
        return
    for path in figures:
        print(path)
