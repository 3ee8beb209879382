"""The baselines have the sizes of their originals, and a step of their recipe runs."""

import importlib.util
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parents[2] / "benchmarks" / "baselines" / "cfdbench.py"
specification = importlib.util.spec_from_file_location("cfdbench_baselines", FILE)
cfdbench = importlib.util.module_from_spec(specification)
specification.loader.exec_module(cfdbench)

PARAMETERS = torch.tensor([[10.0, 1.0, 1e-5, 0.01, 0.01], [50.0, 5.0, 0.00238, 0.01, 0.02]])


@pytest.mark.parametrize("name", cfdbench.MODELS)
def test_the_number_of_parameters_is_the_published_one(name):
    model = cfdbench.MODELS[name]()
    assert sum(p.numel() for p in model.parameters()) == cfdbench.PARAMETER_COUNTS[name]


@pytest.mark.parametrize("name", cfdbench.MODELS)
@pytest.mark.parametrize("grid", [(32, 32), (34, 33)])
def test_a_training_step(name, grid):
    torch.manual_seed(0)
    model = cfdbench.MODELS[name]()
    x, y = torch.randn(2, 2, 2, *grid).unbind(1)
    optimiser, scheduler = cfdbench.optimiser(model)
    before = cfdbench.nmse(model(x, parameters=PARAMETERS), y)
    before.backward()
    assert all(p.grad is not None for p in model.parameters())
    optimiser.step()
    scheduler.step()
    assert cfdbench.nmse(model(x, parameters=PARAMETERS), y) < before


@pytest.mark.parametrize("name", cfdbench.MODELS)
def test_the_output_is_masked(name):
    x = torch.randn(2, 2, 32, 32)
    mask = torch.ones(2, 1, 32, 32)
    mask[..., 0] = 0
    y = cfdbench.MODELS[name]()(x, parameters=PARAMETERS, mask=mask)
    assert y.shape == x.shape
    assert y[..., 0].abs().max() == 0


def test_parameters_are_normalised_as_published():
    expected = torch.tensor([[10 / 50 - 0.5, -1.0, (1e-5 - 0.00238) / 0.005, 0.01, 0.01], [0.5, 0, 0, 0.01, 0.02]])
    torch.testing.assert_close(cfdbench.normalise_parameters(PARAMETERS), expected)
