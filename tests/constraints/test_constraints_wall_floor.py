"""How far true flows are from rows at the walls that the staggered grid does not hold, as docs/constraints.md says."""

import pytest
import torch

from sciml.constraints import BoundaryValues, Context, DivergenceFree
from sciml.problems import get_problem


@pytest.mark.slow
def test_a_true_cavity_flow_is_percents_away_from_polynomials_at_the_walls():
    problem = get_problem("cavity")
    parameters = problem.sample(12, seed=3).parameters
    velocity = problem.solve(parameters, 64, torch.arange(6) * 1e-3)["velocity"]
    grid = problem.physics_grid(parameters, (64, 64))
    context = Context(grid, {"velocity": slice(0, 2)}, problem.conditions_on_sides(parameters, (64, 64)))

    def moved(layer):
        changes = [(layer(u, context) - u).flatten(1).norm(dim=1) / u.flatten(1).norm(dim=1) for u in frames]
        return float(torch.cat(changes).mean())

    frames = velocity[:, 1:].unbind(1)
    found = {
        "all": moved(BoundaryValues(components="all", corners="x")),
        "all, gap": moved(BoundaryValues(components="all", gap=8)),
        "normal": moved(BoundaryValues()),
        "divergence": moved(DivergenceFree()),
    }
    print({name: f"{value:.2g}" for name, value in found.items()})
    assert 0.02 < found["all"] < 0.05
    assert 0.001 < found["all, gap"] < 0.005
    assert found["normal"] < 1e-6 and found["divergence"] < 1e-6
