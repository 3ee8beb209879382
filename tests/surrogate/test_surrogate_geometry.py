"""A surrogate of a problem with an obstacle: what the operator reads, and zeros in the solid."""

import pytest
import torch
from blocked import BIAS, Blocked, Standing, registered

import sciml
from sciml.constraints import create_constraint
from sciml.errors import ConfigError
from sciml.operators import FNO, NeuralStagger
from sciml.problems import get_problem
from sciml.surrogate import Normaliser, Surrogate, channel_names, model_card
from sciml.surrogate.constraining import Imposed

SHAPE = (16, 12)
VALUES = {
    "lid_velocity": torch.tensor([8.0, 10.0]),
    "density": 1.0,
    "viscosity": 1e-3,
    "height": 0.01,
    "width": torch.tensor([0.01, 0.012]),
    "block": torch.tensor([0.3, 0.6]),
}


class Recorder(FNO):
    """An FNO that keeps what it read."""

    def forward(self, x, *, time=None, parameters=None):
        self.read = x
        return super().forward(x, time=time, parameters=parameters)


def surrogate(kind="step", history=1, target="increment", inputs=(), points=None, problem=None, **changes):
    problem = problem or Blocked()
    reads = 2 * history if kind == "step" else len(inputs) + (points is not None) if inputs else 1
    torch.manual_seed(0)
    operator = Recorder(reads + 2, 2, n_modes=(4, 4), hidden_channels=6, n_layers=1, n_parameters=3)
    norm = {
        "mean": [0.3, -0.1],
        "std": [2.0, 1.5],
        "increment_std": [0.1, 0.2],
        "condition_mean": [0.0] * 3,
        "condition_std": [1.0] * 3,
    }
    if inputs:
        norm |= {"input_mean": [0.5], "input_std": [2.0]}
    options = {"kind": kind, "history": history, "target": target, "inputs": inputs, "points": points, **changes}
    return Surrogate(operator, problem, Normaliser(norm), interval=1e-3, grid=SHAPE, **options).eval()


def values(cases=slice(None)):
    whole = Blocked().as_parameters(VALUES, 2)
    return {name: each[cases] for name, each in whole.items()}


def solid(cases=slice(None)):
    return ~Blocked().fluid_cells(values(cases), SHAPE)


def state(history=1, seed=0):
    shape = (2, history, 2, *SHAPE) if history > 1 else (2, 2, *SHAPE)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_declaration():
    """The defaults of ``Problem``: two channels, distances in shortest sides, None and an error without obstacles."""
    problem = Blocked()
    geometry = problem.geometry(values(), SHAPE)
    assert problem.geometry_channels == ("fluid", "signed_distance")
    inputs = problem.geometry_inputs(values(), SHAPE)
    assert inputs.dtype == torch.float32 and inputs.shape == (2, 2, *SHAPE)
    assert torch.equal(inputs[:, :1], geometry["fluid"])
    # The box of the second case is 0.012 m x 0.01 m.
    torch.testing.assert_close(inputs[:, 1:], geometry["signed_distance"] / 0.01)
    assert torch.equal(problem.fluid_cells(values(), SHAPE), geometry["signed_distance"][:, 0] > 0)
    assert 0 < int(solid().sum()) < solid().numel() and not torch.equal(*solid())
    plain = get_problem("cavity")
    assert plain.fluid_cells({}, SHAPE) is None and plain.geometry_channels == () and plain.diagnose({}, {}, None) == {}
    with pytest.raises(ConfigError, match="'cavity' has no obstacles"):
        plain.geometry({}, SHAPE)
    info = problem.dataset_info(SHAPE, 4)
    assert [f.name for f in info.constant_fields] == ["fluid", "signed_distance"] and dict(
        info.series
    ) == Blocked.series
    flow = torch.ones(2, 3, 2, *SHAPE)
    assert torch.equal(
        problem.diagnose({"velocity": flow}, {}, None)["push"], torch.full((2, 3), BIAS, dtype=torch.float64)
    )


@pytest.mark.parametrize("target", ["increment", "state"])
@pytest.mark.parametrize("history", [1, 3])
def test_what_a_step_reads_and_gives(history, target):
    model = surrogate(history=history, target=target)
    found = model.rollout(state(history), VALUES, 3)
    inside = solid()[:, None, None].expand_as(found)
    assert (found[inside] == 0).all() and (found[~inside] != 0).all()
    names, predicted = channel_names(model.problem, ["velocity"], (), model)
    read = model.operator.read
    assert names[-2:] == ["fluid", "signed_distance"] and len(names) == read.shape[1] and len(predicted) == 2
    assert torch.equal(read[:, -2:], model.problem.geometry_inputs(values(), SHAPE))
    # What stands in the solid is 0 m/s to the operator, in its standardised units.
    zero = (-model.normaliser.mean / model.normaliser.std).tile(history)
    seen = read[:, :-2].movedim(1, -1)[solid()]
    torch.testing.assert_close(seen, zero.expand_as(seen))


