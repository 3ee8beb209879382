"""What was observed: HDF5 storage, windows, statistics, splits."""

from sciml.datasets.checks import check_finite
from sciml.datasets.collection import Collection
from sciml.datasets.export import export_well
from sciml.datasets.info import BOUNDARY_KINDS, DatasetInfo, FaceFieldInfo, FieldInfo
from sciml.datasets.merge import merge_files
from sciml.datasets.reader import DatasetFile
from sciml.datasets.splits import split_cases
from sciml.datasets.statistics import FieldStatistics, field_statistics
from sciml.datasets.windows import TrajectoryWindows, keep_batch
from sciml.datasets.writer import DatasetWriter

__all__ = [
    "BOUNDARY_KINDS",
    "Collection",
    "DatasetFile",
    "DatasetInfo",
    "DatasetWriter",
    "FaceFieldInfo",
    "FieldInfo",
    "FieldStatistics",
    "TrajectoryWindows",
    "check_finite",
    "export_well",
    "field_statistics",
    "keep_batch",
    "merge_files",
    "split_cases",
]
