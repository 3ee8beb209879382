"""Move a vortex by a source of vorticity: gradient descent through a network that no solver has taught.

The network learns steps of the flow from the equation alone. Then the amplitude and phase of the source, new in each of
12 stretches of time, are found by gradient descent through its rollout, and the solver says what they are worth.

python examples/control_vortex.py [picture.png]
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import sciml
from sciml.problems import get_problem
from sciml.problems.vorticity import CONTROL_FORCING, CONTROL_WAVES
from sciml.surrogate import Surrogate
from sciml.training import resolve_config, train

CELLS, INTERVAL = 32, 0.05
FRAMES, STRETCHES = 4, 12  # frames that one call of the network gives; calls
SHIFT = CELLS // 4  # of the vortex along x and y, in cells
FLOW = {"viscosity": 2e-3, "initial_smoothness": 4.0}  # the r.m.s. vorticity is 3 1/s, the default
VORTICITY = get_problem("vorticity")

IN_TURN = torch.tensor(CONTROL_WAVES).repeat(STRETCHES // 4, 1).unsqueeze(0)
"""Waves (x, y) of the source in every stretch, ``(1, STRETCHES, 2)``: along x, y and both diagonals in turn."""

TASK = {"task": {"residual": 1.0}}  # the equation is all that there is to learn from: --physics-only
OVERRIDES = [
    "data.subset=controlled",
    f"data.resolution={CELLS}",
    f"data.interval={INTERVAL}",
    f"data.frames={FRAMES * STRETCHES + 1}",
    "data.cases.validation=2",
    "data.cases.test=4",
    "operator.spatial=2",
    f"operator.temporal={FRAMES}",
    "operator.options={hidden_channels: 32, n_modes: [12, 12]}",
    "batch_size=8",
    "optimizer.learning_rate=1e-2",
    "device=cpu",
]


def learn(directory: Path, steps: int, seed: int) -> Surrogate:
    own = [f"budget.steps={steps}", f"seed={seed}", f"data.directory={directory / 'data'}"]
    run = train(resolve_config("vorticity", "neuralstagger", overrides=OVERRIDES + own, flags=TASK), directory / "run")
    error = run.summary["test"]["rollout_last"]
    print(f"{steps} steps without data; error after {FRAMES * STRETCHES * INTERVAL:.1f} s of rollout {error:.3f}")
    return sciml.load(run.directory).requires_grad_(False)


def vortex() -> Tensor:
    """``(1, 1, n, n)``: a Gaussian vortex a quarter of the box from two sides, in 1/s."""
    from_centre = (torch.arange(CELLS) + 0.5) / CELLS - 0.25
    along = torch.exp(-(((from_centre + 0.5) % 1 - 0.5) ** 2) / (2 * 0.16**2))
    shape = along[:, None] * along
    shape = shape - shape.mean()
    return (3 * shape / shape.square().mean().sqrt()).reshape(1, 1, CELLS, CELLS)


def source(controls: Tensor, waves: Tensor) -> dict[str, Tensor]:
    """Parameters ``(B, STRETCHES)`` of the source; controls are its cosine and sine parts ``(B, STRETCHES, 2)``.

    Amplitudes stay between 0.1 and the strongest that the network was trained on.
    """
    controls = controls.double()
    amplitude = (controls.square().sum(-1) + 0.1**2).sqrt()
    waves = waves.expand_as(controls)
    return {
        "forcing": CONTROL_FORCING * torch.tanh(amplitude / CONTROL_FORCING),
        "forcing_phase": torch.atan2(controls[..., 1], controls[..., 0]),
        "forcing_wavenumber_x": waves[..., 0],
        "forcing_wavenumber_y": waves[..., 1],
    }


def predict(surrogate: Surrogate, start: Tensor, acting: dict[str, Tensor]) -> Tensor:
    """The vorticity at the end, ``(B, 1, n, n)``, differentiable with respect to the source."""
    every_frame = {name: values.repeat_interleave(FRAMES, 1) for name, values in acting.items()}
    start = start.expand(len(acting["forcing"]), -1, -1, -1)
    return surrogate.rollout(start, {**FLOW, **every_frame}, FRAMES * STRETCHES, gradients=True)[:, -1]


@torch.no_grad()
def solve(start: Tensor, acting: dict[str, Tensor]) -> Tensor:
    """The same by the solver, stretch by stretch."""
    state = start.expand(len(acting["forcing"]), -1, -1, -1)
    for stretch in range(STRETCHES):
        now = {name: values[:, stretch] for name, values in acting.items()}
        state = VORTICITY.solve({**FLOW, **now}, times=[0.0, FRAMES * INTERVAL], initial=state)["vorticity"][:, 1]
    return state


def distance(state: Tensor, target: Tensor) -> Tensor:
    """The objective ``(B,)``: the squared distance to the target, relative to it."""
    return (state - target).square().mean((1, 2, 3)) / target.square().mean()


def descend(surrogate: Surrogate, start: Tensor, target: Tensor, controls: Tensor, waves: Tensor, iterations: int):
    """Controls ``(B, STRETCHES or 1, 2)`` that lower the objective of each case; those of one stretch hold for all."""
    controls = controls.clone().requires_grad_()
    optimizer = torch.optim.Adam([controls], lr=0.3)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    for _ in range(iterations):
        optimizer.zero_grad()
        acting = source(controls.expand(-1, STRETCHES, -1), waves)
        distance(predict(surrogate, start, acting), target).sum().backward()
        optimizer.step()
        annealing.step()
    return source(controls.detach().expand(-1, STRETCHES, -1), waves)


def draw(path: Path, fields: dict[str, Tensor]) -> None:
    figure = Figure(figsize=(3 * len(fields), 3.3), layout="constrained")
    largest = max(float(field.abs().max()) for field in fields.values())
    row = figure.subplots(1, len(fields), sharey=True)
    for axes, (title, field) in zip(row, fields.items(), strict=True):
        limits = {"vmin": -largest, "vmax": largest, "extent": (0, 1, 0, 1)}
        image = axes.imshow(field[0, 0].mT.numpy(), origin="lower", cmap="RdBu_r", **limits)
        axes.set_title(title, fontsize=9)
    figure.colorbar(image, ax=list(row), label="vorticity (1/s)")
    figure.savefig(path, dpi=90)


def main(directory: Path, picture: Path, steps: int = 1500, iterations: int = 80, seed: int = 0) -> float:
    torch.manual_seed(seed)
    surrogate = learn(directory, steps, seed)

    # Wanted: the vortex as it would be at the end, a quarter of the box farther along x and y.
    start = vortex()
    times = [0.0, FRAMES * STRETCHES * INTERVAL]
    alone = VORTICITY.solve(FLOW, times=times, initial=start)["vorticity"][:, 1]
    target = alone.roll((SHIFT, SHIFT), (2, 3))

    first = 0.1 * torch.randn(1, STRETCHES, 2)
    found = descend(surrogate, start, target, first, IN_TURN, iterations)
    # For comparison sources that do not change, one of each kind of wave.
    waves = torch.tensor(CONTROL_WAVES).unsqueeze(1)
    constant = descend(surrogate, start, target, 0.1 * torch.randn(len(waves), 1, 2), waves, iterations)

    solved, predicted = solve(start, found), predict(surrogate, start, found)
    without, best = float(distance(alone, target)), float(distance(solve(start, constant), target).min())
    reached = float(distance(solved, target))
    print("squared distance to the target, relative to it")
    print(f"  without control:      {without:.3f} by the solver")
    print(f"  best constant source: {best:.3f} by the solver")
    believed = float(distance(predicted, target))
    print(f"  the source found:     {reached:.3f} by the solver, {believed:.3f} by the surrogate")
    print(f"the control lowers the objective {without / reached:.0f} times")
    fields = {"start": start, "without control": alone, "target": target}
    draw(picture, {**fields, "controlled, solver": solved, "controlled, surrogate": predicted})
    return without / reached


def run(arguments: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary), *(Path(each) for each in arguments or ["control_vortex.png"]))


if __name__ == "__main__":
    run(sys.argv[1:])
