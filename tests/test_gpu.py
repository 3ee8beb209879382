"""The same numbers on a CUDA device. Skipped where there is none."""

import pytest
import torch
from tiny import tiny_config

from sciml.operators import Poseidon, PoseidonConfig
from sciml.problems import PROBLEMS, get_problem
from sciml.surrogate import load
from sciml.training import make_config, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


def test_solver_agrees_with_the_cpu():
    parameters = {"lid_velocity": [1.0, 2.0], "density": 1.0, "viscosity": 0.02, "height": [1.0, 1.2], "width": 1.0}
    times = torch.linspace(0, 0.5, 3)
    cavity = get_problem("cavity")
    cpu = cavity.solve(parameters, 24, times, dtype=torch.float64)
    cuda = cavity.solve(parameters, 24, times, dtype=torch.float64, device="cuda")
    assert cuda["velocity"].device.type == "cuda"
    torch.testing.assert_close(cuda["velocity"].cpu(), cpu["velocity"], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "dim"), [(name, dim) for name, problem in sorted(PROBLEMS.items()) for dim in problem.dims]
)
def test_every_problem_is_solved_as_on_the_cpu(name, dim):
    problem = get_problem(name, dim)
    sample = problem.sample(2, problem.subsets[0], seed=1)
    times = None if problem.static else problem.frame_times(sample.parameters, 2)
    cpu, cuda = (
        problem.solve(sample.parameters, None, times, dtype=torch.float64, device=device) for device in ("cpu", "cuda")
    )
    for field in problem.learned:
        assert cuda[field].device.type == "cuda"
        largest = float(cpu[field].abs().max())
        torch.testing.assert_close(cuda[field].cpu(), cpu[field], rtol=0, atol=1e-7 * largest)
    residual = problem.residual(cuda, sample.parameters)
    assert all(
        part.device.type == "cuda" and torch.isfinite(part).all() for parts in residual.values() for part in parts
    )


def test_training_and_surrogate(cavity_file, tmp_path):
    run = train(make_config(tiny_config(cavity_file, device="cuda")), tmp_path / "run")
    inside = {"lid_velocity": 10.0, "density": 1.0, "viscosity": 1.43e-3, "height": 0.01, "width": 0.01}
    state = torch.randn(1, 2, 24, 24)
    on_cpu = load(run.directory).step(state, inside)
    on_gpu = load(run.directory, "cuda").step(state, inside)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-3, atol=1e-3)


def test_resume_on_the_device(cavity_file, tmp_path):
    config = make_config(tiny_config(cavity_file, device="cuda", budget={"steps": 4}))
    train(config, tmp_path / "run")
    longer = make_config(tiny_config(cavity_file, device="cuda", budget={"steps": 6}))
    assert train(longer, resume=str(tmp_path / "run")).summary["steps"] == 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_poseidon_and_its_gradients(dtype):
    torch.manual_seed(0)
    config = PoseidonConfig(image_size=64, window_size=4, embed_dim=16, depths=(2, 2), num_heads=(1, 2))
    config = PoseidonConfig(**{**config.as_dict(), "skip_connections": (1, 0), "norm_gain": 1.0})
    cpu = Poseidon(config)
    cuda = Poseidon(config).cuda()
    cuda.load_state_dict(cpu.state_dict())
    x, time = torch.randn(2, 4, 64, 64), torch.rand(2)
    expected = cpu(x, time=time)
    expected.square().mean().backward()
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        found = cuda(x.cuda(), time=time.cuda())
    found.float().square().mean().backward()
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    assert (found.float().cpu() - expected).norm() < tolerance * expected.norm()
    for (name, one), other in zip(cuda.named_parameters(), cpu.parameters(), strict=True):
        difference = (one.grad.cpu() - other.grad).norm()
        assert difference < 10 * tolerance * other.grad.norm() + 1e-6, name
    with torch.no_grad():  # the kept bias lives on the device
        assert torch.equal(cuda.eval()(x.cuda(), time=time.cuda()), cuda(x.cuda(), time=time.cuda()))
