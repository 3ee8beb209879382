"""What ``sciml invert`` says of a posterior: a record for ``inversion.json`` and a table for people."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sciml.cli.console import console, make_table, print_pairs, say

if TYPE_CHECKING:
    from torch import Tensor

    from sciml.problems.weak import WeakProblem
    from sciml.surrogate.latent import Inversion, Posterior


def describe(found: "Inversion", posterior: "Posterior", truth: "Tensor | None", warnings: list[str]) -> dict[str, Any]:
    """Everything that the table says, by name; ``truth (1, P)``."""
    from sciml.surrogate.latent import channel_units

    problem, observed = found.surrogate.problem, found.observations
    chains, draws = found.draws.shape[:2]
    unit_of = channel_units(problem)
    quantities = {problem.input.name: _range(posterior.input, problem.input.unit)}
    for number, (name, unit) in enumerate(unit_of.items()):
        quantities[name] = _range(posterior.solution, unit, number)
    record = {
        "problem": problem.name,
        "subset": problem.subset,
        "sensors": len(observed.points),
        "observed": list(observed.channels),
        "method": found.method,
        "chains": chains,
        "draws": draws,
        "noise": {
            name: {"unit": unit_of[name], "given": found.noise, **_spread(posterior.noise[:, number])}
            for number, name in enumerate(observed.channels)
        },
        "misfit": found.misfit,
        "relative_residual": found.deviation,
        "rhat": posterior.rhat,
        "effective_draws": posterior.effective,
        "quantities": quantities,
        "warnings": warnings,
    }
    return record if truth is None else {**record, "truth": _against(posterior, truth[0], problem)}


def print_inversion(record: Mapping[str, Any]) -> None:
    """The record on stdout, its warnings on stderr."""
    way = {
        "hmc": "Hamiltonian Monte Carlo",
        "pcn": "preconditioned Crank-Nicolson chains",
        "field": "preconditioned Crank-Nicolson chains in the prior of the input function",
    }
    chains = f"{record['chains']} chains of {record['draws']} draws"
    made = {
        "vi": f"a Gaussian by variational inference, {record['draws']} draws",
        "map": "the most probable alone, without uncertainty",
    }.get(record["method"], f"{way.get(record['method'])}, {chains}")
    pairs = {
        "problem": f"{record['problem']}, {record['subset']}",
        "observations": f"{', '.join(record['observed'])} at {record['sensors']} sensors",
        "method": made,
        "residual": f"{100 * record['relative_residual']:.3g} % of the observations' root mean square",
    }
    if record["misfit"] is not None:
        pairs["misfit"] = (
            f"{record['misfit']:.3g} times the variance of noise and surrogate (about 1 or less: explained)"
        )
    for name, noise in record["noise"].items():
        label = "noise" if len(record["noise"]) == 1 else f"noise of {name}"
        if noise["given"] is not None:
            pairs[label] = f"{noise['given']:.3g} {noise['unit']}, given"
        else:
            pairs[label] = f"{noise['median']:.3g} {noise['unit']}, found ({noise['low']:.3g} to {noise['high']:.3g})"
    if record["rhat"] is not None:
        pairs["R-hat"] = f"{record['rhat']:.3f} at worst (1: the chains agree)"
    if record["effective_draws"] is not None:
        total = record["chains"] * record["draws"]
        pairs["draws"] = f"{total}, worth {record['effective_draws']:.0f} independent ones at worst"
    if (truth := record.get("truth")) is not None:
        pairs["against truth"] = (
            f"relative L2 of the mean {truth['relative_l2']:.3g}, correlation {truth['correlation']:.3g}; "
            + (
                f"90 % band holds {100 * truth['coverage']:.0f} % of the points"
                if "coverage" in truth
                else f"{100 * truth['wrong']:.3g} % of the points nearer to the wrong value"
            )
        )
    print_pairs(pairs)
    print()
    rows = [
        [name, each["unit"], *(f"{each[key]:.4g}" for key in ("mean_low", "mean_high", "deviation", "low", "high"))]
        for name, each in record["quantities"].items()
    ]
    headings = (
        "posterior of",
        "unit",
        "mean\nfrom",
        "mean\nto",
        "typical\ndeviation",
        "90 % band\nfrom",
        "90 % band\nto",
    )
    console().print(make_table(headings, rows, numbers_from=2))
    for sentence in record["warnings"]:
        say(f"warning: {sentence}")


def _range(summary: Any, unit: str, channel: int | None = None) -> dict[str, Any]:
    """Least and greatest mean, root mean square deviation, and ends of the band over all points."""
    mean, deviation, low, high = (
        each if channel is None else each[channel]
        for each in (summary.mean, summary.deviation, summary.low, summary.high)
    )
    return {
        "unit": unit,
        "mean_low": float(mean.min()),
        "mean_high": float(mean.max()),
        "deviation": float(deviation.square().mean().sqrt()),
        "low": float(low.min()),
        "high": float(high.max()),
    }


def _spread(draws: "Tensor") -> dict[str, float]:
    ordered = draws.sort().values
    last = len(ordered) - 1
    return {
        name: float(ordered[round(share * last)]) for name, share in (("median", 0.5), ("low", 0.05), ("high", 0.95))
    }


def _against(posterior: "Posterior", truth: "Tensor", problem: "WeakProblem") -> dict[str, float]:
    """Relative L2 error and correlation of the mean, and the part of the points that the band holds; of two values,
    whose band is one of probabilities, the part where the mean is nearer to the wrong one.
    """
    mean, low, high = (each.double() for each in (posterior.input.mean, posterior.input.low, posterior.input.high))
    shifted = (mean - mean.mean(), truth - truth.mean())
    norms = float(shifted[0].norm() * shifted[1].norm())
    if problem.link == "two_values":
        middle = sum(problem.levels) / 2
        last = {"wrong": float(((mean > middle) != (truth > middle)).double().mean())}
    else:
        last = {"coverage": float(((truth >= low) & (truth <= high)).double().mean())}
    return {
        "relative_l2": float((mean - truth).norm() / truth.norm()),
        "correlation": float((shifted[0] * shifted[1]).sum()) / norms if norms else 0.0,
        **last,
    }
