"""Steps that are learned from the equation alone, or beside data."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import sciml
from sciml.cli.main import app
from sciml.constraints import create_constraint
from sciml.errors import ConfigError
from sciml.operators import FNO, Operator
from sciml.problems import get_problem
from sciml.problems.generate import generate
from sciml.surrogate import Normaliser, Surrogate
from sciml.surrogate.constraining import Imposed, problem_context
from sciml.training import evaluate_run, resolve_config, train
from sciml.training.build import build_operator
from sciml.training.by_equation.build import build_surrogate_without_data, equation_loss
from sciml.training.by_equation.loss import EquationLoss
from sciml.training.by_equation.pool import FieldPool, States
from sciml.training.data import Batch, Trajectories
from sciml.training.evaluation import check_fit
from sciml.training.loop import Trainer
from sciml.training.losses import relative_l2
from sciml.training.random_cases import RandomCases
from sciml.training.tasks import UnrolledLoss

TINY = ["data.resolution=16", "data.frames=9", "data.interval=0.05", "data.subset=decaying", "device=cpu"]
TINY += ["data.cases.train=8", "data.cases.validation=2", "data.cases.test=3", "operator.patch_size=1"]
TINY += ["operator.hidden_channels=8", "operator.n_modes=[6,6]", "operator.n_layers=2", "batch_size=2", "task.pool=6"]
TINY += ["validate_every=6", "checkpoint.every_steps=4", "budget.steps=12", "threads=1"]


def config(folder, *more: str, operator="fno", **flags):
    words = [*TINY, f"data.directory={folder}", *more]
    return resolve_config("vorticity", operator, None, words, {"task": {"kind": "step", "residual": 1.0}, **flags})


def weights(run) -> dict[str, Tensor]:
    return sciml.load(run).state_dict()


def equal(a, b) -> bool:
    left, right = weights(a), weights(b)
    return all(torch.equal(left[key], right[key]) for key in left)


# --------------------------------------------------------------------------------------------- several frames at once


class Drift(Operator):
    """Frame k of each channel is k times a learned number (in units of the increment), whatever it reads."""

    name = "drift"
    records_arguments = False

    def __init__(self, channels: int, temporal: int) -> None:
        super().__init__(channels, channels, dim=2, n_parameters=7)
        self.temporal, self.config = temporal, {}
        self.slope = torch.nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x: Tensor, *, time=None, parameters=None) -> Tensor:
        one = self.slope.reshape(1, -1, 1, 1) + 0 * x
        return torch.cat([one] * self.temporal, 1)


def drifting(temporal: int, **changes) -> Surrogate:
    norm = {
        "mean": [0.0],
        "std": [1.0],
        "increment_std": [0.1],
        "condition_mean": [0.0] * 7,
        "condition_std": [1.0] * 7,
    }
    return Surrogate(
        Drift(1, temporal), get_problem("vorticity"), Normaliser(norm), fields=["vorticity"], interval=0.1, **changes
    ).eval()


def test_a_rollout_goes_on_from_the_last_of_several_frames():
    values = {"viscosity": torch.tensor([1e-3, 1e-3], dtype=torch.float64), "initial_amplitude": [1.0, 2.0]}
    state = torch.randn(2, 1, 16, 16)
    found = drifting(3).rollout(state, values, 7)
    unit = torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1, 1)
    expected = state.unsqueeze(1) + 0.05 * unit * torch.arange(1, 8).reshape(1, 7, 1, 1, 1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found, drifting(1).rollout(state, values, 7))
    torch.testing.assert_close(drifting(3).step(state, values), expected[:, 0])


def test_what_changes_must_change_between_calls():
    state, steps = torch.randn(1, 1, 16, 16), 6
    drag = torch.tensor([[0.0, 0.0, 0.1, 0.1, 0.2, 0.2]], dtype=torch.float64)
    values = {"viscosity": 1e-3, "drag": drag}
    drifting(2).rollout(state, values, steps)
    with pytest.raises(ConfigError, match=r"drag changes among the 3 frames"):
        drifting(3).rollout(state, values, steps)
    with pytest.raises(ConfigError, match=r"the interval between frames changes among the 3 frames"):
        drifting(3).rollout(state, {"viscosity": 1e-3}, 3, torch.tensor([[0.1, 0.1, 0.2]]))


def test_evaluation_looks_for_changes_from_where_it_starts():
    """The frame that is given is not part of a call."""
    time = torch.tensor([[0.0, 0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    steady = torch.full((1, 4), 1e-3, dtype=torch.float64)
    changing = torch.tensor([[1e-3, 1e-3, 2e-3, 2e-3]], dtype=torch.float64)
    for viscosity, fine in ((steady, True), (changing, True), (changing.flip(1).roll(1, 1), False)):
        data = Trajectories(torch.zeros(1, 5, 1, 16, 16), {"viscosity": viscosity}, time, ("a",))
        if fine:
            check_fit(drifting(2), [data])
        else:
            with pytest.raises(ConfigError, match="viscosity changes among the 2 frames"):
                check_fit(drifting(2), [data])


def test_maps_and_pairs_take_one_frame():
    with pytest.raises(ConfigError, match="2 frames at once"):
        drifting(2, kind="map", inputs=["vorticity"])


def test_constraints_see_every_frame():
    """A surrogate of two frames at once imposes on each what one of one frame does."""
    problem = get_problem("periodic_flow", 2)
    norm = {"mean": [0.0] * 2, "std": [1.0] * 2, "increment_std": [1.0] * 2, "condition_mean": [0.0] * 3}
    norm["condition_std"] = [1.0] * 3
    torch.manual_seed(0)
    operator = FNO(2, 4, n_parameters=3, n_modes=(4, 4), hidden_channels=4, n_layers=1)
    operator.temporal = 2
    imposed = [Imposed(create_constraint("divergence-free"))]
    made = Surrogate(operator, problem, Normaliser(norm), constraints=imposed, interval=0.1).eval()
    parameters = {"viscosity": 0.1, "speed": 1.0, "waves": 1.0}
    values = problem.as_parameters(parameters, 2)
    frames = made.advance(torch.randn(2, 1, 2, 16, 16), values, torch.full((2,), 0.1)).detach()
    assert frames.shape == (2, 2, 2, 16, 16)
    for frame in frames.unbind(1):
        context = problem_context(problem, made.fields, values, (16, 16))
        assert float(imposed[0].constraint.residual(frame, context).max()) < 1e-5


def test_the_loss_of_data_counts_all_frames():
    surrogate = drifting(2)
    state = torch.zeros(1, 5, 1, 16, 16)
    state[:] = 1.0 + 0.05 * torch.arange(5).reshape(1, 5, 1, 1, 1)  # what the model does, with the unit 1
    parameters = {p.name: torch.full((1, 4), p.default or 1e-3) for p in surrogate.problem.parameters}
    parameters["initial_amplitude"] = torch.ones(1, 4)
    batch = Batch(state, parameters, 0.1 * torch.arange(5.0).double().unsqueeze(0))
    loss = UnrolledLoss(surrogate, relative_l2)
    assert float(loss(batch, torch.Generator()).detach()) < 1e-5
    batch.state[:, 4] += 0.1  # the second frame of the second call
    assert float(loss(batch, torch.Generator()).detach()) == pytest.approx(0.1 / 1.3 / 4, rel=1e-3)


# ------------------------------------------------------------------------------------------------ the loss and the pool


def test_the_loss_of_the_true_step_is_its_truncation(tmp_path):
    """Of the solver's frames it falls with the cube of the interval, as Crank-Nicolson does; of no step it is large."""
    problem = get_problem("vorticity")
    found = {}
    for interval in (0.1, 0.05):
        made = config(tmp_path, "operator.hidden_channels=4", f"data.interval={interval}")
        surrogate = build_surrogate_without_data(made, problem, build_operator(made, problem))
        loss = equation_loss(made, surrogate)
        batch = loss.pool.batch([0, 1])
        start = batch.state.double()
        times = torch.tensor([0.0, interval])
        solved = problem.solve(batch.parameters, times=times, initial=start, dtype=torch.float64)["vorticity"][:, 1]

        scale = surrogate.field_scales(batch.parameters)[:, :, None, None].double()

        for name, target in (("true", solved), ("still", start)):
            made_up = ((target / scale).unsqueeze(1), scale)
            surrogate.predict_frames = lambda *given, made_up=made_up: made_up
            loss.pool.flows[0].state, loss.pool.flows[1].state = start.unbind(0)
            found[name, interval] = float(loss(loss.pool.batch([0, 1]), torch.Generator()))
    assert found["true", 0.05] < 0.05 * found["still", 0.05]
    assert found["true", 0.05] < found["true", 0.1] / 5, "the cube of the interval would be 8"


