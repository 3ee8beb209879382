"""Flow past a cylinder on a triangulation: does a mesh that moves make an operator better, and how good are the meshes?

    python benchmarks/moving_triangles.py [--tables movers operators] [--seeds 0 1 2] [--minutes 2]

Two tables. *movers*: the learned mover of triangulations beside the classical one (``relax``), on a channel with a disc
and fields of another seed than its training, and on wakes of Reynolds numbers that it never saw. *operators*:
``TriangleMMPDE`` beside the same with the warp switched off, the graph operator on the fixed nodes alone, and U-Net and
FNO on a grid, all with about the same number of weights, data, loss, and minutes of one thread (CPU time of the
process, meshes counted). Errors are those of the velocity at the vertices of the triangulation, weighted by the areas
around them; fields on the grid are interpolated to these (``grid, exact``: what that alone costs).
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Row, report
from torch import Tensor, nn

from sciml.constraints.mesh_mover import Box, sample
from sciml.constraints.mesh_mover.triangles import (
    Triangulation,
    folded_triangles,
    relax,
    sample_triangles,
    triangle_curvature_monitor,
)
from sciml.operators import OPERATORS
from sciml.operators.mesh_mover.random_shapes import random_shapes
from sciml.operators.mesh_mover.triangle_mover import TriangleMover
from sciml.operators.mesh_mover.triangle_training import fit_triangle_mover, shapes_at_nodes
from sciml.operators.mmpde import MovedNodes, TriangleMMPDE
from sciml.physics.weak.channel_mesh import channel_mesh, channel_with_disc
from sciml.solvers.flow_past_cylinder import FlowPastCylinder
from sciml.solvers.flow_past_cylinder.sampling import interpolation

LENGTHS, CENTRE, RADIUS = (16.0, 8.0), (4.0, 4.0), 0.5
"""In diameters, which here are metres; the mean speed is 1 m/s."""
REYNOLDS, TEST = (60.0, 180.0), (2, 5, 8, 11)
"""From, to, in equal steps of the logarithm; the cases that are tested on."""
CASES, FRAMES, INTERVAL, SPIN_UP = 14, 40, 0.5, 40.0
EDGE, DISC_EDGE = 0.42, 0.15
GRID = (64, 32)
HIDDEN, LAYERS = 32, 4
"""Of TriangleMMPDE; all the others follow its number of weights."""
BATCH, RATE, WARM_UP = 4, 2e-3, 0.05
ROLLOUT, STARTS = 20, (0, 19)
MODELS = ("mmpde", "mmpde, warp off", "graph", "unet", "fno")
PROBES, FEWER = 6000, 5
"""Points at which errors are taken; the classical mover, which is slow, is judged on every fifth batch of shapes."""


# ------------------------------------------------------------------------------------------------------------ the flow


def wake_mesh() -> Triangulation:
    """The triangulation that the operators work on."""
    mesh = channel_mesh(EDGE, lengths=LENGTHS, centre=CENTRE, radius=RADIUS, h_disc=DISC_EDGE)
    return Triangulation.of(mesh, circles=[(*CENTRE, RADIUS)])


def reynolds_numbers() -> list[float]:
    low, high = REYNOLDS
    return [low * (high / low) ** (case / (CASES - 1)) for case in range(CASES)]


def flow_at(reynolds: float) -> FlowPastCylinder:
    numbers = (LENGTHS, CENTRE, RADIUS, 1.0, 1 / reynolds)
    return FlowPastCylinder(*(torch.tensor([value], dtype=torch.float64) for value in numbers))


def make_data(path: Path) -> None:
    """Velocities at the vertices, at the cells of the grid, and, of the test cases, at the nodes of the elements."""
    points, middle = wake_mesh().points, torch.tensor(CENTRE, dtype=torch.float64)
    made: dict[str, list[np.ndarray]] = {"nodes": [], "grid": []}
    fine: dict[str, np.ndarray] = {}
    for case, reynolds in enumerate(reynolds_numbers()):
        flow = flow_at(reynolds)
        at_nodes = interpolation(flow.meshes[0], 2, points, middle)
        state = flow.initial_state(spin_up=SPIN_UP)
        nodes, grid, elements = [], [], []
        for frame in range(FRAMES):
            if frame:
                state = flow.advance(state, INTERVAL * flow.cases.time_unit)
            velocity = state.cases[0].velocity[0].numpy()
            nodes.append((at_nodes @ velocity).T.astype(np.float32))
            grid.append(flow.sample(state, GRID)["velocity"][0].numpy().astype(np.float32))
            elements.append(velocity.astype(np.float32))
        made["nodes"].append(np.stack(nodes))
        made["grid"].append(np.stack(grid))
        if case in TEST:
            fine[f"fine{case}"] = np.stack(elements)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: np.stack(value) for name, value in made.items()}, **fine)


def split(values: np.ndarray) -> tuple[Tensor, Tensor]:
    """Training and test cases."""
    train = [case for case in range(CASES) if case not in TEST]
    return torch.as_tensor(values[train]), torch.as_tensor(values[list(TEST)])


# ---------------------------------------------------------------------------------------------------------- the movers

Mover = Callable[[Tensor], Tensor]
"""From monitors ``(B, N)`` to nodes ``(B, N, 2)``."""


def probes_in(triangulation: Triangulation) -> Tensor:
    """Points all over the domain ``(1, P, 2)``."""
    high = triangulation.points.amax(0)
    generator = torch.Generator().manual_seed(0)
    probes = torch.rand(PROBES, 2, dtype=torch.float64, generator=generator) * high
    return probes[triangulation.mesh.find(probes)[0] >= 0].unsqueeze(0)


def judged(
    domain: str, fields: list[tuple[Tensor, Callable[[Tensor], Tensor]]], triangulation: Triangulation, movers: dict
) -> list[Row]:
    """``fields``: batches of values at the fixed nodes, and the function that they are of."""
    probes, fixed = probes_in(triangulation), triangulation.points.unsqueeze(0)
    rows = []
    for name, mover in movers.items():
        gains, folds, off, spent = [], 0, 0.0, 0.0
        few = name != "learned" and domain != "wakes"
        for u, function in fields[:: FEWER if few else 1]:
            with torch.no_grad():
                began = time.process_time()
                moved = mover(triangle_curvature_monitor(u.float(), triangulation))
                spent += time.process_time() - began
            folds += int(folded_triangles(moved.double(), triangulation).sum())
            turning = triangulation.motion.turning
            arms = (moved.double()[:, turning] - triangulation.motion.centres).norm(dim=-1)
            radii = (triangulation.points[turning] - triangulation.motion.centres).norm(dim=-1)
            off = max(off, float((arms / radii - 1).abs().max()))
            exact = function(probes.expand(len(u), -1, -1))
            errors = [
                (sample_triangles(function(points), triangulation, points, probes) - exact).square().mean((1, 2)).sqrt()
                for points in (fixed.expand(len(u), -1, -1), moved.double())
            ]
            gains += (errors[0] / errors[1]).tolist()
        rows.append(
            {
                "fields": domain,
                "nodes": triangulation.n_nodes,
                "mover": name,
                "count": len(gains),
                "gain": statistics.mean(gains),
                "least": min(gains),
                "share that gains": sum(gain > 1 for gain in gains) / len(gains),
                "folds": folds,
                "off the circle": off,
                "ms a mesh": 1e3 * spent / len(gains),
            }
        )
        print(rows[-1], flush=True)
    return rows


def movers_of(triangulation: Triangulation, learned: TriangleMover) -> dict[str, Mover]:
    return {
        "learned": lambda monitor: learned.move(monitor, triangulation).points,
        "relax, 10 steps": lambda monitor: relax(monitor, triangulation, iterations=10).points,
        "relax, 100 steps": lambda monitor: relax(monitor, triangulation).points,
    }


def random_fields(triangulation: Triangulation, count: int) -> list:
    low, high = triangulation.points.aminmax(dim=0)
    generator = torch.Generator().manual_seed(20261122)
    batches = []
    for first in range(0, count, 50):
        function = random_shapes(min(50, count - first), low, high, generator)
        batches.append((function(triangulation.points.unsqueeze(0)), function))
    return batches


def wake_fields(data: Any, triangulation: Triangulation, every: int) -> list:
    """Each ``every``-th frame of the test cases, with the finite elements' velocity as the function."""
    middle, batches = torch.tensor(CENTRE, dtype=torch.float64), []
    for case in TEST:
        mesh = flow_at(reynolds_numbers()[case]).meshes[0]
        for frame in range(0, FRAMES, every):
            velocity = data[f"fine{case}"][frame].astype(np.float64)

            def function(points: Tensor, mesh=mesh, velocity=velocity) -> Tensor:
                return torch.as_tensor((interpolation(mesh, 2, points[0], middle) @ velocity).T).unsqueeze(0)

            batches.append((function(triangulation.points.unsqueeze(0)), function))
    return batches


