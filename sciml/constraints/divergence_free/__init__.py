"""Velocities without divergence: nearest ones by projection, or by construction.

``DivergenceFree`` projects cell-centred velocities (the layer to use), ``project_faces`` face velocities,
``StreamFunction`` takes the curl of a network's output.
"""

from sciml.constraints.divergence_free.faces import project_faces
from sciml.constraints.divergence_free.layer import DivergenceFree
from sciml.constraints.divergence_free.stream_function import StreamFunction

__all__ = ["DivergenceFree", "StreamFunction", "project_faces"]