def test_the_pool_goes_on_from_where_the_network_led(tmp_path):
    problem = get_problem("vorticity")
    made = config(tmp_path)
    surrogate = build_surrogate_without_data(made, problem, build_operator(made, problem))
    loss = equation_loss(made, surrogate)
    assert loss.pool.size == 6 and loss.pool.lifetime == 8
    first = loss.pool.batch([0, 1])
    torch.testing.assert_close(first.state, problem.start(first.parameters, 16))
    loss(first, torch.Generator())
    with torch.no_grad():
        after = surrogate(first.state.unsqueeze(1), first.parameters, first.interval)
    second = loss.pool.batch([0, 1])
    torch.testing.assert_close(second.state, after)
    bad = States([0, 1], second.state, second.parameters, second.interval)
    loss.pool.store(bad, torch.stack([second.state[0], torch.full_like(second.state[1], torch.nan)]))
    third = loss.pool.batch([0, 1])
    torch.testing.assert_close(third.state[0], second.state[0])
    assert torch.isfinite(third.state).all() and loss.pool.flows[1].number == 7


def test_a_flow_that_blows_up_is_replaced():
    problem = get_problem("vorticity")
    pool = FieldPool(RandomCases(problem, "decaying", 0, 16, 8), problem, 0.1, size=2, batch=2, lifetime=9)
    states = pool.batch([0, 1])
    pool.store(states, torch.stack([states.state[0], 100 * states.state[1]]))
    assert [flow.age for flow in pool.flows.values()] == [1, 9]


