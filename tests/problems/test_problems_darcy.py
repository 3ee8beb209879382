"""Darcy flow as a problem: published set-ups, the same field at every resolution, static data, refusals."""

import math

import pytest
import torch

from sciml.datasets import DatasetFile
from sciml.datasets.info import BOUNDARY_KINDS
from sciml.datasets.well import WELL_KINDS
from sciml.errors import ConfigError, SolverError
from sciml.problems import get_problem
from sciml.problems.generate import generate
from sciml.problems.random_fields import cosine_field

DARCY = get_problem("darcy")
FNO = {"low": 3.0, "high": 12.0, "source": 1.0, "draw": 7}


def test_documented_call():
    sample = DARCY.sample(3, "all", seed=0)
    out = DARCY.solve(sample.parameters, resolution=20)
    assert {name: tuple(value.shape) for name, value in out.items()} == {
        "permeability": (3, 1, 1, 20, 20),
        "pressure": (3, 1, 1, 20, 20),
        "time": (3, 1),
    }
    assert (out["pressure"] > 0).all() and not out["time"].any()
    for name, scale in DARCY.scales(sample.parameters).items():
        size = out[name].square().mean((1, 2, 3, 4)).sqrt() / scale[:, 0]
        assert (size > 0.2).all() and (size < 2).all(), name


@pytest.mark.parametrize(("subset", "values"), [("fno", {3.0, 12.0}), ("dgno_piecewise", {5.0, 10.0})])
def test_piecewise_subsets_have_the_published_values(subset, values):
    sample = DARCY.sample(20, subset, seed=0)
    a = DARCY.permeability(sample.parameters, 29)
    assert a.shape == (20, 1, 29, 29) and set(a.unique().tolist()) == values
    assert 0.4 < float((a == max(values)).double().mean()) < 0.6
    assert set(sample.parameters["source"].tolist()) == ({1.0} if subset == "fno" else {10.0})


def test_smooth_subset_is_log_normal():
    parameters = DARCY.sample(300, "smooth", seed=0).parameters
    log = (DARCY.permeability(parameters, 16, dtype=torch.float64) / 6).log()
    assert abs(float(log.mean())) < 0.02
    assert math.isclose(float(log.square().mean().sqrt()), math.log(4) / 4, rel_tol=0.1)


def test_field_is_the_same_function_at_every_resolution():
    """Cells of a grid three times as fine have centres that coincide with those of the coarse grid."""
    draw = torch.tensor([3.0, 11.0])
    coarse = cosine_field(draw, (16, 20), alpha=2.0, tau=3.0, dtype=torch.float64)
    fine = cosine_field(draw, (48, 60), alpha=2.0, tau=3.0, dtype=torch.float64)
    torch.testing.assert_close(fine[..., 1::3, 1::3], coarse, rtol=0, atol=1e-12)
    assert not torch.allclose(coarse[0], coarse[1])


def test_field_has_the_stated_law():
    """Variances of the cosine coefficients, from a discrete cosine sum that is exact for the modes a grid holds."""
    n, modes = 24, 8
    field = cosine_field(torch.arange(400.0), (n, n), alpha=2.0, tau=3.0, modes=modes, dtype=torch.float64)[:, 0]
    centres = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    number = torch.arange(modes, dtype=torch.float64)
    basis = torch.cos(math.pi * number[:, None] * centres) * torch.where(number == 0, 1.0, math.sqrt(2.0))[:, None] / n
    coefficients = torch.einsum("bij,ki,lj->bkl", field, basis, basis)
    variance = coefficients.square().mean(0)
    law = (math.pi**2 * (number[:, None] ** 2 + number**2) + 9.0) ** -2
    law[0, 0] = 0
    assert variance[0, 0] < 1e-24
    for mode in ((1, 0), (0, 1), (1, 1), (3, 2)):
        assert math.isclose(float(variance[mode]), float(law[mode] / law.sum()), rel_tol=0.35)
    assert math.isclose(float(field.square().mean()), 1.0, rel_tol=0.1)
    with pytest.raises(ConfigError, match="modes is 1"):
        cosine_field(torch.zeros(1), (8, 8), alpha=2.0, tau=3.0, modes=1)


def test_pressure_depends_on_the_dimensionless_permeability_only():
    one = DARCY.solve(FNO, 16, dtype=torch.float64)["pressure"]
    scaled = {**FNO, "low": 0.3, "high": 1.2, "source": 5.0, "length": 2.0}
    other = DARCY.solve(scaled, 16, dtype=torch.float64)["pressure"]
    units = [DARCY.scales(DARCY.as_parameters(p))["pressure"] for p in (FNO, scaled)]
    torch.testing.assert_close(one / float(units[0]), other / float(units[1]), rtol=1e-8, atol=1e-9)


