"""The Well's tree over our bytes, so that ``the_well.data.WellDataset`` opens a file as it is.

Specification: the-well 1.2.0 (Ohana et al., The Well, NeurIPS 2024, Datasets and Benchmarks). Its readers
ignore ``/sciml``. Fields are HDF5 virtual datasets, slices of ``/sciml/state``; with ``materialize`` they are
copies, for clients that do not know virtual datasets.
"""

import h5py
import numpy as np

from sciml.datasets.info import DatasetInfo
from sciml.datasets.layout import coordinate_path

WELL_KINDS = {
    "wall": "WALL",
    "moving_wall": "WALL",
    "inlet": "OPEN",
    "outlet": "OPEN",
    "periodic": "PERIODIC",
}
TEXT = h5py.string_dtype()


def _texts(values: list[str]) -> np.ndarray:
    """A list of strings as an attribute that stays a list of strings when it is empty."""
    return np.array(values, dtype=TEXT)


def write_tree(file: h5py.File, info: DatasetInfo, n_cases: int) -> None:
    """Root attributes, boundary conditions, names of scalars, fields: all that is known without data."""
    if "scalars" not in file:
        file.create_group("scalars")
    scalars = file["scalars"]
    scalars.attrs["field_names"] = _texts(sorted(info.parameters))
    constant = [n for n in sorted(info.parameters) if np.ptp(scalars[n][()]) == 0.0]
    file.attrs.update(
        dataset_name=info.problem,
        grid_type="cartesian",
        n_spatial_dims=len(info.grid),
        n_trajectories=n_cases,
        simulation_parameters=_texts(constant),
        **{name: float(scalars[name][(0,) * scalars[name].ndim]) for name in constant},
    )
    _write_boundaries(file, info)
    for order in range(3):
        group = file.create_group(f"t{order}_fields")
        fields = [f for f in info.fields if f.order == order]
        group.attrs["field_names"] = _texts([f.name for f in fields])
        for f in fields:
            source = h5py.VirtualSource(".", "/sciml/state", shape=file["/sciml/state"].shape, dtype="<f4")
            channels = info.channels(f.name)
            part = source[..., channels] if order else source[..., channels.start]
            layout = h5py.VirtualLayout(shape=part.shape, dtype="<f4")
            layout[...] = part
            _describe(group.create_virtual_dataset(f.name, layout), info, f.unit)


def materialize(file: h5py.File, info: DatasetInfo) -> None:
    """Replace the virtual fields by copies, case by case."""
    for f in info.fields:
        group, channels = file[f"t{f.order}_fields"], info.channels(f.name)
        state = file["/sciml/state"]
        del group[f.name]
        shape = (*state.shape[:-1], f.components) if f.order else state.shape[:-1]
        copy = group.create_dataset(f.name, shape=shape, dtype="<f4")
        for case in range(shape[0]):
            copy[case] = state[case, ..., channels] if f.order else state[case, ..., channels.start]
        _describe(copy, info, f.unit)


def write_dimensions(file: h5py.File, info: DatasetInfo) -> None:
    """Time and coordinates, float32; with a leading axis of cases only where cases differ."""
    if "dimensions" in file:  # a killed attempt to finish
        del file["dimensions"]
    group = file.create_group("dimensions")
    group.attrs["spatial_dims"] = _texts(list(info.axes))
    for name, path in [("time", "/sciml/time"), *((a, coordinate_path(a)) for a in info.axes)]:
        values = file[path][()]
        differs = bool((values != values[:1]).any())
        dataset = group.create_dataset(name, data=(values if differs else values[0]).astype("<f4"))
        dataset.attrs.update(sample_varying=differs, time_varying=name == "time")


def _describe(dataset: h5py.Dataset, info: DatasetInfo, unit: str) -> None:
    dataset.attrs.update(
        dim_varying=np.ones(len(info.grid), dtype=bool),
        sample_varying=True,
        time_varying=True,
        unit=unit,
        location="cell",
    )


def _write_boundaries(file: h5py.File, info: DatasetInfo) -> None:
    """One group a side: ``sciml_kind`` is finer than WALL or OPEN, ``sciml_parameter`` is its scalar."""
    group = file.create_group("boundary_conditions")
    for axis, n in zip(info.axes, info.grid, strict=True):
        for end, index in (("low", 0), ("high", -1)):
            side = f"{axis}_{end}"
            boundary = group.create_group(side)
            mask = np.zeros(n, dtype=bool)
            mask[index] = True
            boundary.create_dataset("mask", data=mask)
            boundary.attrs.update(
                associated_dims=_texts([axis]),
                associated_fields=_texts([]),
                bc_type=WELL_KINDS[info.boundaries[side]],
                sample_varying=False,
                time_varying=False,
                sciml_kind=info.boundaries[side],
            )
            if side in info.boundary_parameters:
                boundary.attrs["sciml_parameter"] = info.boundary_parameters[side]
