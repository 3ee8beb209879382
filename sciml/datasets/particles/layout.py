"""Where things live in a particle file (format "sciml-lagrangian", version 1). Cases differ in frames and particles.

==============================  ==========  =======  ================================================================
``/`` attributes                                     format, version, info (JSON); for other readers also problem, dim,
                                                     dt_frame, bounds, gravity, kinds, units, generator
``/traj/000000`` attributes                          subset, case_parameters (JSON), n_frames, n_particles
``/traj/000000/position``       (T, N, d)   float32  metres; chunks of `CHUNK_FRAMES` frames, shuffled, gzip
``/traj/000000/velocity``       (T, N, d)   float32  m/s; optional; packed in the same way
``/traj/000000/particle_type``  (N,)        int8     index into the kinds
``/traj/000000/kinematic``      (N,)        bool     moves as prescribed
``/traj/000000/mass, volume``   (N,)        float32  kg, m^d
``/traj/000000/material_param`` (N, P)      float32  columns named by the attributes names and units
``/traj/000000/moments/...``    (3, d or P) float64  velocity, acceleration, parameters of the case's free particles:
                                                     rows mean, sum of squared deviations, largest magnitude;
                                                     attribute count
``/stats``                      (d,), (P,)  float64  vel_mean, vel_std, acc_mean, acc_std, param_mean, param_std of all
                                                     cases, attribute convention = `CONVENTION`
==============================  ==========  =======  ================================================================

Training reads windows of about 7 frames: with 8 frames a chunk they lie in one or two. No pickles anywhere.
"""

import json

import h5py
import numpy as np
import torch

from sciml.datasets.layout import PARTICLES
from sciml.datasets.particles.info import ParticleInfo
from sciml.datasets.particles.records import ParticleTrajectory
from sciml.datasets.particles.statistics import ParticleStatistics, trajectory_moments
from sciml.datasets.statistics import Moments

FORMAT, VERSION = PARTICLES, 1
CONVENTION = "frame difference, dt=1"
UNITS = "m, kg, s"
CHUNK_FRAMES = 8
PACKING = {"shuffle": True, "compression": "gzip", "compression_opts": 3}
"""Measured on water of 2,000 particles: 78 % of the size, 0.41 ms a window; gzip 1 81 %, 0.48 ms; lzf, which only h5py
reads, 89 %, 0.42 ms; nothing 101 %, 0.03 ms."""
NAMES = {
    "kind": ("particle_type", np.int8),
    "fixed": ("kinematic", np.bool_),
    "mass": ("mass", np.float32),
    "volume": ("volume", np.float32),
    "parameters": ("material_param", np.float32),
}
"""Field of `ParticleTrajectory` -> (dataset of the file, type)."""
MOMENTS = ("velocity", "acceleration", "parameters")


def case_path(case: int) -> str:
    """Where a case lives."""
    return f"/traj/{case:06d}"


def write_header(file: h5py.File, info: ParticleInfo) -> None:
    """The attributes of a new file; ``info`` is what this package reads, the others say the same to other readers."""
    file.attrs.update(
        format=FORMAT,
        version=VERSION,
        info=info.to_json(),
        problem=info.problem,
        dim=info.dim,
        dt_frame=info.interval,
        bounds=np.array(info.bounds),
        gravity=np.array(info.gravity),
        kinds=list(info.kinds),
        units=UNITS,
        generator=info.solver,
    )


def write_case(group: h5py.Group, trajectory: ParticleTrajectory, info: ParticleInfo) -> None:
    """All arrays of one case into an empty group."""
    t, n, d = trajectory.position.shape
    group.attrs.update(
        subset=trajectory.subset,
        case_parameters=json.dumps(dict(trajectory.case_parameters), sort_keys=True),
        n_frames=t,
        n_particles=n,
    )
    moving = {"position": trajectory.position}
    if trajectory.velocity is not None:
        moving["velocity"] = trajectory.velocity
    for name, values in moving.items():
        group.create_dataset(name, data=values.numpy(), chunks=(min(CHUNK_FRAMES, t), n, d), **PACKING)
    for field, (name, kind) in NAMES.items():
        group.create_dataset(name, data=getattr(trajectory, field).numpy().astype(kind))
    moments = group.create_group("moments")
    for name, each in zip(MOMENTS, trajectory_moments(trajectory), strict=True):
        moments.create_dataset(name, data=np.stack([each.mean, each.m2, each.largest]))
        moments[name].attrs.update(count=each.n, convention=CONVENTION)
    columns = group["material_param"].attrs
    columns["names"], columns["units"] = json.dumps(list(info.parameters)), json.dumps(list(info.parameters.values()))


def read_case(group: h5py.Group) -> ParticleTrajectory:
    """The inverse of `write_case`. Raises KeyError, OSError or `DataError` where the group is damaged."""
    arrays = {field: torch.from_numpy(group[name][()]) for field, (name, _) in NAMES.items()}
    moving = {name: torch.from_numpy(group[name][()]) for name in ("position", "velocity") if name in group}
    return ParticleTrajectory(
        **moving,
        **arrays,
        subset=str(group.attrs["subset"]),
        case_parameters=json.loads(group.attrs["case_parameters"]),
    )


def read_moments(group: h5py.Group) -> list[Moments]:
    """Of velocity, acceleration and parameters. Raises KeyError where another program wrote the case without them."""
    found = [group["moments"][name] for name in MOMENTS]
    return [Moments(int(each.attrs["count"]), *each[()]) for each in found]


def write_statistics(file: h5py.File, statistics: ParticleStatistics) -> None:
    """``/stats``."""
    group = file.create_group("stats")
    group.attrs["convention"] = CONVENTION
    short = {"velocity": "vel", "acceleration": "acc", "parameter": "param"}
    for name, values in statistics.to_dict().items():
        quantity, _, moment = name.partition("_")
        group.create_dataset(f"{short[quantity]}_{moment}", data=np.array(values, dtype=np.float64))
