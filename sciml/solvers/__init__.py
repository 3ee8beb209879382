"""Reference solvers in batched torch: they make training data and judge rollouts."""
