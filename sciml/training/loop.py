"""The training loop: AdamW, warm-up and cosine, clipping, averaged weights, early stopping, exact resume.

Every random draw is a function of (seed, step, rank), so a checkpoint needs no generator state: N steps equal k
steps, a resume and
N - k steps, bit for bit on the CPU (when the budget is in steps or epochs; a budget in minutes follows the clock).
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sciml.errors import SolverError
from sciml.progress import Progress
from sciml.surrogate import Surrogate
from sciml.training.checkpoint import save_checkpoint
from sciml.training.config import TrainConfig
from sciml.training.data import Batch, MapCases, Pairs, Windows
from sciml.training.parallel import World

Source = Windows | MapCases
LOG_EVERY = 20
"""Steps between two lines of ``metrics.jsonl``."""


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
    """Fits a surrogate.

    Args:
        config: the run's configuration.
        surrogate: the model, already on the device.
        task: module that computes the loss of a batch.
        sources: training batches, and those of the late part of training (longer windows; the same for a map).
        validate: the error of a surrogate on the validation cases, smaller is better.
        directory: the run directory (``checkpoints/`` is written by the main process).
        log: called with a dictionary of numbers.
    """

    def __init__(
        self,
        config: TrainConfig,
        surrogate: Surrogate,
        task: nn.Module,
        sources: tuple[Source, Source],
        validate: Callable[[Surrogate], dict[str, float]],
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
        self.optimizer = torch.optim.AdamW(
            surrogate.parameters(),
            lr=config.optimizer.learning_rate,
            weight_decay=config.optimizer.weight_decay,
            betas=config.optimizer.betas,
            fused=True,
        )
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

    def learning_rate(self, fraction: float) -> float:
        """Linear warm-up, then a cosine to zero, over the fraction of the budget that is spent."""
        optimizer = self.config.optimizer
        if fraction < optimizer.warmup:
            # The first step has fraction 0; it must not be lost to a rate of zero.
            return optimizer.learning_rate * max(fraction / optimizer.warmup, 0.01)
        angle = math.pi * (fraction - optimizer.warmup) / (1 - optimizer.warmup)
        return optimizer.learning_rate * 0.5 * (1 + math.cos(angle))

    def batch(self, source: Source) -> Batch | Pairs:
        """This process's share of the batch of the current step."""
        size = self.config.batch_size
        indices = shuffled_batch(len(source), size, self.position.step, self.config.seed)
        mine = indices[self.world.rank :: self.world.size]
        return source.batch(mine).to(self.world.device)

    # ----------------------------------------------------------------------------------------------------- the loop

    def fit(self) -> None:
        """Train until the budget is spent or patience is lost.

        A signal ends it after the running step with a checkpoint and ``Interrupted``.
        """
        config, position = self.config, self.position
        self.surrogate.train()
        shown, note = 0.0, ""
        with _stop_on_signal() as stop, self.progress.phase("train", 1.0):
            fraction, stopping = self.world.agree([self.fraction(), 0.0])
            while fraction < 1:
                started = time.perf_counter()
                loss, norm = self.one_step(fraction)
                position.step += 1
                if position.step % LOG_EVERY == 0 or position.step == 1:  # looking at the loss waits for the device
                    self._log_step(loss, norm)
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
        late = fraction >= config.task.unroll_from
        batch = self.batch(self.sources[1 if late else 0])
        generator = step_generator(config.seed, self.position.step, self.world.rank)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(fraction)
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

    def _log_step(self, loss: Tensor, norm: Tensor) -> None:
        """Log the step's numbers; raise ``SolverError`` on every process if the loss of any is not finite."""
        if self.world.any(not math.isfinite(float(loss))):
            raise SolverError(
                f"the loss is {float(loss)} at step {self.position.step}: training has diverged. Lower "
                f"optimizer.learning_rate (now {self.config.optimizer.learning_rate}); the last checkpoint is in "
                f"{self.directory / 'checkpoints'}"
            )
        rate = self.optimizer.param_groups[0]["lr"]
        numbers = {"loss": float(loss), "gradient_norm": float(norm), "learning_rate": rate}
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
        path = None
        if self.world.is_main:
            path = save_checkpoint(
                self.directory / "checkpoints",
                self.position.step,
                self.state_dict(),
                self.config.checkpoint.keep,
            )
        self.world.barrier()
        return path

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        return {
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


def step_generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """A generator for the draws of one step on one process."""
    mixed = (seed * 1_000_003 + step) * 4099 + rank
    return torch.Generator().manual_seed(mixed % (2**63))


def shuffled_batch(length: int, size: int, step: int, seed: int) -> list[int]:
    """Indices of a step's batch: an epoch visits each once, in an order that depends on seed and epoch only."""
    indices: list[int] = []
    start = step * size
    while len(indices) < size:
        epoch, offset = divmod(start + len(indices), length)
        order = torch.randperm(length, generator=step_generator(seed, epoch, 1))
        indices += order[offset : offset + size - len(indices)].tolist()
    return indices


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