# ---------------------------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("by_equation")
    return folder, train(config(folder / "data"), folder / "straight")


def test_no_case_of_training_is_solved(tmp_path, monkeypatch):
    kind = type(get_problem("vorticity"))
    solve, solved = kind.solve, []
    monkeypatch.setattr(
        kind, "solve", lambda self, values, *a, **k: solved.append(values) or solve(self, values, *a, **k)
    )
    train(config(tmp_path, "data.workers=1"), tmp_path / "run")
    assert sum(len(values["draw"]) for values in solved) == 5, "validation and test alone"


def test_training_without_data_beats_standing_still(tmp_path):
    made = config(tmp_path, "budget.steps=250", "optimizer.learning_rate=4e-3", "operator.hidden_channels=16")
    test = train(made, tmp_path / "run").summary["test"]
    assert (
        test["rollout_last"] < 0.5 * test["persistence_rollout_last"] and test["nmse"] < 0.3 * test["persistence_nmse"]
    )


def test_a_run_has_everything(straight):
    _, run = straight
    test = run.summary["test"]
    assert test["cases"] == 3 and np.isfinite(test["rollout_mean"]) and "lookup_nmse" not in test
    again = evaluate_run(run.directory)
    assert again["rollout_mean"] == pytest.approx(test["rollout_mean"])
    surrogate = sciml.load(run.directory)
    assert surrogate.interval == 0.05 and surrogate.provenance["training"].startswith("residual")
    assert (run.directory / "predictions.npz").exists()