def test_what_stands_in_the_solid_plays_no_part():
    model, start = surrogate(), state()
    inside = solid()[:, None].expand_as(start)
    assert torch.equal(model.step(start, VALUES), model.step(start.masked_fill(inside, 1e3), VALUES))


def test_cases_do_not_see_one_another():
    model, start = surrogate(), state()
    both = model.rollout(start, VALUES, 2)
    for case in range(2):
        alone = model.rollout(start[case : case + 1], values([case]), 2)
        torch.testing.assert_close(alone, both[case : case + 1], rtol=1e-5, atol=1e-6)


def test_the_form_of_the_question_and_gradients():
    model = surrogate().requires_grad_(False)
    found = model.step({"velocity": state()}, VALUES)
    assert torch.equal(found["velocity"], model.step(state(), VALUES))
    place = torch.tensor([0.3, 0.6], dtype=torch.float64, requires_grad=True)
    model.rollout(state(), {**VALUES, "block": place}, 2, gradients=True).square().sum().backward()
    assert (place.grad != 0).all(), "the signed distance follows the block"


@pytest.mark.parametrize(("inputs", "points"), [((), None), (("pressure",), None), (("pressure",), 20)])
def test_maps(inputs, points):
    model = surrogate("map", target="state", inputs=inputs, points=points)
    given, where = {}, None
    if inputs and points is None:
        given = {"pressure": torch.randn(2, 1, *SHAPE)}
    elif inputs:
        given, where = {"pressure": torch.randn(2, 1, points)}, torch.rand(points, 2) * 0.01
    found = model.solve(given, VALUES, where)["velocity"]
    inside = solid()[:, None].expand_as(found)
    assert (found[inside] == 0).all() and (found[~inside] != 0).all()
    assert torch.equal(model.operator.read[:, -2:], model.problem.geometry_inputs(values(), SHAPE))
    names, _ = channel_names(model.problem, ["velocity"], inputs, model)
    assert len(names) == model.operator.read.shape[1] and names[-2:] == ["fluid", "signed_distance"]


@pytest.mark.parametrize("problem", [Blocked(), Standing()])
def test_constraints_know_the_obstacle(problem):
    """The velocity without divergence beside the block is at rest in it; so it is where the sides' values are imposed,
    which know no obstacles, and where the block touches a side.
    """
    from sciml.surrogate.constraining import constraint_context

    solid = ~problem.fluid_cells(values(), SHAPE)
    plain = surrogate(problem=problem).step(state(), VALUES)
    for names in (["divergence-free"], ["boundary-values"], ["divergence-free", "boundary-values"]):
        model = surrogate(problem=problem, constraints=[Imposed(create_constraint(name)) for name in names])
        found = model.step(state(), VALUES)
        assert (found.movedim(1, -1)[solid] == 0).all()
        context = constraint_context(model, values(), SHAPE, None, None)
        assert torch.equal(context.fluid, ~solid)
        for constraint in model.constraints:
            assert float(constraint.residual(plain, context).min()) > 1e-2
            assert float(constraint.residual(found, context).max()) < 1e-5, names


def test_saved_and_loaded(tmp_path):
    with registered():
        problem, norm = get_problem("blocked"), surrogate().normaliser
        torch.manual_seed(0)
        operator = FNO(4, 2, n_modes=(4, 4), hidden_channels=6, n_layers=1, n_parameters=3)
        model = Surrogate(operator, problem, norm, interval=1e-3, grid=SHAPE).eval()
        again = sciml.load(model.save(tmp_path / "surrogate"))
    assert torch.equal(again.step(state(), VALUES), model.step(state(), VALUES))
    assert "It reads the geometry (`fluid`, `signed_distance`) too" in model_card(model)
    assert "geometry" not in model_card(Surrogate(operator, get_problem("cavity"), norm, grid=SHAPE))


def test_no_coarse_level_of_a_problem_with_obstacles():
    options = {"hidden_channels": 6, "n_modes": [4, 4], "n_layers": 1}
    model = surrogate()
    model.operator = NeuralStagger(FNO, 4, 2, spatial=2, n_parameters=3, mode="shared", options=options)
    model.step(state(), VALUES)
    with pytest.raises(ConfigError, match="problem 'blocked' has obstacles, which the grid of one phase"):
        model.coarse((0, 1))
