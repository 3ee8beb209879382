"""Experts on several processes: values, gradients and errors are those of one process."""

import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from gloo_ranks import Ranks

from sciml.collectives import (
    broadcast_bases,
    gather,
    on_all_ranks,
    own_share,
    share_sizes,
    shared,
    spread,
    summed,
)
from sciml.constraints.least_squares import PointwiseProblem, least_squares, least_squares_of_shares
from sciml.constraints.mixture_of_experts import MixtureOfExpertsConstraint
from sciml.errors import ConfigError, DataError, SolverError
from sciml.problems import get_problem
from sciml.surrogate import load
from sciml.training.parallel import World, check_mesh, world

EXACT = 1e-10


@pytest.fixture(scope="module")
def ranks():
    pool = Ranks()
    yield pool
    pool.close()


def agree(results, expected):
    """Every rank has the tensors of one process, beside the largest entry of each."""
    for result in results:
        if isinstance(result, Exception):
            raise result
        for found, wanted in zip(result, expected, strict=True):
            assert found.shape == wanted.shape and found.dtype == wanted.dtype
            error = float((found - wanted).abs().max() / wanted.abs().max())
            assert error < EXACT, error


def group_of(here, size):
    return None if here is None else dist.group.WORLD if size == 4 else here.mesh.get_group("expert")


# ---------------------------------------------------------------------------------------------------------- collectives


def tiles(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, count, 4, generator=generator, dtype=torch.float64)


def through_shares(here, size, count):
    """A function of two stages whose first is done tile by tile, with its first and second derivatives."""
    group = group_of(here, size)
    x = tiles(count).requires_grad_()
    scale = torch.linspace(0.5, 2, 4, dtype=torch.float64).requires_grad_()

    def loss(x, scale):
        own = spread(x, 1, group)
        local = torch.sin(own * shared(scale, group)) * own.sum(-1, keepdim=True)
        total = summed((local**3).sum((1, 2)), group)
        every = gather(local, 1, count, group)
        return (every.cos() * x).sum() + (total**2).sum() + (every.diff(dim=1) ** 2).sum()

    value = loss(x, scale)
    first = torch.autograd.grad(value, (x, scale), create_graph=True)
    second = torch.autograd.grad(sum((g**2).sum() for g in first), (x, scale))
    return tuple(t.detach() for t in (value, *first, *second))


@pytest.mark.parametrize(("size", "count"), [(2, 4), (2, 5), (4, 8), (4, 6)])
def test_collectives_and_their_derivatives_are_those_of_one_process(ranks, size, count):
    agree(ranks(through_shares, size, count), through_shares(None, 1, count))


def with_sent_bases(here, size):
    """Bases that one rank has computed from ``theta``; the gradient of ``theta`` on that rank."""
    group = group_of(here, size)
    source = 0 if here is None else size - 1
    theta = tiles(4, 1).requires_grad_()
    is_source = here is None or dist.get_rank(group) == source
    bases = broadcast_bases(torch.sinh(theta) if is_source else None, source, group)
    local = spread(bases, 1, group).exp()
    value = (gather(local, 1, 4, group) * bases).sum()
    value.backward()
    return (value.detach(), theta.grad) if is_source else None


@pytest.mark.parametrize("size", [2, 4])
def test_bases_sent_from_one_rank(ranks, size):
    found = [result for result in ranks(with_sent_bases, size) if result is not None]
    assert len(found) == 4 // size
    agree(found, with_sent_bases(None, 1))


def test_shares_are_contiguous_and_even():
    assert share_sizes(5, None) == [5] and own_share(5, None) == slice(0, 5)


def too_few(here):
    own_share(3, dist.group.WORLD)


def test_fewer_tiles_than_ranks_names_both_numbers(ranks):
    for error in ranks(too_few):
        assert isinstance(error, ConfigError) and "4 ranks" in str(error) and "only 3" in str(error)


# --------------------------------------------------------------------------------------------------------------- errors


def fail_on(here, failing, kind):
    def solve():
        if here.rank == failing:
            raise kind("the normal matrix of tile 7 is singular")
        return here.rank

    return on_all_ranks(solve, dist.group.WORLD)


def test_one_ranks_failure_ends_all_with_its_reason(ranks):
    for error in ranks(fail_on, 2, SolverError):
        assert isinstance(error, SolverError), error
        assert "rank 2: the normal matrix of tile 7 is singular" in str(error)
    found = ranks(fail_on, 1, IndexError)
    assert isinstance(found[1], IndexError), "a defect keeps its own kind, and trace, where it happened"
    assert all("rank 1: IndexError" in str(found[rank]) for rank in (0, 2, 3))
    assert ranks(fail_on, -1, DataError) == [0, 1, 2, 3], "the group is usable after a failure"