def test_own_permeability():
    a = DARCY.permeability(FNO, 16, dtype=torch.float64)
    drawn = DARCY.solve(FNO, 16, dtype=torch.float64)
    own = DARCY.solve({**FNO, "draw": 0}, permeability=a, dtype=torch.float64)
    assert torch.equal(drawn["pressure"], own["pressure"])
    turned = DARCY.solve(FNO, permeability=a.mT, dtype=torch.float64)["pressure"]
    torch.testing.assert_close(turned, drawn["pressure"].mT, rtol=1e-8, atol=1e-11)
    many = DARCY.solve({**FNO, "source": [1.0, 2.0]}, permeability=a, dtype=torch.float64)["pressure"]
    torch.testing.assert_close(many[1], 2 * many[0], rtol=1e-8, atol=1e-11)


def test_batch_single_and_precision():
    parameters = DARCY.sample(3, "all", seed=1).parameters
    together = DARCY.solve(parameters, 16, dtype=torch.float64)["pressure"]
    single = DARCY.solve(parameters, 16)["pressure"]
    for case in range(3):
        alone = DARCY.solve({name: float(v[case]) for name, v in parameters.items()}, 16, dtype=torch.float64)
        torch.testing.assert_close(alone["pressure"][0], together[case], rtol=1e-10, atol=1e-14)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, rtol=1e-5, atol=1e-7)


def test_residual_is_at_round_off_and_differentiable():
    parameters = DARCY.sample(3, "all", seed=2).parameters
    out = DARCY.solve(parameters, 24, dtype=torch.float64)
    (residual,) = DARCY.residual(out, parameters)["balance"]
    assert residual.shape == (3, 1, 24, 24)
    assert (residual.abs().amax((1, 2, 3)) < 1e-8 * parameters["source"]).all()
    out["pressure"] = (1.01 * out["pressure"]).requires_grad_()
    (wrong,) = DARCY.residual(out, parameters)["balance"]
    torch.testing.assert_close(wrong.detach().mean((1, 2, 3)), 0.01 * parameters["source"], rtol=1e-6, atol=0)
    wrong.square().sum().backward()
    assert out["pressure"].grad.abs().max() > 0


def test_gradient_through_the_solve():
    a = DARCY.permeability(FNO, 8, dtype=torch.float64).requires_grad_()
    weight = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(a):
        return (DARCY.solve(FNO, permeability=a, dtype=torch.float64, tolerance=1e-13)["pressure"] * weight).sum()

    loss(a).backward()
    step = torch.zeros_like(a)
    step[0, 0, 3, 5] = 1e-4
    with torch.no_grad():
        difference = float(loss(a + step) - loss(a - step)) / 2e-4
    assert math.isclose(difference, float(a.grad[0, 0, 3, 5]), rel_tol=1e-6)


def test_generated_file_has_one_frame(tmp_path):
    path = generate(DARCY, tmp_path / "darcy.h5", cases=4, resolution=16, seed=3)
    info = DatasetFile(path).info
    assert info.n_frames == 1 and set(info.boundaries.values()) == {"value"}


def test_scalar_boundary_kinds_have_a_translation():
    assert {"value", "flux"} <= set(BOUNDARY_KINDS) and set(WELL_KINDS) == set(BOUNDARY_KINDS)
    assert set(DARCY.boundaries().values()) == {"value"}


def with_bad(value):
    a = torch.ones(2, 1, 16, 16)
    a[1, 0, 3, 4] = value
    return a


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_problem("darcy", 3), "does not exist in 3D; it exists in 2D"),
        (lambda: DARCY.solve({**FNO, "low": -3.0}), "low.*case 0.*positive"),
        (lambda: DARCY.solve({**FNO, "high": math.nan}), "high.*case 0"),
        (lambda: DARCY.solve({**FNO, "piecewise": 0.5}), "0 or 1"),
        (lambda: DARCY.solve({**FNO, "draw": 1.5}), "whole number"),
        (lambda: DARCY.solve(FNO, 16, times=[0.0, 1.0]), "static.*leave them out"),
        (lambda: DARCY.solve(FNO, permeability=with_bad(-1.0)), "case 1 is -1; it must be positive"),
        (lambda: DARCY.solve(FNO, permeability=with_bad(math.nan)), "case 1 is not finite"),
        (lambda: DARCY.solve(FNO, permeability=torch.ones(2, 16, 16)), r"shape \(2, 16, 16\); expected \(B, 1, nx"),
        (lambda: DARCY.solve(FNO, 32, permeability=torch.ones(2, 1, 16, 16)), r"expected \(B, 1, 32, 32\)"),
        (lambda: DARCY.solve({**FNO, "low": [1.0] * 3}, permeability=torch.ones(2, 1, 16, 16)), r"expected \(2,\)"),
        (lambda: DARCY.sample(2, "fnoo"), "did you mean 'fno'"),
        (lambda: DARCY.solve(FNO, 4), "resolution is 4"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_non_convergence_is_reported():
    with pytest.raises(SolverError, match=r"case 0 .* after 2 iterations"):
        DARCY.solve(FNO, 16, max_iterations=2)
