"""Any network, its output made divergence-free with closed walls; and a noisy measurement corrected the same way."""

import torch
from torch import nn

from sciml.constraints import Constrained, Context, DivergenceFree
from sciml.physics import MovingWall, Wall, box, divergence, metrics
from sciml.problems import get_problem

CELLS = 32


def main() -> float:
    torch.manual_seed(0)
    grid = box((CELLS, CELLS), torch.tensor([[1.0, 1.0]]))
    sides = {"x_low": Wall(), "x_high": Wall(), "y_low": Wall(), "y_high": MovingWall((1.0, 0.0))}
    context = Context(grid, {"velocity": slice(0, 2)}, {"velocity": sides})

    # Your own network: any module whose output is (batch, channels, nx, ny).
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 2, 3, padding=1))
    model = Constrained(network, [DivergenceFree()])
    x = torch.randn(1, 3, CELLS, CELLS)
    for name, u in (("network", network(x)), ("constrained", model(x, context=context))):
        found = {key: f"{float(value):.1e}" for key, value in model.residuals(u.detach(), context).items()}
        print(f"{name:12s} {found}")

    # A measured velocity with 10 % noise. The projection removes what no incompressible flow has.
    parameters = {"lid_velocity": 1.0, "density": 1.0, "viscosity": 0.01, "height": 1.0, "width": 1.0}
    truth = get_problem("cavity").solve(parameters, CELLS, times=[0.0, 5.0])["velocity"][:, 1]
    measured = truth + 0.1 * truth.std() * torch.randn_like(truth)
    layer = DivergenceFree()
    corrected = layer(measured, context)
    errors = [float((u - truth).norm() / truth.norm()) for u in (measured, corrected)]
    print(f"error of the measurement {errors[0]:.3f}, corrected {errors[1]:.3f}")
    faces = layer.faces(measured, context)  # the same velocity on the faces of the cells, for a solver
    rest = divergence(faces, metrics(grid, dtype=torch.float32)) / CELLS
    print(f"largest divergence on the staggered grid, times the cell: {float(rest.abs().max()):.1e}")
    return errors[1] / errors[0]


if __name__ == "__main__":
    main()