@pytest.mark.parametrize(("size", "expert"), [(6, 4), (2, 4), (1, 4)])
def test_world_size_that_the_mesh_does_not_fit(monkeypatch, size, expert):
    monkeypatch.setenv("WORLD_SIZE", str(size))
    with pytest.raises(ConfigError, match=rf"parallel.expert is {expert}.*{size} process"), world("cpu", expert):
        pass
    check_mesh(8, 4)


def place(here):
    return here.experts, here.data_size, here.data_rank


def test_ranks_of_an_expert_group_share_the_samples(ranks):
    assert ranks(place) == [(2, 2, 0), (2, 2, 0), (2, 2, 1), (2, 2, 1)]


# ------------------------------------------------------------------------------------------------------------ the solve


def bvp(tiles, cases=2, points=24, functions=6):
    """-u'' + 10 u^3 = f on (0, 1) in strips: for each tile the terms u'' and u of tanh functions, f as coefficient, and
    the rows of end values and of continuity of value and slope; from trainable centres and a trainable amplitude."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.rand(cases, tiles, functions, generator=generator, dtype=torch.float64).requires_grad_()
    amplitude = torch.tensor([1.0, 1.5][:cases], dtype=torch.float64).requires_grad_()
    return centres, amplitude, points


def strips(centres, points, tiles, lo, hi):
    """u'' and u of the tiles ``lo`` to ``hi`` at their points, and x, ``(P, K_own, M, N)``."""
    k = torch.arange(lo, hi, dtype=torch.float64)[:, None]
    x = (k + (torch.arange(points, dtype=torch.float64) + 0.5) / points) / tiles
    return (*features(centres[:, lo:hi], x[None, :, :, None], k[None, :, :, None], tiles)[::2], x)


def features(centres, x, k, tiles):
    """u'', u', u of tanh(3 (s - c)) with s = K x - k the coordinate in the tile."""
    s = tiles * x - k
    t = torch.tanh(3 * (s - centres[:, :, None, :]))
    slope = 3 * tiles * (1 - t**2)
    return -6 * tiles * t * slope / tiles**2, slope / tiles, t + 0.5 * s


def coupling_rows(centres, tiles):
    """End values 0, continuity of value and slope: C ``(P, L, K N)``, d ``(P, L)``."""
    p, k, n = centres.shape
    index = torch.arange(k, dtype=torch.float64)[None, :, None, None]
    ends = torch.stack([torch.arange(k), torch.arange(k) + 1], 1).double()[None, :, :, None] / tiles
    _, slope, value = features(centres, ends, index, tiles)
    rows = []
    for tile in range(k + 1):
        for quantity in (value, slope) if 0 < tile < k else (value,):
            row = centres.new_zeros(p, k, n)
            if tile < k:
                row = row + torch.nn.functional.pad(quantity[:, tile : tile + 1, 0], (0, 0, tile, k - tile - 1))
            if tile > 0:
                row = row - torch.nn.functional.pad(quantity[:, tile - 1 : tile, 1], (0, 0, tile - 1, k - tile))
            rows.append(row.flatten(1))
    matrix = torch.stack(rows, 1)
    return matrix, torch.zeros_like(matrix[:, :, 0])


def equation(values, force):
    return (values[0] - 10 * values[1] ** 3 + force) / 10