def wake_mover(states: Tensor, triangulation: Triangulation, steps: int) -> TriangleMover:
    """Trained on states ``(S, 2, N)`` of the training cases; no mesh is imitated."""
    torch.manual_seed(0)
    mover = TriangleMover()

    def draw(count: int, generator: torch.Generator) -> Tensor:
        return states[torch.randint(len(states), (count,), generator=generator)]

    fit_triangle_mover(mover, draw, triangulation, steps=steps, seed=0)
    return mover


def movers_table(data: Any, mover: TriangleMover, arguments: argparse.Namespace) -> None:
    channel = Triangulation.of(channel_with_disc(0.055), circles=[(0.5, 0.6, 0.1)])
    torch.manual_seed(0)
    learned = TriangleMover()
    fit_triangle_mover(learned, shapes_at_nodes(channel), channel, steps=arguments.steps, seed=0)
    rows = judged(
        "bumps, fronts, rings", random_fields(channel, arguments.fields), channel, movers_of(channel, learned)
    )
    wake = wake_mesh()
    rows += judged("wakes", wake_fields(data, wake, 4), wake, movers_of(wake, mover))
    report(
        "moving_triangles_movers",
        "How good are moved triangulations of a domain with an obstacle, on unseen fields?",
        rows,
        [
            f"learned: `fit_triangle_mover`, {arguments.steps} steps of 4 fields, seed 0; fields here of another seed, "
            "or other Reynolds numbers",
            "gain: error of linear interpolation on the fixed mesh over that on the moved one, mean over the fields",
            "curvature monitor at its default share; ms of processor time, one thread, batches of 50 (wakes: of 1)",
        ],
    )


