"""Gradients through rollouts: of an objective with respect to the source and the state, against finite differences."""

import pytest
import torch

from sciml.errors import ConfigError
from sciml.operators import NeuralStagger
from sciml.problems import get_problem
from sciml.surrogate import Normaliser, Surrogate

FLOW = get_problem("vorticity")
CELLS, FRAMES, CALLS = 16, 2, 3
CASE = {"viscosity": 5e-3, "forcing_wavenumber_x": 1.0, "forcing_wavenumber_y": 1.0, "forcing_phase": [0.3, 2.0]}


@pytest.fixture(scope="module")
def surrogate() -> Surrogate:
    """A random network of two frames a call, in double precision."""
    torch.manual_seed(0)
    options = {"n_modes": [4, 4], "hidden_channels": 6, "n_layers": 2}
    conditions = len(FLOW.condition_names)
    operator = NeuralStagger(
        "fno", 1, 1, spatial=2, temporal=FRAMES, periodic=True, n_parameters=conditions, options=options
    )
    normaliser = Normaliser(
        {
            "mean": [0.0],
            "std": [0.8],
            "increment_std": [0.5],
            "condition_mean": [0.0] * conditions,
            "condition_std": [1.0] * conditions,
        }
    )
    surrogate = Surrogate(operator, FLOW, normaliser, fields=("vorticity",), interval=0.1, grid=(CELLS, CELLS))
    return surrogate.double().requires_grad_(False)


@pytest.fixture(scope="module")
def start() -> torch.Tensor:
    return FLOW.initial({"viscosity": 5e-3, "initial_smoothness": 4.0, "draw": [0, 1]}, CELLS, torch.float64)


def objective(surrogate, start, forcing, **options):
    """Of the last frame of three calls, ``(B,)``; ``forcing (B, CALLS)`` is another one in each."""
    parameters = {**CASE, "forcing": forcing.repeat_interleave(FRAMES, 1)}
    return surrogate.rollout(start, parameters, CALLS * FRAMES, **options)[:, -1].square().sum((1, 2, 3))


def test_gradient_with_respect_to_the_source_of_every_call_and_to_the_state(surrogate, start):
    forcing = torch.tensor([[1.0, 2.0, 0.5], [0.7, 0.2, 3.0]], dtype=torch.float64, requires_grad=True)
    state = start.clone().requires_grad_()
    objective(surrogate, state, forcing, gradients=True).sum().backward()
    assert forcing.grad.abs().min() > 1e-3, "every call is felt at the end"

    step = 1e-5
    for call in range(CALLS):
        change = torch.zeros(2, CALLS, dtype=torch.float64)
        change[:, call] = step
        up, down = (objective(surrogate, start, forcing.detach() + sign * change) for sign in (1, -1))
        torch.testing.assert_close(forcing.grad[:, call], (up - down) / (2 * step), rtol=1e-6, atol=1e-8)

    towards = torch.randn(start.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    up, down = (objective(surrogate, start + sign * step * towards, forcing.detach()) for sign in (1, -1))
    along = (state.grad * towards).sum((1, 2, 3))
    torch.testing.assert_close(along, (up - down) / (2 * step), rtol=1e-6, atol=1e-8)


def test_gradients_change_no_number_and_are_kept_only_on_request(surrogate, start):
    forcing = torch.ones(2, CALLS, dtype=torch.float64, requires_grad=True)
    plain = objective(surrogate, start, forcing)
    kept = objective(surrogate, start, forcing, gradients=True)
    assert kept.requires_grad and not plain.requires_grad and torch.equal(plain, kept)
    with torch.no_grad():
        assert not objective(surrogate, start, forcing, gradients=True).requires_grad


def test_rollout_is_the_same_as_calling_the_operator_again_and_again(surrogate, start):
    forcing = torch.tensor([[1.0, 2.0, 0.5]] * 2, dtype=torch.float64)
    parameters = {**CASE, "forcing": forcing.repeat_interleave(FRAMES, 1)}
    frames = surrogate.rollout(start, parameters, CALLS * FRAMES, gradients=True)
    window = start.unsqueeze(1)
    for call in range(CALLS):
        now = FLOW.as_parameters({**CASE, "forcing": forcing[:, call]}, draws=False)
        made = surrogate.advance(window, now, torch.full((2,), 0.1, dtype=torch.float64))
        torch.testing.assert_close(frames[:, FRAMES * call : FRAMES * (call + 1)], made, rtol=0, atol=0)
        window = made[:, -1:]


def test_gradient_is_finite_where_there_is_no_source_yet(surrogate, start):
    forcing = torch.zeros(2, CALLS, dtype=torch.float64, requires_grad=True)
    objective(surrogate, start, forcing, gradients=True).sum().backward()
    assert torch.isfinite(forcing.grad).all() and bool(forcing.grad.any())


def test_a_source_that_changes_within_a_call_is_refused(surrogate, start):
    parameters = {**CASE, "forcing": torch.rand(2, CALLS * FRAMES, dtype=torch.float64)}
    with pytest.raises(ConfigError, match="forcing changes among the 2 frames"):
        surrogate.rollout(start, parameters, CALLS * FRAMES, gradients=True)