def solved(here, size, tiles, kind):
    """Weights, a loss of them with its first and second derivatives, and how the solve went."""
    group = group_of(here, size)
    centres, amplitude, points = bvp(tiles)
    own = own_share(tiles, group)
    second, value, x = strips(shared(centres, group), points, tiles, own.start, own.stop)
    force = shared(amplitude, group)[:, None, None] * 10 * torch.sin(3 * x)[None]
    ranks = {"group": group, "tiles": tiles}
    if kind == "independent":
        terms = tuple(term.flatten(0, 1)[:, None] for term in (second, value))
        problem = PointwiseProblem(terms, equation, (force.flatten(0, 1)[:, None],), ridge=1e-4)
        start = torch.zeros(len(terms[0]), 6, dtype=torch.float64)
        found = least_squares_of_shares(problem, start, **ranks, on_failure="mask")
    elif kind == "common":
        problem = PointwiseProblem((second, value), equation, (force,), ridge=1e-4, common=True, **ranks)
        found = least_squares(problem, torch.zeros(2, 6, dtype=torch.float64), on_failure="mask")
    else:
        matrix, target = coupling_rows(centres, tiles)
        if kind == "shuffled":  # tiles that are coupled are far apart in their numbering
            matrix = matrix.unflatten(2, (tiles, -1))[:, :, [*range(0, tiles, 2), *range(1, tiles, 2)]].flatten(2)
        problem = PointwiseProblem((second, value), equation, (force,), (matrix, target), 1e-4, **ranks)
        assert problem.coupling.natural == (kind != "shuffled")
        found = least_squares(problem, torch.zeros(2, tiles * 6, dtype=torch.float64), on_failure="mask")
    weights = found.weights.reshape(2, -1, 6)
    loss = (weights.sin() * torch.linspace(-1, 1, 6, dtype=torch.float64)).sum()
    loss = loss + (weights.mean(2, keepdim=True) * centres).sum()
    first = torch.autograd.grad(loss, (centres, amplitude), create_graph=True)
    again = torch.autograd.grad(sum(g.cos().sum() for g in first), (centres, amplitude))
    report = found.report
    assert not report.n_zero_gradient and not report.n_failed, report.trouble()
    return (*(t.detach() for t in (weights, loss, *first, *again)), report.status + 1, report.iterations)


@pytest.mark.parametrize(("size", "tiles"), [(2, 4), (2, 5), (4, 8)])
@pytest.mark.parametrize("kind", ["independent", "coupled", "common"])
def test_the_solve_and_its_gradients_are_those_of_one_process(ranks, size, tiles, kind):
    agree(ranks(solved, size, tiles, kind), solved(None, 1, tiles, kind))


def test_tiles_whose_neighbours_are_far_apart_in_number(ranks):
    agree(ranks(solved, 2, 8, "shuffled"), solved(None, 1, 8, "shuffled"))


def test_one_set_of_weights_for_all_tiles_is_one_tile_of_all_points():
    centres, amplitude, points = bvp(4)
    second, value, x = strips(centres, points, 4, 0, 4)
    force = amplitude[:, None, None] * 10 * torch.sin(3 * x)[None]
    start = torch.zeros(2, 6, dtype=torch.float64)
    common = least_squares(PointwiseProblem((second, value), equation, (force,), ridge=1e-4, common=True), start)
    flat = tuple(term.flatten(1, 2)[:, None] for term in (second, value))
    whole = least_squares(PointwiseProblem(flat, equation, (force.flatten(1)[:, None],), ridge=1e-4), start)
    torch.testing.assert_close(common.weights, whole.weights, rtol=1e-8, atol=1e-10)
    assert common.report.status.shape == (2,)


def failing(here, kind, trouble):
    """A solve of five tiles in which rank 1 meets trouble after some evaluations of its rows."""
    group = dist.group.WORLD
    centres, _, points = bvp(5)
    own = own_share(5, group)
    second, value, x = strips(centres.detach(), points, 5, own.start, own.stop)
    calls = 0

    def function(values, force):
        nonlocal calls
        calls += 1
        if here.rank == 1 and calls > 4:
            if trouble == "raises":
                raise SolverError("the diffusivity is negative at x = 0.3")
            return values[0] * torch.nan
        return equation(values, force)

    force = 10 * torch.sin(3 * x)[None].expand(2, -1, -1)
    if kind == "independent":
        problem = PointwiseProblem(
            [t.flatten(0, 1)[:, None] for t in (second, value)], function, (force.reshape(-1, 1, points),)
        )
        start = torch.zeros(len(second) * second.shape[1], 6, dtype=torch.float64)
        least_squares_of_shares(problem, start, tiles=5, group=group, on_failure="raise")
    else:
        problem = PointwiseProblem(
            (second, value), function, (force,), coupling_rows(centres.detach(), 5), group=group, tiles=5
        )
        least_squares(problem, torch.zeros(2, 30, dtype=torch.float64), on_failure="raise")


@pytest.mark.parametrize("kind", ["independent", "coupled"])
@pytest.mark.parametrize(("trouble", "reason"), [("raises", "rank 1: the diffusivity is negative"), ("nan", "")])
def test_one_ranks_solver_failure_ends_all_with_the_reason(ranks, kind, trouble, reason):
    errors = ranks(failing, kind, trouble)
    for error in errors:
        assert isinstance(error, SolverError) and reason in str(error), error
    if trouble == "nan":  # the report is of all tiles, on every rank
        assert len({str(error) for error in errors}) == 1
        assert "stalled" in str(errors[0]) or "not finite" in str(errors[0])