# ------------------------------------------------------------------------------------------------------- the operators


@dataclass
class Places:
    """Where a kind of model lives: states ``(cases, frames, 2, *nodes)`` and what does not change."""

    train: Tensor
    test: Tensor
    free: Tensor
    """1 where the velocity is not given by a boundary or a solid ``(*nodes)``."""
    static: Tensor
    """Channels that every state has beside it ``(S, *nodes)``."""
    weights: Tensor
    """Of the nodes in sums ``(*nodes)``, of sum 1."""
    to_vertices: Callable[[Tensor], Tensor]
    """States ``(B, 2, *nodes)`` at the vertices ``(B, 2, N)``."""

    def __post_init__(self) -> None:
        change = self.train.diff(dim=1)
        square = (change.square() * self.weights).flatten(3).sum(-1).mean((0, 1))
        self.scale = square.sqrt().reshape(2, *[1] * self.free.ndim)


def mesh_places(data: Any, triangulation: Triangulation) -> Places:
    train, test = split(data["nodes"])
    x, y = triangulation.points.unbind(1)
    boundary = torch.zeros(triangulation.n_nodes, dtype=torch.bool)
    boundary[triangulation.mesh.edges[triangulation.mesh.edge_counts == 1]] = True
    outflow = (x > LENGTHS[0] - 1e-6) & (y > 1e-6) & (y < LENGTHS[1] - 1e-6)
    free = (~boundary | outflow).float()
    static = torch.stack([free, outflow.float()])
    weights = (triangulation.node_areas / triangulation.area).float()
    return Places(train, test, free, static, weights, lambda u: u)


