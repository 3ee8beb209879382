"""What was observed: HDF5 storage, windows, statistics, splits."""
