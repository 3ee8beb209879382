"""Given totals of fields, imposed on the output of any operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from sciml.constraints.base import Constraint, Context, replace_channels
from sciml.constraints.conservation.affine_projection import check_finite
from sciml.constraints.conservation.ensemble import mixture_moments
from sciml.constraints.conservation.gaussian_update import WEIGHTINGS, gaussian_update
from sciml.constraints.conservation.quadrature import cell_volumes
from sciml.errors import ConfigError, DataError, did_you_mean

Total: TypeAlias = str | float | Tensor | Callable[[Mapping[str, Tensor]], Tensor]
Moments: TypeAlias = tuple[Tensor, Tensor | None]


class LinearConservation(Constraint):
    """Makes the total ``sum over cells of volume x value`` of each component of a field what it must be.

    The discrete operator is the finite-volume sum over the fluid cells (``cell_volumes``), exact for cell averages.

    Args:
        totals: field -> its total, in the field's unit times the volume: "initial" (that of ``context.before``), a
            number, ``(B,)`` or ``(B, components)``, the name of a parameter of the problem, or a function of
            ``context.parameters`` that returns such a tensor. A name or several names of fields: all "initial".
        weighting: "uniform" adds the same number to all fluid cells, the nearest field in the L2 norm (volume
            weighted; with this and no other option the layer is ``affine``). "variance" changes a cell in proportion
            to volume x predicted variance, which ``forward`` must then be given: right where the predicted variance
            is, and measured to hurt where a bias lies elsewhere (see ``gaussian_update``).
        nonnegative: also values >= 0 (in fluid cells): both hold to round-off, and the result is the nearest such
            field in the norm of the weighting. A negative total is refused.
        noise_ratio: 0 is exact; r removes 1 / (1 + r) of the mismatch.

    It knows nothing of where a mismatch came from: it mends the total, not the field.
    """

    name = "conservation"

    def __init__(
        self,
        totals: Mapping[str, Total] | Sequence[str] | str,
        *,
        weighting: str = "uniform",
        nonnegative: bool = False,
        noise_ratio: float = 0.0,
    ) -> None:
        if isinstance(totals, str):
            totals = (totals,)
        if not isinstance(totals, Mapping):
            totals = dict.fromkeys(totals, "initial")
        if not totals:
            raise ConfigError('LinearConservation needs fields to conserve, for example {"concentration": "initial"}.')
        if weighting not in WEIGHTINGS:
            raise ConfigError(f"Unknown weighting {weighting!r}{did_you_mean(str(weighting), WEIGHTINGS)}")
        if not noise_ratio >= 0:
            raise ConfigError(f"noise_ratio is {noise_ratio}; it is a variance over a variance, so at least 0.")
        super().__init__(totals=dict(totals), weighting=weighting, nonnegative=nonnegative, noise_ratio=noise_ratio)
        self.totals, self.weighting = dict(totals), weighting
        self.nonnegative, self.noise_ratio = nonnegative, noise_ratio
        self.affine = weighting == "uniform" and not nonnegative and noise_ratio == 0

    def applies(self, channels: Mapping[str, slice]) -> bool:
        return any(field in channels for field in self.totals)

    def forward(self, u: Tensor, context: Context, *, variance: Tensor | None = None) -> Tensor:
        """``u (B, C, *grid)`` with the totals; ``variance``, of the same shape, for the weighting "variance"."""
        return self.posterior(u, context, variance)[0]

    def posterior(self, u: Tensor, context: Context, variance: Tensor | None = None) -> Moments:
        """Field and variance ``(B, C, *grid)`` after the update; the variance is None if none was given.

        With the weighting "uniform" the given variance is kept.
        """
        self._check(u, context, variance)
        for field in self.totals:
            channels = context.slice_of(field)
            before = None if variance is None else variance[:, channels]
            values, after = self._update(u[:, channels], self.target(field, context, u), context, before)
            u = replace_channels(u, channels, values)
            if variance is not None and after is not None:
                variance = replace_channels(variance, channels, after)
        return u, variance

    def ensemble(self, members: Tensor, context: Context, variances: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and variance ``(B, C, *grid)`` of an ensemble ``(K, B, C, *grid)`` after updating each member.

        Each member has its own variance, or all that of the ensemble where none are given; moments by the law of
        total variance. Every member has the totals, so the mean has them.
        """
        if members.ndim != context.grid.dim + 3 or members.shape[0] < 1:
            raise ConfigError(f"The ensemble has the shape {tuple(members.shape)}; expected (K, B, C, *grid).")
        if variances is not None and variances.shape != members.shape:
            raise ConfigError(
                f"The variances have the shape {tuple(variances.shape)}; expected that of the members, "
                f"{tuple(members.shape)}."
            )
        shared = mixture_moments(members)[1] if variances is None and self.weighting == "variance" else None
        updated = [
            self.posterior(member, context, shared if variances is None else variances[k])
            for k, member in enumerate(members)
        ]
        own = None if variances is None else torch.stack([v for _, v in updated if v is not None])
        return mixture_moments(torch.stack([field for field, _ in updated]), own)

    def residual(self, u: Tensor, context: Context) -> Tensor:
        """|total - target| over the larger of |target| and the sum of absolute values, the worst component."""
        self._check(u, context, None, finite=False)
        volumes = cell_volumes(context.grid, context.fluid).to(u.device).unsqueeze(1).flatten(2)
        worst = torch.zeros(len(u), dtype=torch.float64, device=u.device)
        for field in self.totals:
            values = u[:, context.slice_of(field)].double().flatten(2)
            target = self.target(field, context, u)
            scale = torch.maximum((volumes * values.abs()).sum(-1), target.abs())
            gap = ((volumes * values).sum(-1) - target).abs()
            worst = torch.maximum(worst, torch.where(scale == 0, 0.0, gap / scale).amax(1))
        return worst

    def target(self, field: str, context: Context, u: Tensor) -> Tensor:
        """The total that the components of a field must have, ``(B, components)`` float64."""
        wanted, channels = self.totals[field], context.slice_of(field)
        components = channels.stop - channels.start
        if isinstance(wanted, str) and wanted == "initial":
            if context.before is None:
                raise ConfigError(
                    f"The total of {field!r} is to stay that of the field one step earlier, but the context has none "
                    "(Context.before). Give the total as a number, tensor or function of the parameters."
                )
            volumes = cell_volumes(context.grid, context.fluid).to(u.device).unsqueeze(1)
            return (volumes * context.before[:, channels].double()).flatten(2).sum(-1)
        if isinstance(wanted, str):
            if wanted not in context.parameters:
                known = did_you_mean(wanted, ["initial", *context.parameters])
                raise ConfigError(f"The total of {field!r} is {wanted!r}, which is not a parameter{known}")
            wanted = context.parameters[wanted]
        elif callable(wanted):
            wanted = wanted(context.parameters)
        value = torch.as_tensor(wanted, dtype=torch.float64, device=u.device)
        if value.shape not in ((), (len(u),), (len(u), 1), (len(u), components)):
            raise ConfigError(
                f"The total of {field!r} has the shape {tuple(value.shape)}; expected a number, ({len(u)},) or "
                f"({len(u)}, {components})."
            )
        check_finite(f"total of {field!r}", value)
        return (value.unsqueeze(1) if value.ndim == 1 else value).expand(len(u), components)

    def _update(self, values: Tensor, target: Tensor, context: Context, variance: Tensor | None) -> Moments:
        """One field ``(B, C, *grid)`` and its variance after the update."""
        volumes = cell_volumes(context.grid, context.fluid).to(values.device).unsqueeze(1).flatten(2)
        fluid, flat = volumes > 0, values.flatten(2)
        if self.weighting == "uniform" and not self.nonnegative:
            gap = target.unsqueeze(-1) - (volumes * flat.double()).sum(-1, keepdim=True)
            shift = gap / (volumes.sum(-1, keepdim=True) * (1 + self.noise_ratio))
            return torch.where(fluid, (flat.double() + shift).to(values.dtype), flat).reshape(values.shape), variance
        if self.weighting == "uniform":
            weight = torch.where(fluid, 1 / torch.where(fluid, volumes, 1.0), 0.0).expand(flat.shape)
        else:
            assert variance is not None  # refused by _check
            weight = torch.where(fluid, variance.double().flatten(2), 0.0)
        if self.nonnegative and bool((target < 0).any()):
            case, component = (target < 0).nonzero()[0].tolist()
            raise DataError(
                f"The total of component {component} of case {case} is {float(target[case, component]):g}: no "
                "non-negative field has it. Correct the total, or drop nonnegative."
            )
        result = gaussian_update(
            flat,
            volumes.unsqueeze(-2),
            target.unsqueeze(-1),
            variance=weight,
            noise_ratio=self.noise_ratio,
            inequality="nonnegative" if self.nonnegative else (),
        )
        updated = torch.where(fluid, result.mean, flat).reshape(values.shape)
        if self.weighting == "uniform":
            return updated, variance
        after = torch.where(fluid, result.variance.to(variance.dtype), variance.flatten(2))
        return updated, after.reshape(values.shape)

    def _check(self, u: Tensor, context: Context, variance: Tensor | None, *, finite: bool = True) -> None:
        shape = (context.grid.batch, *context.grid.shape)
        if (u.shape[0], *u.shape[2:]) != shape:
            raise ConfigError(
                f"The field has the shape {tuple(u.shape)}; expected (B, C, *grid), (B, *grid) = {shape}."
            )
        if variance is not None and variance.shape != u.shape:
            raise ConfigError(f"The variance has the shape {tuple(variance.shape)}, the field {tuple(u.shape)}.")
        if finite:
            check_finite("field", u)
        if finite and self.weighting == "variance" and variance is None:
            raise ConfigError(
                "The weighting 'variance' needs the predicted variance of the field: call the layer with "
                "variance=..., use its ensemble(...), or choose weighting='uniform'."
            )