def test_stopped_and_resumed_it_has_the_same_bits(straight, tmp_path, monkeypatch):
    folder, run = straight
    step = Trainer.one_step

    def failing(self, fraction):
        if self.position.step == 9:
            raise RuntimeError("made to fail")
        return step(self, fraction)

    monkeypatch.setattr(Trainer, "one_step", failing)
    with pytest.raises(RuntimeError, match="made to fail"):
        train(config(folder / "data"), tmp_path / "run")
    monkeypatch.setattr(Trainer, "one_step", step)
    train(config(folder / "data"), resume=str(tmp_path / "run"))
    assert equal(run.directory, tmp_path / "run")


def test_two_ranks_train_as_one_and_resume_exactly(straight, tmp_path):
    folder, run = straight
    script = tmp_path / "ranks.py"
    script.write_text(
        "import sys, torch\nfrom sciml.training import make_config, train\nfrom sciml.training.loop import Trainer\n"
        "torch.set_num_threads(1)\nstop, step = int(sys.argv[2]), Trainer.one_step\n"
        "def failing(self, fraction):\n"
        "    if self.position.step == stop: raise RuntimeError('made to fail')\n"
        "    return step(self, fraction)\n"
        "Trainer.one_step = failing\n"
        f"train(make_config({config(folder / 'data').model_dump(mode='json')!r}), sys.argv[1], resume='auto')\n"
    )

    def launch(name, stop):
        words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
        words += [str(tmp_path / name), str(stop)]
        return subprocess.run(words, capture_output=True, text=True, timeout=300)

    assert "made to fail" in launch("stopped", 9).stderr
    for name in ("stopped", "two"):
        done = launch(name, -1)
        assert done.returncode == 0, done.stderr[-2000:]
    assert equal(tmp_path / "stopped", tmp_path / "two")
    one, two = weights(run.directory), weights(tmp_path / "two")
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 2e-3


