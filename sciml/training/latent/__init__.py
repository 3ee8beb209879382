"""Training on weak problems: DGNO, from input functions alone, from solutions, or both."""
