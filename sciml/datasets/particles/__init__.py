"""Trajectories of particles: one HDF5 file for many cases, statistics, and the formats of other programs."""

from sciml.datasets.particles.convert import convert_particles, open_source
from sciml.datasets.particles.gns import write_gns
from sciml.datasets.particles.info import ParticleInfo
from sciml.datasets.particles.merge import merge_particle_files
from sciml.datasets.particles.reader import ParticleFile, is_particle_file
from sciml.datasets.particles.records import ParticleTrajectory, check_inside, check_trajectory
from sciml.datasets.particles.source import ParticleSource, Told
from sciml.datasets.particles.statistics import ParticleStatistics, particle_statistics
from sciml.datasets.particles.vtk import write_vtk_case, write_vtk_series
from sciml.datasets.particles.writer import ParticleWriter

__all__ = [
    "ParticleFile",
    "ParticleInfo",
    "ParticleSource",
    "ParticleStatistics",
    "ParticleTrajectory",
    "ParticleWriter",
    "Told",
    "check_inside",
    "check_trajectory",
    "convert_particles",
    "is_particle_file",
    "merge_particle_files",
    "open_source",
    "particle_statistics",
    "write_gns",
    "write_vtk_case",
    "write_vtk_series",
]
