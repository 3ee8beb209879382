"""Time and memory of Poseidon-T at 128 x 128, against the plain arithmetic of the published model.

    python benchmarks/poseidon_speed.py [--short] [--threads 2]
    python benchmarks/poseidon_speed.py --cuda

On a machine that others use too, OMP_WAIT_POLICY=PASSIVE steadies the times.

Both have the same weights and inputs, take turns within each repeat, and their outputs are compared. With ``--cuda``
also bfloat16 (autocast) and torch.compile, of both, and the share of what one large bfloat16 product of matrices
reaches on the same device in the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from harness import Row, report
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sciml.operators import Poseidon

sys.path.insert(0, str(Path(__file__).parent / "baselines"))
from poseidon_plain import PoseidonPlain, published_config

SIDE, CHANNELS = 128, 4
PASSES = ("forward", "forward, bias anew", "forward + backward")


class Setting(NamedTuple):
    batch: int
    device: str
    bfloat16: bool = False
    compiled: bool = False


def build(name: str) -> nn.Module:
    """Ours or the peer, on the same random weights, large enough that every branch counts."""
    torch.manual_seed(0)
    ours = Poseidon.tiny()
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
            else:
                parameter += 0.1 * torch.randn_like(parameter)
    if name == "ours":
        return ours
    plain = PoseidonPlain(published_config("tiny"))
    plain.load_state_dict(ours.state_dict())
    return plain


def inputs(setting: Setting) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.randn(setting.batch, CHANNELS, SIDE, SIDE)
    return x.to(setting.device), torch.rand(setting.batch).to(setting.device)


def work(model: nn.Module, name: str, setting: Setting) -> Callable[[], Tensor]:
    """One pass, as a function of nothing that returns the output."""
    x, lead = inputs(setting)
    training = name == "forward + backward"
    model.train(training)
    run = torch.compile(model) if setting.compiled else model

    def once() -> Tensor:
        if name == "forward, bias anew" and isinstance(model, Poseidon):
            model.forget_bias()
        precision = torch.autocast(setting.device, torch.bfloat16) if setting.bfloat16 else contextlib.nullcontext()
        with torch.set_grad_enabled(training), precision:
            out = run(x, time=lead)
        if training:
            out.float().square().mean().backward()
        return out.detach()

    return once


def seconds(function: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def row(setting: Setting, name: str, models: dict[str, nn.Module], repeats: int, limit: float | None) -> Row:
    """Times of one pass, ours and the peer's in turns."""
    runs = {who: work(model, name, setting) for who, model in models.items()}
    for run in runs.values():  # warm-up, and compilation
        run()
    outputs = {who: run().float() for who, run in runs.items()}
    times: dict[str, list[float]] = {who: [] for who in runs}
    for _ in range(repeats):
        for who, run in runs.items():
            models[who].zero_grad()
            times[who].append(seconds(run, setting.device))
    median = {who: statistics.median(taken) for who, taken in times.items()}
    least = {who: min(taken) for who, taken in times.items()}
    largest = outputs["plain"].abs().max()
    made: Row = {
        "batch": setting.batch,
        "pass": name,
        "precision": "bfloat16" if setting.bfloat16 else "float32",
        "compiled": "yes" if setting.compiled else "no",
        "ours median s": median["ours"],
        "plain median s": median["plain"],
        "ratio of medians": median["plain"] / median["ours"],
        "ours min s": least["ours"],
        "plain min s": least["plain"],
        "ratio of minima": least["plain"] / least["ours"],
        "difference": float((outputs["ours"] - outputs["plain"]).abs().max() / largest),
        **dict.fromkeys(memory_columns(setting), ""),
    }
    if limit is not None:
        made["share of matmul limit"] = operations(setting, name) / median["ours"] / limit
    return made


def operations(setting: Setting, name: str) -> float:
    """Floating-point operations in products and convolutions of one pass of the peer, counted without computing."""
    counter = FlopCounterMode(display=False)
    with torch.device("meta"):
        model = PoseidonPlain(published_config("tiny"))
        x, lead = torch.randn(setting.batch, CHANNELS, SIDE, SIDE), torch.rand(setting.batch)
        with counter:
            out = model(x, time=lead)
            if name == "forward + backward":
                out.sum().backward()
    return float(counter.get_total_flops())


