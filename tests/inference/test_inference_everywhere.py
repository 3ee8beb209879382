"""What all methods share: progress, and the same numbers on a CUDA device."""

from contextlib import contextmanager

import pytest
import torch
from linear_gaussian import linear_gaussian

from sciml.inference import fit_flow, fit_gaussian, laplace, maximum_posteriori, sample_hmc, sample_pcn
from sciml.progress import Progress

PROBLEM = linear_gaussian(4, 3, 0.5)


def everything(device: str, progress: Progress | None = None) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)  # lives on the CPU whatever the device
    starts = torch.randn(6, 4, generator=generator, dtype=torch.float64).to(device)
    options = {"generator": generator, "progress": progress}
    optimum = maximum_posteriori(PROBLEM.log_likelihood, starts, progress=progress)
    near = laplace(PROBLEM.log_likelihood, optimum.best)
    fit = fit_gaussian(PROBLEM.log_likelihood, near, steps=20, elbo_samples=32, **options)
    hmc = sample_hmc(PROBLEM.log_likelihood, starts, draws=20, warmup=20, mass=fit.gaussian, **options)
    pcn = sample_pcn(PROBLEM.log_likelihood, starts, draws=10, warmup=20, thin=2, reference=near, **options)
    flow = fit_flow(hmc.flat, epochs=2, **options).flow
    found = [optimum.points, near.scale_tril, fit.mean, hmc.draws, pcn.draws, flow.sample(3, generator).detach()]
    assert all(tensor.device.type == device for tensor in found)
    return found


class Recorder(Progress):
    """Totals announced and work done, by phase."""

    def __init__(self) -> None:
        self.total, self.done = {}, {}

    @contextmanager
    def phase(self, title, total):
        self.title, self.total[title], self.done[title] = title, total, 0
        yield

    def advance(self, amount=1, note=""):
        self.done[self.title] += amount


def test_all_work_is_reported():
    recorder = Recorder()
    everything("cpu", recorder)
    assert recorder.done == recorder.total
    assert recorder.total["HMC"] == 40 and recorder.total["pCN"] == 40 and recorder.total["normalising flow"] == 2
    assert recorder.total["variational inference"] == 20 and recorder.total["maximum of the posterior"] == 550


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_same_numbers_on_a_cuda_device():
    for cpu, cuda in zip(everything("cpu"), everything("cuda"), strict=True):
        torch.testing.assert_close(cuda.cpu(), cpu, rtol=1e-6, atol=1e-6)
