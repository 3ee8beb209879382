"""Training surrogates of particles: what is theirs alone; loop, run directory and checkpoints are shared."""