def grid_places(data: Any, triangulation: Triangulation, vertices: Places) -> Places:
    train, test = split(data["grid"])
    box = Box(LENGTHS)
    centres = box.centres(GRID, dtype=torch.float32)
    fluid = ((centres - torch.tensor(CENTRE)).norm(dim=-1) >= RADIUS).float()
    static = torch.cat([fluid.unsqueeze(0), (centres / 8 - 1).movedim(-1, 0)])
    points, given = triangulation.points.float().unsqueeze(0), vertices.train[0, 0]

    def to_vertices(u: Tensor) -> Tensor:
        sampled = sample(u, points.expand(len(u), -1, -1), box)
        return torch.where(vertices.free == 1, sampled, given)  # what boundaries give is known

    return Places(train, test, fluid, static, fluid / fluid.sum(), to_vertices)


class Stepper(nn.Module):
    """A network as the step of a state: what it gives is the increment over its root mean square."""

    def __init__(self, network: nn.Module, places: Places, triangulation: Triangulation | None) -> None:
        super().__init__()
        self.network, self.places, self.triangulation = network, places, triangulation

    def increment(self, u: Tensor, condition: Tensor, moved: MovedNodes | None = None) -> Tensor:
        """``(B, 2, *nodes)``, in units of ``places.scale``."""
        places = self.places
        x = torch.cat([u, places.static.expand(len(u), *places.static.shape)], 1)
        if self.triangulation is None:
            return places.free * self.network(x, parameters=condition)
        return places.free * self.network(x, self.triangulation, moved=moved, parameters=condition)


def network_of(model: str, width: int) -> nn.Module:
    """Inputs: velocity and static channels; conditioned on the Reynolds number."""
    if model in ("unet", "fno"):
        options: dict[str, Any] = {"patch_size": 1, "hidden_channels": [width, 2 * width]}
        if model == "fno":
            options = {"patch_size": 1, "hidden_channels": width, "n_modes": [15, 9], "n_layers": 4}
        given = {"in_channels": 5, "out_channels": 2, "n_parameters": 1}
        return OPERATORS[model].create({**given, **OPERATORS[model].options_for(2, False), **options})
    options = {"branches": "fixed"} if model == "graph" else {"warp": model == "mmpde"}
    return TriangleMMPDE(4, 2, hidden_channels=width, n_layers=LAYERS, moved_by=[0, 1], n_parameters=1, **options)


def size(model: str, width: int) -> int:
    return sum(parameter.numel() for parameter in network_of(model, width).parameters())


def width_of(model: str) -> int:
    """The width whose number of weights is nearest to that of TriangleMMPDE."""
    if model not in ("unet", "fno"):
        return HIDDEN
    wanted = size("mmpde", HIDDEN)
    return min(range(2, 65, 2), key=lambda width: abs(size(model, width) - wanted))


def conditions(cases: list[int]) -> Tensor:
    """Logarithm of the Reynolds number, from -1 to 1."""
    logs = torch.tensor([math.log(reynolds_numbers()[case]) for case in cases])
    low, high = (math.log(value) for value in REYNOLDS)
    return ((logs - (low + high) / 2) / ((high - low) / 2)).unsqueeze(1)