def matmul_limit(side: int = 8192) -> float:
    """Operations per second of one large bfloat16 product on the GPU."""
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    a @ b
    return 2 * side**3 / min(seconds(lambda: a @ b, "cuda") for _ in range(20))


def memory_columns(setting: Setting) -> list[str]:
    """What ``peak_memory`` finds of the two."""
    kinds = ("MB",) if setting.device == "cuda" else ("MB", "resident MB")
    return [f"{who} {kind}" for kind in kinds for who in ("ours", "plain")]


def peak_memory(who: str, setting: Setting, threads: int) -> Row:
    """MB that one forward + backward takes beyond the built model; to be called in a process of its own.

    Resident memory also has what libraries allocate once, such as the code that oneDNN generates for each shape.
    """
    torch.set_num_threads(threads)
    model = build(who).to(setting.device)
    run = work(model, "forward + backward", setting)
    if setting.device == "cuda":
        run()  # what libraries allocate once
        model.zero_grad()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return {f"{who} MB": round((torch.cuda.max_memory_allocated() - before) / 1e6)}
    before = high_water()
    run()
    resident = high_water() - before
    model.zero_grad()
    return {f"{who} MB": round(allocated(run) / 1e6), f"{who} resident MB": round(resident / 1e6)}


def allocated(run: Callable[[], object]) -> float:
    """Most bytes that torch's allocator for the CPU has lent at one time during ``run``, beyond those before it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    changes = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = [event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns())]
    return float(max(itertools.accumulate(held)))


def high_water() -> float:
    """Most resident bytes of this process so far (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * float(status.split("VmHWM:")[1].split()[0])


def measure(settings: list[Setting], repeats: int, threads: int, limit: float | None) -> list[Row]:
    rows = []
    context = multiprocessing.get_context("spawn")
    for setting in settings:
        models = {who: build(who).to(setting.device) for who in ("ours", "plain")}
        rows += [row(setting, name, models, repeats, limit) for name in PASSES]
        if not setting.compiled:
            for who in models:
                with context.Pool(1) as pool:
                    rows[-1] |= pool.apply(peak_memory, (who, setting, threads))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Poseidon-T against the plain arithmetic.")
    parser.add_argument("--short", action="store_true", help="batch 1 and three repeats only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cuda", action="store_true", help="on the GPU, with bfloat16 and torch.compile")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = "cuda" if options.cuda else "cpu"
    batches = (1,) if options.short else (1, 8, 40) if options.cuda else (1, 8)
    variants = [(False, False)]
    if options.cuda:
        variants += [(False, True), (True, False), (True, True)]
    settings = [Setting(batch, device, *variant) for variant in variants for batch in batches]
    limit = matmul_limit() if options.cuda else None
    rows = measure(settings, 3 if options.short else 50 if options.cuda else 21, options.threads, limit)
    notes = [
        "ratio: plain over ours, above 1 ours is faster; difference: largest of the outputs, over the largest output",
        "forward: evaluation without gradients; ours keeps its position biases from call to call, except in the rows "
        "bias anew; forward + backward: training mode",
        "plain: the published arithmetic restated (benchmarks/baselines/poseidon_plain.py), not the reference code",
        "MB: peak of one forward + backward beyond the built model (activations, gradients), each in its own process, "
        "allocated by torch; resident: high-water mark of the first pass, with what libraries allocate once",
    ]
    if limit is not None:
        notes.append(
            f"{torch.cuda.get_device_name()}; one bfloat16 product of 8192 x 8192 matrices reached {limit / 1e12:.0f} "
            "Tflop/s; the share counts the operations of the plain arithmetic's products and convolutions"
        )
    report(f"poseidon_speed{'_cuda' if options.cuda else ''}", "How fast is Poseidon?", rows, notes)


if __name__ == "__main__":
    main()