def test_beside_data(tmp_path):
    file = generate(
        "vorticity", tmp_path / "few.h5", subset="decaying", cases=8, resolution=16, frames=9, interval=0.05
    )
    words = [word for word in TINY if not word.startswith("data.cases")]
    words += [f"data.files=[{file}]", "data.cases.train=4", "data.cases.validation=2", "data.cases.test=2"]
    made = resolve_config("vorticity", "fno", None, [*words, "task.residual=0.3"], {})
    assert made.task.kind == "step" and made.task.unroll == 2
    result = train(made, tmp_path / "both")
    lines = [json.loads(line) for line in (result.directory / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "equation_loss" in line]
    assert logged
    for line in logged:
        assert line["loss"] == pytest.approx(0.7 * line["data_loss"] + 0.3 * line["equation_loss"], rel=1e-5)


# ------------------------------------------------------------------------------------------------------------ choices


def kind_of(*words: str, problem="vorticity", operator=None, **flags) -> tuple[str, float, str]:
    made = resolve_config(problem, operator, None, list(words), {"task": {"residual": 1.0}, **flags})
    return made.task.kind, made.task.residual, made.operator.name


def test_which_way_without_data():
    assert kind_of() == ("trajectory", 0.0, "fno")
    assert kind_of(operator="neuralstagger") == ("step", 1.0, "neuralstagger")
    assert kind_of("task.kind=step", operator="unet") == ("step", 1.0, "unet")
    assert kind_of(problem="cavity") == ("step", 1.0, "neuralstagger")
    assert kind_of(problem="periodic_flow", dim=2) == ("step", 1.0, "neuralstagger")
    assert kind_of(experts={}) == ("trajectory", 0.0, "fno")


@pytest.mark.parametrize(
    ("problem", "words", "message"),
    [
        ("tube", ["task.kind=step", "task.residual=1"], "'tube' cannot be learned from its equation"),
        ("tube", ["task.residual=1"], "'tube' cannot be learned without data"),
        ("vorticity", ["task.kind=step", "task.residual=1", "task.history=2"], r"task\.history is 2"),
        ("vorticity", ["task.kind=step", "task.residual=1", "data.files=[a.h5]"], r"data\.files is \['a\.h5'\]"),
        ("vorticity", ["task.kind=step", "task.residual=1", "data.grading=2"], r"data\.grading is 2"),
        ("vorticity", ["task.kind=map", "task.residual=0.5"], r"task\.residual is 0\.5"),
        ("vorticity", ["task.residual=1.5"], r"task\.residual' is 1\.5"),
        ("vorticity", ["task.residual=0.5", "task.pairs=all"], r"task\.pairs is 'all'"),
    ],
)
def test_bad_configurations(problem, words, message):
    with pytest.raises(ConfigError, match=message):
        resolve_config(problem, "fno" if problem == "vorticity" else None, None, words, {})


def test_more_frames_at_once_than_there_are(tmp_path):
    made = config(tmp_path, operator="fno")
    made.operator = type(made.operator)(
        name="neuralstagger", spatial=2, temporal=10, options={"hidden_channels": 4, "n_modes": [4, 4]}
    )
    with pytest.raises(ConfigError, match=r"10 frames at once \(operator\.temporal\).*data\.frames is 9"):
        train(made, tmp_path / "run")


@pytest.mark.parametrize("words", [["task.unroll=4"], ["task.history=3", "task.unroll=2"]])
def test_fewer_frames_than_a_sample_needs_are_refused_before_they_are_generated(words, tmp_path):
    words = [*words, "data.frames=4", f"data.directory={tmp_path}", "data.resolution=32"]
    made = resolve_config("vorticity", "fno", None, words, {})
    with pytest.raises(ConfigError, match=r"needs at least 5 frames; data\.frames is 4"):
        train(made, tmp_path / "run")
    assert not list(tmp_path.glob("*.h5"))


@pytest.mark.parametrize("words", [["task.kind=map"], ["task.pairs=all", "operator.time_conditioning=true"]])
def test_several_frames_at_once_are_for_steps(words, tmp_path):
    words = [*words, f"data.directory={tmp_path}", "data.resolution=32", "operator.temporal=2"]
    made = resolve_config("vorticity", "neuralstagger", None, words, {})
    with pytest.raises(ConfigError, match=r"2 frames at once \(operator\.temporal\), which goes with steps"):
        train(made, tmp_path / "run")


def test_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [word for word in TINY if not word.startswith("operator.")]
    words += ["operator.spatial=2", "operator.temporal=2", "operator.options={hidden_channels: 8, n_modes: [4, 4]}"]
    arguments = ["train", "--problem", "vorticity", "--physics-only", "--operator", "neuralstagger", *words]
    result = CliRunner().invoke(app, [*arguments, "--no-figures", "--out", "run"])
    assert result.exit_code == 0, result.output
    assert "without data" in result.output
    surrogate = sciml.load("run")
    assert surrogate.temporal == 2
    state = torch.randn(1, 1, 16, 16)
    values = {"viscosity": surrogate.ranges["viscosity"][0], "initial_smoothness": 4.0}
    assert surrogate.rollout(state, values, 3).shape == (1, 3, 1, 16, 16)


def test_equation_loss_is_what_the_problem_says(tmp_path):
    problem = get_problem("vorticity")
    made = config(tmp_path)
    surrogate = build_surrogate_without_data(made, problem, build_operator(made, problem))
    loss = equation_loss(made, surrogate)
    assert isinstance(loss, EquationLoss)
    batch = loss.pool.batch([0, 1, 2])
    with torch.no_grad():
        value = float(loss(batch, torch.Generator()))
        after = surrogate(batch.state.unsqueeze(1), batch.parameters, batch.interval)
    defect = problem.step_defect(batch.state, after, batch.parameters, batch.interval)
    ratio = defect.flatten(1).norm(dim=1) / after.flatten(1).norm(dim=1)
    assert value == pytest.approx(float(ratio.mean()), rel=1e-4)
