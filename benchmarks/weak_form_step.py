"""Training step on a weak residual: one trunk for the batch with derivatives carried forward, or autograd per sample.

    python benchmarks/weak_form_step.py [--short]

A step takes u and its gradient at 4500 points (100 supports of 45), tests them (r = mean over a support of
a grad u . c - u, c fixed), and differentiates the sum of r^2 by the weights. MultiONet of 6 x 100, 5 layers averaged,
128 features, two coordinates, float32. Three forms of the same network with the same weights:

- shared trunk: ``trunk(points, gradient=True)`` once, ``combine_with_gradient``;
- per sample: our layers, the points repeated for every sample, ``autograd.grad`` with ``create_graph``;
- per sample, plain: the same with torch's own layers and the authors' formulas, as the published code does it.

Gate: the shared trunk is at least 4 times faster than the faster of the others at batch 10, and the factor grows with
the batch.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable
from functools import partial

import torch
from harness import Row, report
from torch import Tensor
from torch.nn import functional as F

from sciml.operators.multionet import BranchTrunk

GATE, GATE_BATCH = 4.0, 10
SUPPORTS, PER_SUPPORT, FEATURES, DIM = 100, 45, 128, 2
Form = Callable[[BranchTrunk, Tensor, Tensor], tuple[Tensor, Tensor]]


def shared_trunk(net: BranchTrunk, features: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``(B, Q)`` and gradient ``(B, Q, dim)``."""
    values, gradient = net.combine_with_gradient(net.trunk(points, gradient=True), features)
    return values[:, 0], gradient[:, 0]


def per_sample(net: BranchTrunk, features: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    repeated = points.repeat(len(features), 1, 1).requires_grad_()
    values = net(features, repeated)[:, 0]
    return values, torch.autograd.grad(values.sum(), repeated, create_graph=True)[0]


def per_sample_plain(net: BranchTrunk, features: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Written out in plain torch: nothing of ours but the weights."""
    repeated = points.repeat(len(features), 1, 1).requires_grad_()
    x, b, total = repeated, features, torch.zeros(())
    skipped = len(net.trunk_layers) - net.averaged_layers
    for i, (trunk, branch) in enumerate(zip(net.trunk_layers, net.branch_layers, strict=True)):
        x = F.linear(x, trunk.weight, trunk.bias)
        x = torch.tanh(torch.sin(math.pi * (x + 1))) + x
        b = F.linear(b, branch.weight, branch.bias)
        b = torch.tanh(torch.sin(math.pi * (b + 1))) + b
        if i >= skipped:
            total = total + torch.einsum("bqk,bk->bq", x, b * net.weight[i - skipped, 0])
    values = total / (net.averaged_layers * b.shape[1] ** 0.5) + net.bias
    return values, torch.autograd.grad(values.sum(), repeated, create_graph=True)[0]


FORMS: dict[str, Form] = {
    "shared trunk, forward mode": shared_trunk,
    "per sample, autograd": per_sample,
    "per sample, autograd, plain torch": per_sample_plain,
}


def step(form: Form, net: BranchTrunk, features: Tensor, points: Tensor, coefficient: Tensor) -> Tensor:
    """The loss, whose gradients are left in the weights."""
    net.zero_grad()
    values, gradient = form(net, features, points)
    flux = coefficient * gradient
    integrand = (flux * torch.tensor([1.0, -0.5])).sum(-1) - values
    loss = integrand.unflatten(1, (SUPPORTS, PER_SUPPORT)).mean(-1).square().sum()
    loss.backward()
    return loss.detach()


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Least processor seconds of a call (the machine may be busy), after one that is not counted."""
    run()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return min(taken)


def allocated(run: Callable[[], object]) -> float:
    """Most bytes that torch's allocator has lent at one time during ``run``, beyond those before it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    changes = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = [event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns())]
    return float(max(itertools.accumulate(held)))


def apart(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


def rows(batches: tuple[int, ...], repeats: int) -> list[Row]:
    table = []
    for batch in batches:
        torch.manual_seed(0)
        net = BranchTrunk(FEATURES, DIM, 1)
        features = 2 * torch.rand(batch, FEATURES) - 1
        points = torch.rand(SUPPORTS * PER_SUPPORT, DIM)
        coefficient = 1 + torch.rand(batch, len(points), 1)
        reference: dict[str, Tensor] = {}
        shared = 0.0
        for name, form in FORMS.items():
            run = partial(step, form, net, features, points, coefficient)
            taken = seconds(run, repeats if form is shared_trunk else max(2, repeats // 5))
            memory = allocated(run)
            values, gradient = (part.detach() for part in form(net, features, points))
            weights = torch.cat([parameter.grad.flatten() for parameter in net.parameters()])
            found = {"u": values, "grad u": gradient, "weights": weights}
            reference = reference or found
            shared = shared or taken
            table.append(
                {
                    "batch": batch,
                    "form": name,
                    "ms a step": 1e3 * taken,
                    "times the shared trunk": taken / shared,
                    "peak MB": memory / 1e6,
                    **{f"{key} apart": apart(reference[key], found[key]) for key in found},
                }
            )
    return table


def factors(table: list[Row]) -> dict[int, float]:
    """Batch -> how much faster the shared trunk is than the faster of the others."""
    batches = dict.fromkeys(row["batch"] for row in table)
    return {
        batch: min(
            row["times the shared trunk"] for row in table if row["batch"] == batch and row["form"] != next(iter(FORMS))
        )
        for batch in batches
    }


def main() -> int:
    """Print the table; exit 1 when the gate is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="batches of 5 and 10 only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = rows((5, 10) if arguments.short else (5, 10, 25, 50), 10)
    ratios = factors(table)
    grows = list(ratios.values()) == sorted(ratios.values())
    met = ratios[GATE_BATCH] >= GATE and grows
    report(
        "weak_form_step",
        "How much faster is a training step on a weak form with one trunk for the batch?",
        table,
        [
            f"Gate: at least {GATE:g} times the faster per-sample form at batch {GATE_BATCH}, growing with the batch; "
            f"measured {', '.join(f'{ratio:.1f} at {batch}' for batch, ratio in ratios.items())} "
            f"({'met' if met else 'MISSED'}).",
            f"{SUPPORTS * PER_SUPPORT} points, 6 layers of 100, 5 of them averaged; processor time, least of several "
            "steps. Peak: what torch's allocator has lent beyond the weights and inputs.",
            "Apart: largest difference from the shared trunk's over the largest value, of the outputs, their "
            "derivatives, and the gradients of the weights.",
        ],
    )
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
