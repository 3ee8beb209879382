"""The training loop: AdamW or SOAP, warm-up and cosine, clipping, averaged weights, early stopping, exact resume.

Every random draw is a function of (seed, step, rank), so a checkpoint needs no generator state: N steps equal k
steps, a resume and
N - k steps, bit for bit on the CPU (when the budget is in steps or epochs; a budget in minutes follows the clock).
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from sciml.errors import SolverError
from sciml.operators import Operator
from sciml.progress import Progress
from sciml.training.checkpoint import save_checkpoint
from sciml.training.config import OptimizerConfig, TrainConfig
from sciml.training.fine_tuning import group_rates
from sciml.training.parallel import World
from sciml.training.sampling import step_generator

if TYPE_CHECKING:
    from sciml.training.latent.config import LatentConfig
    from sciml.training.particles.config import ParticleConfig

LOG_EVERY = 20
"""Steps between two lines of ``metrics.jsonl``."""

LARGEST_BASIS = 1024
"""A longer side of a weight keeps its own basis with SOAP, whose decompositions grow with the cube of it."""


class Source(Protocol):
    """Training samples: ``Windows``, ``MapCases``, or another with these three."""

    def __len__(self) -> int:
        """Samples of an epoch."""

    def indices(self, size: int, step: int, seed: int) -> list[int]:
        """The samples of a step, those of all processes together: the same on each of them."""

    def batch(self, indices: Sequence[int]) -> Any:
        """What the task takes, of these samples; its ``to(device)`` moves it."""


class Model(Protocol):
    """What is fitted: an ``nn.Module`` around an operator, which has all of its parameters."""

    operator: Operator

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def train(self) -> Any: ...

    def eval(self) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


class Interrupted(KeyboardInterrupt):
    """Training was interrupted; its state is in a checkpoint."""


@dataclass
class Position:
    """How far training is, and the best validation so far."""

    step: int = 0
    seconds: float = 0.0
    best_error: float = math.inf
    best_step: int = 0


class Trainer:
    """Fits a surrogate, or another ``Model``.

    Args:
        config: the run's configuration.
        surrogate: the model, already on the device.
        task: module that computes the loss of a batch. Where it has them: ``begin(fraction)`` is called before each
            step with the share of the budget that is spent, ``numbers()`` is logged, ``memory(world)`` goes into
            checkpoints (all processes call it) and comes back by ``recall``.
        sources: training batches, and those of the late part of training (longer windows; the same for a map).
        validate: errors of the model on the validation cases; ``nmse`` among them decides which is the best.
        directory: the run directory (``checkpoints/`` is written by the main process).
        log: called with a dictionary of numbers.
    """

    def __init__(
        self,
        config: TrainConfig | ParticleConfig | LatentConfig,
        surrogate: Model,
        task: nn.Module,
        sources: tuple[Source, Source],
        validate: Callable[[Any], dict[str, float]],
        directory: Path,
        world: World,
        log: Callable[[dict[str, Any]], None],
        progress: Progress,
    ) -> None:
        self.config, self.surrogate, self.sources = config, surrogate, sources
        self.validate, self.directory, self.world = validate, directory, world
        self.log, self.progress = log, progress
        self.task = task
        self.step_loss = world.wrap(self.task)
        self.optimizer, self.peak_rates = make_optimizer(config.optimizer, surrogate.operator)
        self.average = [p.detach().clone() for p in surrogate.parameters()] if config.optimizer.ema else []
        self.best: list[Tensor] = []
        self.position = Position()

    # ------------------------------------------------------------------------------------------ progress and batches

    @property
    def total_steps(self) -> float:
        """Steps that the budget allows; infinite for a budget in minutes."""
        budget = self.config.budget
        epochs = math.inf if budget.epochs is None else budget.epochs
        steps = math.inf if budget.steps is None else budget.steps
        per_epoch = math.ceil(len(self.sources[0]) / self.config.batch_size)
        return min(steps, epochs * per_epoch)

    def fraction(self) -> float:
        """Share of the budget that is spent, 0 to 1."""
        minutes = self.config.budget.minutes
        clock = 0.0 if minutes is None else self.position.seconds / (60 * minutes)
        return min(1.0, max(clock, self.position.step / self.total_steps))

    def learning_rate(self, fraction: float, peak: float | None = None) -> float:
        """Linear warm-up to the peak (the base rate), then a cosine to zero, over the fraction of the budget that is
        spent.
        """
        optimizer = self.config.optimizer
        peak = optimizer.learning_rate if peak is None else peak
        if fraction < optimizer.warmup:
            # The first step has fraction 0; it must not be lost to a rate of zero.
            return peak * max(fraction / optimizer.warmup, 0.01)
        angle = math.pi * (fraction - optimizer.warmup) / (1 - optimizer.warmup)
        return peak * 0.5 * (1 + math.cos(angle))

    def batch(self, source: Source) -> Any:
        """This process's share of the batch of the current step."""
        indices = source.indices(self.config.batch_size, self.position.step, self.config.seed)
        mine = indices[self.world.data_rank :: self.world.data_size]
        return source.batch(mine).to(self.world.device)

    # ----------------------------------------------------------------------------------------------------- the loop

    def fit(self) -> None:
        """Train until the budget is spent or patience is lost.

        A signal ends it after the running step with a checkpoint and ``Interrupted``.
        """
        config, position = self.config, self.position
        self.surrogate.train()
        shown, note = 0.0, ""
        with (
            _stop_on_signal() as stop,
            self.world.spreading_experts(self.task),
            self.progress.phase("train", 1.0),
        ):
            fraction, stopping = self.world.agree([self.fraction(), 0.0])
            while fraction < 1:
                started = time.perf_counter()
                loss, norm = self.one_step(fraction)
                position.step += 1
                if position.step % LOG_EVERY == 0 or position.step == 1:  # looking at the loss waits for the device
                    self._log_step(loss, norm, self.learning_rate(fraction))
                    note = f"step {position.step}, loss {float(loss):.4f}"
                position.seconds += time.perf_counter() - started
                fraction, stopping = self.world.agree([self.fraction(), float(stop())])
                self.progress.advance(fraction - shown, note)
                shown = fraction
                if position.step % config.validate_every == 0 or fraction >= 1:
                    self._validate()
                if stopping:
                    self.save()
                    raise Interrupted
                if self._patience_lost():
                    self.progress.message(f"no improvement since step {position.best_step}: stopping early")
                    break
                if position.step % config.checkpoint.every_steps == 0:
                    self.save()
        self.save()  # before the last weights are replaced: a longer budget goes on from them
        if config.budget.patience is not None and self.best:
            self._set_weights(self.best)
        elif self.average:
            self._set_weights(self.average)
        self.surrogate.eval()

    def one_step(self, fraction: float) -> tuple[Tensor, Tensor]:
        """Forward, backward, clip, update at this share of the budget.

        Returns the loss and the gradient norm.
        """
        config = self.config
        late = self.sources[0] is not self.sources[1] and fraction >= config.task.unroll_from
        if hasattr(self.task, "begin"):
            self.task.begin(fraction)
        batch = self.batch(self.sources[1 if late else 0])
        generator = step_generator(config.seed, self.position.step, self.world.data_rank)
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = self.learning_rate(fraction, peak)
        with autocast(config.precision, self.world.device):
            loss = self.step_loss(batch, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.surrogate.parameters(), config.optimizer.clip)
        self.optimizer.step()
        for average, parameter in zip(self.average, self.surrogate.parameters(), strict=False):
            decay = min(config.optimizer.ema, (1 + self.position.step) / (10 + self.position.step))
            average.lerp_(parameter.detach(), 1 - decay)
        return loss.detach(), norm

    def _log_step(self, loss: Tensor, norm: Tensor, rate: float) -> None:
        """Log the step's numbers; raise ``SolverError`` on every process if the loss of any is not finite."""
        if self.world.any(not math.isfinite(float(loss))):
            raise SolverError(
                f"the loss is {float(loss)} at step {self.position.step}: training has diverged. Lower "
                f"optimizer.learning_rate (now {self.config.optimizer.learning_rate}); the last checkpoint is in "
                f"{self.directory / 'checkpoints'}"
            )
        numbers = {"loss": float(loss), "gradient_norm": float(norm), "learning_rate": rate}
        if hasattr(self.task, "numbers"):
            numbers |= self.task.numbers()
        self.log({"step": self.position.step, **numbers})

    def _validate(self) -> None:
        position = self.position
        current = [p.detach().clone() for p in self.surrogate.parameters()] if self.average else []
        if self.average:
            self._set_weights(self.average)
        self.surrogate.eval()
        errors = self.validate(self.surrogate)
        self.surrogate.train()
        self.log({"step": position.step, **{f"validation_{name}": value for name, value in errors.items()}})
        (error,) = self.world.agree([errors["nmse"]])
        if error < position.best_error:
            position.best_error, position.best_step = error, position.step
            if self.config.budget.patience is not None:
                self.best = [p.detach().clone() for p in self.surrogate.parameters()]
        if current:
            self._set_weights(current)

    def _patience_lost(self) -> bool:
        patience = self.config.budget.patience
        waited = (self.position.step - self.position.best_step) / self.config.validate_every
        return patience is not None and waited >= patience

    def _set_weights(self, weights: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, weight in zip(self.surrogate.parameters(), weights, strict=True):
                parameter.copy_(weight)

    # ------------------------------------------------------------------------------------------------------- resume

    def save(self) -> Path | None:
        """Write a checkpoint (the main process; the others wait)."""
        path, state = None, self.state_dict()
        if self.world.is_main:
            path = save_checkpoint(
                self.directory / "checkpoints", self.position.step, state, self.config.checkpoint.keep
            )
        self.world.barrier()
        return path

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on; every process calls it."""
        memory = {"task": self.task.memory(self.world)} if hasattr(self.task, "memory") else {}
        return {
            **memory,
            "position": vars(self.position).copy(),
            "surrogate": self.surrogate.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "best": self.best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self.position = Position(**state["position"])
        self.surrogate.load_state_dict(state["surrogate"])
        self.optimizer.load_state_dict(state["optimizer"])
        device = self.world.device
        self.average = [tensor.to(device) for tensor in state["average"]]
        self.best = [tensor.to(device) for tensor in state["best"]]
        if hasattr(self.task, "recall"):
            self.task.recall(state["task"])


def make_optimizer(config: OptimizerConfig, operator: Operator) -> tuple[torch.optim.Optimizer, list[float]]:
    """The optimiser over the operator's parameter groups, and the peak learning rate of each.

    SOAP: N. Vyas et al., arXiv:2409.11321, by the package pytorch-optimizer; its decay of weights is AdamW's.

    Raises ``ConfigError`` for a rate of a group that the operator does not have.
    """
    rates = group_rates(config, operator)
    groups = [group for group in operator.parameter_groups() if group.parameters]
    described = [
        {
            "params": group.parameters,
            "lr": rates[group.name],
            "weight_decay": config.weight_decay if group.decay else 0.0,
        }
        for group in groups
    ]
    peaks = [rates[group.name] for group in groups]
    if config.method == "soap":
        from pytorch_optimizer import SOAP

        return SOAP(described, betas=config.betas or (0.95, 0.95), max_precondition_dim=LARGEST_BASIS), peaks
    return torch.optim.AdamW(described, betas=config.betas or (0.9, 0.98), fused=True), peaks


def autocast(precision: str, device: torch.device) -> Any:
    """Bfloat16 on CUDA devices that have it (``auto``) or where it is asked for; otherwise float32."""
    chosen = precision == "bfloat16" or (
        precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    return torch.autocast(device.type, torch.bfloat16) if chosen else nullcontext()


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Let the first SIGINT or SIGTERM ask for a stop after the running step; a second SIGINT stops at once."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals are somebody else's business
        before = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