def moved_by(mover: TriangleMover, states: Tensor, triangulation: Triangulation) -> MovedNodes:
    with torch.no_grad():
        return MovedNodes.of(mover(states, triangulation).points, triangulation)


def train(stepper: Stepper, moves: bool, mover: TriangleMover, seed: int, minutes: float) -> int:
    """Increments of all pairs of frames, weighted squares; the number of steps that the time was enough for."""
    began, places = time.process_time(), stepper.places
    states = places.train[:, :-1].flatten(0, 1)
    targets = places.train.diff(dim=1).flatten(0, 1) / places.scale
    condition = conditions([case for case in range(CASES) if case not in TEST]).repeat_interleave(FRAMES - 1, 0)
    meshes = None
    if moves:  # every state's mesh once, of the time for training
        meshes = moved_by(mover, states, stepper.triangulation)
    optimiser = torch.optim.AdamW(stepper.parameters(), lr=RATE, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    steps = 0
    while (spent := (time.process_time() - began) / (60 * minutes)) < 1:
        if len(order) < BATCH:
            order += torch.randperm(len(states), generator=generator).tolist()
        rows = torch.tensor([order.pop(0) for _ in range(BATCH)])
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (spent + 1e-3) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * spent))
        made = stepper.increment(states[rows], condition[rows], None if meshes is None else meshes[rows])
        loss = ((made - targets[rows]).square() * places.weights).flatten(1).sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(stepper.parameters(), 1.0)
        optimiser.step()
        steps += 1
    return steps


def ratio(made: Tensor, exact: Tensor, weights: Tensor) -> Tensor:
    """Squared error over square of each state ``(B,)``."""
    error, whole = ((x.square() * weights).flatten(1).sum(1) for x in (made - exact, exact))
    return error / whole


@torch.no_grad()
def rollout(step: Callable[[Tensor, Tensor], Tensor], places: Places, vertices: Places) -> tuple[float, float]:
    """Relative L2, mean over frames, cases and starts, at the vertices and at its own nodes."""
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    condition = conditions(list(TEST))
    for start in STARTS:
        u = places.test[:, start]
        for frame in range(start + 1, start + 1 + ROLLOUT):
            u = step(u, condition)
            found[0].append(ratio(places.to_vertices(u), vertices.test[:, frame], vertices.weights).sqrt())
            found[1].append(ratio(u, places.test[:, frame], places.weights).sqrt())
    return tuple(float(torch.cat(part).mean()) for part in found)


def one(model: str, seed: int, mover: TriangleMover, places: Places, vertices: Places, wake, minutes: float) -> Row:
    """Train a model and judge it."""
    torch.manual_seed(seed)
    on_mesh, moves = model not in ("unet", "fno"), model == "mmpde"
    stepper = Stepper(network_of(model, width_of(model)), places, wake if on_mesh else None)
    steps = train(stepper, moves, mover, seed, minutes)
    stepper.eval()

    @torch.no_grad()
    def step(u: Tensor, condition: Tensor) -> Tensor:
        moved = moved_by(mover, u, wake) if moves else None
        return u + places.scale * stepper.increment(u, condition, moved)

    condition = conditions(list(TEST))
    one_step, own_step = [], []
    for frame in range(FRAMES - 1):
        made = step(places.test[:, frame], condition)
        one_step.append(ratio(places.to_vertices(made), vertices.test[:, frame + 1], vertices.weights))
        own_step.append(ratio(made, places.test[:, frame + 1], places.weights))
    at_vertices, own = rollout(step, places, vertices)
    row = {
        "model": model,
        "seed": seed,
        "weights": sum(parameter.numel() for parameter in stepper.parameters()),
        "steps": steps,
        "one-step NMSE": float(torch.cat(one_step).mean()),
        "rollout relative L2": at_vertices,
        "own nodes: one-step NMSE": float(torch.cat(own_step).mean()),
        "rollout": own,
    }
    print(row, flush=True)
    return row


