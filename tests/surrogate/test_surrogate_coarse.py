"""Running only some of the subtasks of a NeuralStagger."""

import pytest
import torch

from sciml.errors import ConfigError
from sciml.operators import FNO, NeuralStagger
from sciml.problems import get_problem
from sciml.surrogate import Normaliser, Surrogate

VALUES = {"viscosity": 1e-3, "forcing": 0.0}


def surrogate(mode="independent", **changes) -> Surrogate:
    torch.manual_seed(0)
    options = {"hidden_channels": 6, "n_modes": [4, 4], "n_layers": 1}
    operator = NeuralStagger(
        FNO, 1, 1, spatial=(2, 4), temporal=3, mode=mode, periodic=True, n_parameters=7, options=options
    )
    norm = {
        "mean": [0.1],
        "std": [2.0],
        "increment_std": [0.1],
        "condition_mean": [0.0] * 7,
        "condition_std": [1.0] * 7,
    }
    problem = get_problem("vorticity")
    return Surrogate(
        operator, problem, Normaliser(norm), fields=["vorticity"], interval=0.1, grid=(16, 32), **changes
    ).eval()


@pytest.mark.parametrize("mode", ["independent", "shared"])
@pytest.mark.parametrize("phase", [(0, 0), (1, 2)])
def test_a_phase_alone_is_the_phase_of_the_whole(mode, phase):
    """Subtasks never look at other phases, so a rollout of one is that of the whole at its cells."""
    whole = surrogate(mode)
    state = torch.randn(2, 1, 16, 32)
    fine = whole.rollout(state, VALUES, 7)
    few = whole.coarse(phase)
    assert few.grid == (8, 8) and few.interval == 0.1
    p, q = phase
    found = few.rollout(state[..., p::2, q::4], VALUES, 7)
    torch.testing.assert_close(found, fine[..., p::2, q::4], atol=1e-5, rtol=1e-4)


def test_only_the_last_frames():
    """A step is then three intervals long, and told what one of them is told."""
    whole = surrogate()
    state = torch.randn(1, 1, 16, 32)
    fine = whole.rollout(state, VALUES, 9)[:, 2::3]
    last = whole.coarse((0, 1), "last")
    assert last.interval == pytest.approx(0.3) and last.temporal == 1
    found = last.rollout(state[..., ::2, 1::4], VALUES, 3)
    torch.testing.assert_close(found, fine[..., ::2, 1::4], atol=1e-5, rtol=1e-4)


def test_it_does_not_warn_of_its_own_interval(recwarn):
    ranges = {"interval": (0.1, 0.1), "log_interval": (-10.0, -0.5)}
    last = surrogate(ranges=ranges).coarse(frames="last")
    last.rollout(torch.randn(1, 1, 8, 8), VALUES, 2)
    assert not [str(each.message) for each in recwarn.list]


def test_what_has_no_coarse_level():
    with pytest.raises(ConfigError, match="of mode stacked no subtask runs alone"):
        surrogate("stacked").coarse()
    with pytest.raises(ConfigError, match=r"phase is \(2, 0\); expected an offset in cells below \(2, 4\)"):
        surrogate().coarse((2, 0))
    plain = surrogate()
    plain.operator = FNO(1, 1, n_parameters=7, n_modes=(4, 4))
    with pytest.raises(ConfigError, match="the operator is a fno, which has no coarse level"):
        plain.coarse()
