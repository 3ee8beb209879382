"""Pictures of particles: rollouts beside the truth, still frames, errors over the frames, and series for ParaView.

A ``Scene`` is the box and its kinds of particles, a ``Cloud`` the points of one panel over time;
``animate_particles`` and ``particle_frames`` draw clouds side by side. ``particle_figures`` draws a run's
``predictions.npz``, ``particle_case_figure`` a case of a particle data file.
"""
