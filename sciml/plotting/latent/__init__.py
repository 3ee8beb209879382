"""Pictures of weak problems: cases of a run, posteriors of inversions; on lines, grids and scattered points."""
