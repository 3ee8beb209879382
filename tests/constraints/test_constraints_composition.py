"""Several constraints at once, and the wrapper around any operator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sciml.constraints import Constrained, Constraint, Context, create_constraint, impose, project_together, residuals
from sciml.errors import ConfigError, DataError, SolverError
from sciml.physics import box

SHAPE = (4, 3)
SIZE = 2 * 4 * 3


def context(batch: int = 2, dtype: torch.dtype = torch.float64) -> Context:
    return Context(box(SHAPE, torch.ones(batch, 2, dtype=dtype)), {"velocity": slice(0, 2)})


def field(batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 2, *SHAPE, dtype=torch.float64).to(dtype)


class Rows(Constraint):
    """``A u = b``, by the nearest point: dense, so that the answer is known."""

    name = "rows"
    affine = True

    def __init__(self, seed: int, count: int, values: float = 1.0, name: str = "rows") -> None:
        super().__init__()
        self.name = name  # type: ignore[misc]
        generator = torch.Generator().manual_seed(seed)
        self.rows = torch.randn(count, SIZE, generator=generator, dtype=torch.float64)
        self.values = values * torch.randn(count, generator=generator, dtype=torch.float64)

    def forward(self, u: Tensor, context: Context) -> Tensor:
        flat = u.double().flatten(1)
        change = (flat @ self.rows.T - self.values) @ torch.linalg.pinv(self.rows).T
        return (flat - change).reshape(u.shape).to(u.dtype)

    def residual(self, u: Tensor, context: Context) -> Tensor:
        return (u.double().flatten(1) @ self.rows.T - self.values).abs().amax(1)


class Positive(Constraint):
    """Not affine."""

    name = "positive"

    def forward(self, u: Tensor, context: Context) -> Tensor:
        return u.clamp(min=0)

    def residual(self, u: Tensor, context: Context) -> Tensor:
        return (-u.double()).clamp(min=0).flatten(1).amax(1)


def nearest(u: Tensor, constraints: list[Rows]) -> Tensor:
    rows = torch.cat([c.rows for c in constraints])
    values = torch.cat([c.values for c in constraints])
    flat = u.flatten(1)
    return (flat - (flat @ rows.T - values) @ torch.linalg.pinv(rows).T).reshape(u.shape)


@pytest.mark.parametrize("count", [2, 3])
def test_together_is_the_nearest_field_that_obeys_all(count):
    constraints = [Rows(seed, 5) for seed in range(count)]
    u = field()
    found = project_together(constraints, u, context())
    torch.testing.assert_close(found, nearest(u, constraints), rtol=0, atol=1e-11)
    assert all(float(values.max()) < 1e-11 for values in residuals(constraints, found, context()).values())
    one_by_one = impose([constraints[1]], impose([constraints[0]], u, context()), context())
    assert float(constraints[0].residual(one_by_one, context()).max()) > 0.1, "the test must need both"


def test_rows_that_two_constraints_share():
    constraints = [Rows(0, 6), Rows(0, 6), Rows(1, 3)]
    found = project_together(constraints, field(), context())
    torch.testing.assert_close(found, nearest(field(), [constraints[0], constraints[2]]), rtol=0, atol=1e-11)


def test_homogeneous_rows_and_a_field_of_zeros():
    constraints = [Rows(0, 5, values=0.0), Rows(1, 5, values=0.0)]
    u = torch.cat([field(1), torch.zeros(1, 2, *SHAPE, dtype=torch.float64)])
    found = project_together(constraints, u, context())
    torch.testing.assert_close(found, nearest(u, constraints), rtol=0, atol=1e-12)
    assert torch.equal(found[1], u[1])


def test_gradients():
    constraints = [Rows(0, 5), Rows(1, 5)]
    u = field().requires_grad_()

    def together(u: Tensor) -> Tensor:
        return project_together(constraints, u, context())

    assert torch.autograd.gradcheck(together, u)
    assert torch.autograd.gradgradcheck(lambda u: together(u).square(), u)
    small = 1e-9 * torch.ones_like(u)
    (found,) = torch.autograd.grad(together(u), u, small)
    torch.testing.assert_close(found / 1e-9, nearest(small / 1e-9, [_zero(c) for c in constraints]))


def _zero(constraint: Rows) -> Rows:
    made = Rows(0, len(constraint.rows), values=0.0)
    made.rows = constraint.rows
    return made


def test_single_precision():
    constraints = [Rows(0, 5), Rows(1, 5)]
    u = field(dtype=torch.float32)
    found = project_together(constraints, u, context())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), nearest(u.double(), constraints), rtol=0, atol=3e-7)


def test_contradicting_constraints():
    wrong = Rows(0, 5, name="other")
    wrong.values = wrong.values + 1
    with pytest.raises(SolverError, match=r"rows and other cannot hold together in case 1: .* away from other"):
        project_together([Rows(0, 5), wrong], field(), context())


def test_order_and_neighbours():
    """Affine neighbours hold together, another one where it stands."""
    rows = [Rows(0, 3), Rows(1, 3)]
    u = field()
    expected = Positive()(nearest(u, rows), context())
    torch.testing.assert_close(impose([*rows, Positive()], u, context()), expected)
    found = impose([Positive(), *rows], u, context())
    torch.testing.assert_close(found, nearest(u.clamp(min=0), rows))
    assert list(residuals([*rows, Positive()], found, context())) == ["rows", "rows 2", "positive"]


def test_any_operator_can_be_wrapped():
    network = nn.Conv2d(3, 2, 1).double()
    model = Constrained(network, [Rows(0, 5), Rows(1, 5)])
    x = torch.randn(2, 3, *SHAPE, dtype=torch.float64)
    y = model(x, context=context())
    assert all(float(values.detach().max()) < 1e-10 for values in model.residuals(y, context()).values())
    y.square().sum().backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in network.parameters())
    assert torch.equal(Constrained(network, [])(x, context=context()), network(x))
    with pytest.raises(ConfigError, match="no Constraint"):
        Constrained(network, [nn.ReLU()])  # type: ignore[list-item]


def test_bad_fields_and_names():
    u = field()
    with pytest.raises(DataError, match=r"shape \(2, 2, 4, 4\); expected \(batch, channels, 4, 3\)"):
        impose([Rows(0, 5)], torch.zeros(2, 2, 4, 4), context())
    with pytest.raises(DataError, match="2 cases, the context's grid 3"):
        impose([Rows(0, 5)], u, context(3))
    u[1, 0, 0, 0] = torch.nan
    with pytest.raises(DataError, match="field of case 1 holds NaN"):
        impose([Rows(0, 5)], u, context())
    with pytest.raises(ConfigError, match="unknown constraint 'divergence-fre'"):
        create_constraint("divergence-fre")
    with pytest.raises(ConfigError, match=r"no field 'velocty'.*did you mean 'velocity'"):
        context().slice_of("velocty")
    with pytest.raises(ConfigError, match="no boundary conditions of the field 'velocity' are declared"):
        context().conditions("velocity")