# ----------------------------------------------------------------------------------------- the layer, a model, training


class Model(torch.nn.Module):
    """Basis fields of a small network, and the experts' field for the Burgers equation."""

    def __init__(self, tiles, tiling):
        super().__init__()
        torch.manual_seed(0)
        self.network = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(8, 4, 3, padding=1)
        ).double()
        # Weights are compared to 1e-10: the ridge makes them as certain.
        self.experts = MixtureOfExpertsConstraint(tiles, tiling=tiling, overlap=1, ridge=1e-4, on_failure="mask")

    def forward(self, equation):
        unit = equation.offset / equation.scale[:, None, None]
        axes = [torch.linspace(0, 1, n, dtype=torch.float64) for n in equation.shape]
        coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(unit), -1, -1, -1)
        basis = self.network(torch.cat([unit[:, None], 3 * coordinates], 1))
        field = self.experts(basis, equation)
        return (field / equation.scale[:, None, None]).square().mean()


def burgers(cases):
    """The equation for some of four cases."""
    problem = get_problem("burgers", 1)
    parameters = problem.sample(4, "fno", 0).parameters
    parameters = {name: values[cases] for name, values in parameters.items()}
    return problem.equation(parameters, 20, torch.linspace(0, 0.1, 6, dtype=torch.float64))


def trained(here, tiles, tiling):
    """Gradients after one backward pass on four cases, and what the layer reports, on a mesh of 2 x 2 or alone."""
    here = here or World(0, 1, torch.device("cpu"))
    model = Model(tiles, tiling)
    step = here.wrap(model)
    with here.spreading_experts(model):
        loss = step(burgers(slice(here.data_rank, None, here.data_size)))
        loss.backward()
    report = model.experts.report
    assert not report.least_squares.n_failed and not report.least_squares.n_zero_gradient
    assert model.experts.expert_group is None
    gradients = tuple(p.grad for p in model.parameters())
    return gradients, (here.data_rank, here.data_size), (report.least_squares.iterations, report.sampled)


@pytest.mark.parametrize(
    ("tiling", "tiles"), [("independent", (1, 5)), ("overlap", (1, 3)), ("coupled", (1, 4)), ("coupled", (2, 2))]
)
def test_gradients_of_a_model_on_a_mesh_are_those_of_one_process(ranks, tiling, tiles):
    alone, _, (iterations, sampled) = trained(None, tiles, tiling)
    results = ranks(trained, tiles, tiling)
    for result in results:
        if isinstance(result, Exception):
            raise result
    agree([gradients for gradients, *_ in results], alone)
    for _, (part, parts), report in results:
        experts = len(iterations) // 4  # independent ones are solved, and reported, one by one
        own = iterations.reshape(4, experts, -1)[part::parts].reshape(-1, *iterations.shape[1:])
        agree([report], (own, sampled[part::parts]))


def without_experts(here):
    with here.spreading_experts(torch.nn.Linear(1, 1)):
        pass


def test_a_model_without_experts_is_refused(ranks):
    for error in ranks(without_experts):
        assert isinstance(error, ConfigError) and "parallel.expert is 2" in str(error)


RUN = """
import sys, torch
from sciml.training import train
from sciml.training.config import resolve_config
torch.set_num_threads(1)
overrides = ["task.kind=trajectory", "budget.steps=3", "experts.bases=4", "experts.tiles=[2,2]", "data.resolution=16",
    "data.cases={train: 8, validation: 1, test: 1}", "operator.n_modes=[3,3]", "operator.hidden_channels=4",
    "device=cpu"]
train(resolve_config("darcy", "fno", overrides=[*overrides, f"data.directory={sys.argv[1]}/data", *sys.argv[2:]]),
    f"{sys.argv[1]}/{len(sys.argv)}")
"""


@pytest.mark.slow
def test_training_on_two_ranks_of_experts_is_that_of_one_process(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(RUN)

    def run(processes, *overrides):
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), str(script)]
        return subprocess.run(
            [sys.executable, *launch, str(tmp_path), *overrides], capture_output=True, text=True, timeout=180
        )

    for processes, overrides in ((1, ()), (2, ("parallel.expert=2",))):
        done = run(processes, *overrides)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load(tmp_path / name).state_dict() for name in ("2", "3"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-6)
    failed = run(2, "parallel.expert=2", "experts.tiles=[1,1]")
    assert failed.returncode != 0 and "2 ranks share the experts" in failed.stderr and "only 1" in failed.stderr
