"""Runs on weak problems that take a second or two."""

import torch

SMALL = {"modes": 5, "hidden_channels": 16, "n_layers": 1}


def tiny_latent(problem: str = "darcy", **changes: object):
    """A configuration with what it leaves to the problem filled in."""
    from sciml.training import make_config
    from sciml.training.config import merge
    from sciml.training.latent.config import complete_latent

    base = {
        "problem": problem,
        "device": "cpu",
        "batch_size": 8,
        "validate_every": 5,
        "operator": {
            "name": "dgno",
            "latent": 6,
            "encoder_channels": [16],
            "decoder_options": SMALL,
            "coefficient_options": SMALL,
        },
        "data": {"resolution": 16 if problem == "burgers" else 8, "cases": {"train": 40, "validation": 3, "test": 3}},
        "budget": {"steps": 10},
        "checkpoint": {"every_steps": 5},
    }
    return complete_latent(make_config(merge(base, changes)))


def untrained(problem: str = "darcy", subset: str | None = None, **changes: object):
    """A surrogate with random weights and the statistics of 40 cases."""
    from sciml.problems.weak import get_weak_problem
    from sciml.training.config import merge
    from sciml.training.latent.build import build_latent_operator, build_latent_surrogate
    from sciml.training.latent.data import LatentCases

    config = tiny_latent(problem, **merge({"data": {"subset": subset}} if subset else {}, changes))
    known = get_weak_problem(config.problem, config.data.subset, config.data.resolution)
    inputs = known.inputs(known.draw_cases(40, seed=0))
    channels = sum(field.components for field in known.fields)
    cases = LatentCases(inputs, torch.zeros(0, channels, len(known.points)))
    return build_latent_surrogate(config, known, build_latent_operator(config, known), cases)