def averaged(rows: list[Row]) -> list[Row]:
    """One row a model: means over the seeds, and the range of the rollout error."""
    joined = []
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        errors = [row["rollout relative L2"] for row in mine]
        joined.append(
            {
                "model": model,
                "seeds": len(mine),
                "weights": mine[0]["weights"],
                "steps": round(statistics.mean(row["steps"] for row in mine)),
                "one-step NMSE": statistics.mean(row["one-step NMSE"] for row in mine),
                "rollout relative L2": statistics.mean(errors),
                "lowest": min(errors),
                "highest": max(errors),
                **{
                    name: statistics.mean(row[name] for row in mine) for name in ("own nodes: one-step NMSE", "rollout")
                },
            }
        )
    return joined


def without_learning(places: Places, vertices: Places) -> list[Row]:
    """Persistence at the vertices, and the exact fields of the grid interpolated to the vertices."""
    change = ratio(vertices.test[:, :-1].flatten(0, 1), vertices.test[:, 1:].flatten(0, 1), vertices.weights)
    still, own = rollout(lambda u, _: u, vertices, vertices)
    exact = ratio(places.to_vertices(places.test.flatten(0, 1)), vertices.test.flatten(0, 1), vertices.weights)
    names = "one-step NMSE", "rollout relative L2", "own nodes: one-step NMSE", "rollout"
    found = {
        "persistence": (float(change.mean()), still, float(change.mean()), own),
        "grid, exact": (float(exact.mean()), float(exact.sqrt().mean()), 0.0, 0.0),
    }
    return [{"model": model, **dict(zip(names, values, strict=True))} for model, values in found.items()]


def operators_table(data: Any, mover: TriangleMover, arguments: argparse.Namespace) -> None:
    wake = wake_mesh()
    vertices = mesh_places(data, wake)
    grid = grid_places(data, wake, vertices)
    rows = [
        one(model, seed, mover, grid if model in ("unet", "fno") else vertices, vertices, wake, arguments.minutes)
        for seed in arguments.seeds
        for model in arguments.models
    ]
    report(
        "moving_triangles",
        "Flow past a cylinder on a triangulation: does a mesh that moves make an operator better?",
        averaged(rows) + without_learning(grid, vertices),
        [
            f"{arguments.minutes:g} min of CPU time of training each, one thread; data: {CASES - len(TEST)} cases to "
            f"train and {len(TEST)} to test, Reynolds numbers of {REYNOLDS[0]:g} to {REYNOLDS[1]:g} on the mean speed, "
            f"{FRAMES} frames of {INTERVAL:g} D / U",
            f"triangulation of {wake.n_nodes} vertices; grid of {GRID[0]} x {GRID[1]} cells",
            f"mmpde: moved by a `TriangleMover` of {arguments.steps} steps of training, which are not counted; the "
            "meshes of the training states are",
            f"velocity, errors at the vertices; rollouts of {ROLLOUT} frames; lowest, highest: over the seeds; own "
            "nodes: of grids, at the cells in the fluid",
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", default=["movers", "operators"], choices=["movers", "operators"])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=2.0, help="of training, CPU time")
    parser.add_argument("--steps", type=int, default=300, help="of training of each learned mover")
    parser.add_argument("--fields", type=int, default=1000, help="unseen fields that movers are judged on")
    parser.add_argument("--data", type=Path, default=Path("data").absolute())
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = arguments.data / "moving_triangles.npz"
    if not path.exists():
        make_data(path)
    with np.load(path) as file:
        data = dict(file)
    mover = wake_mover(split(data["nodes"])[0].flatten(0, 1), wake_mesh(), arguments.steps)
    if "movers" in arguments.tables:
        movers_table(data, mover, arguments)
    if "operators" in arguments.tables:
        operators_table(data, mover, arguments)


if __name__ == "__main__":
    main()
