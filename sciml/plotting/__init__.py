"""Pictures of fields, profiles, rollouts and losses.

Every function takes plain arrays and labels, builds a ``matplotlib.figure.Figure`` of its own (never pyplot,
so nothing global is touched and no window opens) and writes it when a path is given. ``run_figures`` draws
all pictures of a run.
"""

from typing import TYPE_CHECKING, Any

__all__ = [
    "animate_rollout",
    "centreline_profiles",
    "loss_curves",
    "rollout_error",
    "run_figures",
    "triptych",
]

if TYPE_CHECKING:
    from sciml.plotting.animation import animate_rollout
    from sciml.plotting.curves import loss_curves, rollout_error
    from sciml.plotting.fields import triptych
    from sciml.plotting.profiles import centreline_profiles
    from sciml.plotting.run import run_figures

_HOME = {
    "animate_rollout": "animation",
    "centreline_profiles": "profiles",
    "loss_curves": "curves",
    "rollout_error": "curves",
    "run_figures": "run",
    "triptych": "fields",
}


def __getattr__(name: str) -> Any:
    # matplotlib takes a second to import: only when a picture is asked for.
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(f"sciml.plotting.{_HOME[name]}"), name)
    raise AttributeError(f"module 'sciml.plotting' has no attribute {name!r}")
