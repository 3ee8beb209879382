"""Pictures of fields, particles, meshes, profiles, spectra, rollouts and losses.

Every function takes plain arrays and labels, builds a ``matplotlib.figure.Figure`` of its own (never pyplot,
so nothing global is touched and no window opens) and writes it when a path is given. ``run_figures`` draws
all pictures of a run, ``case_figure`` those of a case of a data file, ``inversion_figures``
those of a posterior.
"""

from typing import TYPE_CHECKING, Any

__all__ = [
    "Look",
    "animate_field",
    "animate_particles",
    "animate_rollout",
    "case_figure",
    "centreline_profiles",
    "channel_profiles",
    "error_distribution",
    "field_frames",
    "field_map",
    "inversion_figures",
    "line_profiles",
    "loss_curves",
    "moved_mesh",
    "particle_errors",
    "particle_frames",
    "rollout_error",
    "run_figures",
    "series_over_time",
    "slices",
    "space_time",
    "spectra",
    "triptych",
    "vorticity",
    "write_mesh",
]

if TYPE_CHECKING:
    from sciml.plotting.animation import animate_field, animate_rollout
    from sciml.plotting.channel import channel_profiles
    from sciml.plotting.curl import vorticity
    from sciml.plotting.curves import loss_curves, rollout_error
    from sciml.plotting.data_file import case_figure
    from sciml.plotting.diagrams import space_time
    from sciml.plotting.fields import triptych
    from sciml.plotting.frames import field_frames
    from sciml.plotting.latent.run import inversion_figures
    from sciml.plotting.lines import line_profiles
    from sciml.plotting.looks import Look
    from sciml.plotting.maps import error_distribution, field_map
    from sciml.plotting.meshes import moved_mesh
    from sciml.plotting.meshes_vtk import write_mesh
    from sciml.plotting.particles.animation import animate_particles
    from sciml.plotting.particles.curves import particle_errors
    from sciml.plotting.particles.frames import particle_frames
    from sciml.plotting.planes import slices
    from sciml.plotting.profiles import centreline_profiles
    from sciml.plotting.run import run_figures
    from sciml.plotting.series import series_over_time
    from sciml.plotting.spectrum import spectra

_HOME = {
    "Look": "looks",
    "animate_field": "animation",
    "animate_particles": "particles.animation",
    "animate_rollout": "animation",
    "case_figure": "data_file",
    "centreline_profiles": "profiles",
    "channel_profiles": "channel",
    "error_distribution": "maps",
    "field_frames": "frames",
    "field_map": "maps",
    "inversion_figures": "latent.run",
    "line_profiles": "lines",
    "loss_curves": "curves",
    "moved_mesh": "meshes",
    "particle_errors": "particles.curves",
    "particle_frames": "particles.frames",
    "rollout_error": "curves",
    "run_figures": "run",
    "series_over_time": "series",
    "slices": "planes",
    "space_time": "diagrams",
    "spectra": "spectrum",
    "triptych": "fields",
    "vorticity": "curl",
    "write_mesh": "meshes_vtk",
}


def __getattr__(name: str) -> Any:
    # matplotlib takes a second to import: only when a picture is asked for.
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(f"sciml.plotting.{_HOME[name]}"), name)
    raise AttributeError(f"module 'sciml.plotting' has no attribute {name!r}")
