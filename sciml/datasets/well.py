"""The Well's tree over our bytes, so that ``the_well.data.WellDataset`` opens a file as it is.

Specification: the-well 1.2.0 (Ohana et al., The Well, NeurIPS 2024, Datasets and Benchmarks). Its readers
ignore ``/sciml``. Fields are HDF5 virtual datasets, slices of ``/sciml/state``; with ``materialize`` they are
copies, for clients that do not know virtual datasets.
"""

import h5py
import numpy as np

from sciml.datasets.info import DatasetInfo, FieldInfo
from sciml.datasets.layout import constant_path, series_path, well_field_path, well_series_path

WELL_KINDS = {
    "wall": "WALL",
    "moving_wall": "WALL",
    "inlet": "OPEN",
    "outlet": "OPEN",
    "value": "WALL",
    "flux": "WALL",
    "periodic": "PERIODIC",
}
TEXT = h5py.string_dtype()


def _texts(values: list[str]) -> np.ndarray:
    """A list of strings as an attribute that stays a list of strings when it is empty."""
    return np.array(values, dtype=TEXT)


def write_tree(file: h5py.File, info: DatasetInfo, n_cases: int) -> None:
    """What of The Well's tree `layout.create` has not made: attributes, boundaries, virtual fields."""
    if "scalars" not in file:
        file.create_group("scalars")
    scalars = file["scalars"]
    scalars.attrs["field_names"] = _texts(sorted([*info.parameters, *info.series]))
    for name, unit in info.series.items():
        if name not in scalars:
            _create_view(file, series_path(name), well_series_path(name))
        scalars[name].attrs.update(unit=unit, sample_varying=True, time_varying=True)
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
    dimensions = file["dimensions"]
    dimensions.attrs["spatial_dims"] = _texts(list(info.axes))
    for name in (
        "time",
        *info.axes,
    ):  # they may differ between cases, and are not known before there are data
        dimensions[name].attrs.update(sample_varying=True, time_varying=name == "time")
    for order in range(3):
        group = file.require_group(f"t{order}_fields")
        varying = [f for f in info.fields if f.order == order]
        constants = [f for f in info.constant_fields if f.order == order]
        group.attrs["field_names"] = _texts([f.name for f in (*varying, *constants)])
        for f in (*varying, *constants):
            if f.name not in group:
                if f in constants:
                    _create_view(file, constant_path(f.name), well_field_path(f))
                else:
                    _create_field_view(file, info, f)
            group[f.name].attrs.update(
                dim_varying=np.ones(len(info.grid), dtype=bool),
                sample_varying=True,
                time_varying=f in varying,
                unit=f.unit,
                location=f.location,
            )


def _create_view(file: h5py.File, source: str, view: str) -> None:
    """A whole array under a second name."""
    array = file[source]
    layout = h5py.VirtualLayout(shape=array.shape, dtype=array.dtype)
    layout[...] = h5py.VirtualSource(".", source, shape=array.shape, dtype=array.dtype)
    file.create_virtual_dataset(view, layout)


def _create_field_view(file: h5py.File, info: DatasetInfo, f: FieldInfo) -> None:
    """The field as a virtual dataset: its channels of the state."""
    state, channels = file["/sciml/state"], info.channels(f.name)
    source = h5py.VirtualSource(".", "/sciml/state", shape=state.shape, dtype=state.dtype)
    part = source[..., channels] if f.order else source[..., channels.start]
    view = h5py.VirtualLayout(shape=part.shape, dtype=state.dtype)
    view[...] = part
    file.create_virtual_dataset(well_field_path(f), view)


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
