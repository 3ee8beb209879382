"""The operators on particles as networks: gradients, storage, pieces, unusual scenes, wrong input."""

import subprocess
import sys

import pytest
import torch
from particle_scenes import HISTORY, NAMES, RADIUS, graph, scene, small, together

from sciml.errors import CheckpointError, ConfigError, DataError
from sciml.operators import GIOROM, GNS, PARTICLE_OPERATORS, ParticleOperator, particle_graph
from sciml.operators.particles import edges

BOTH = pytest.mark.parametrize("name", NAMES)


@BOTH
@pytest.mark.parametrize("dim", [2, 3])
def test_every_parameter_gets_a_gradient(name, dim):
    operator = small(name, dim, dtype=torch.float32)
    data = graph({key: v.float() if v.is_floating_point() else v for key, v in scene(60, dim).items()})
    operator(data).square().sum().backward()
    for parameter, value in operator.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all() and value.grad.abs().max() > 0, parameter


@BOTH
@pytest.mark.parametrize("boxed", [True, False])
def test_gradients_with_respect_to_positions_and_velocities(name, boxed):
    operator, arguments = small(name, 2), scene(9, 2)
    if not boxed:
        arguments["bounds"] = None
    arguments["position"].requires_grad_()
    arguments["velocity"].requires_grad_()
    pairs = graph(arguments).edge_index

    def outcome(position, velocity):
        return operator(graph(arguments, position=position, velocity=velocity, edge_index=pairs))

    assert torch.autograd.gradcheck(outcome, (arguments["position"], arguments["velocity"]))


@BOTH
def test_saved_and_loaded_it_is_the_same(name, tmp_path):
    operator, data = small(name, 2, symmetry="gravity"), graph(scene(20, 2))
    operator.save_pretrained(tmp_path)
    for family in (ParticleOperator, PARTICLE_OPERATORS[name]):
        loaded = family.from_pretrained(tmp_path)
        assert type(loaded) is type(operator)
        assert loaded.config == operator.config
        assert torch.equal(loaded(data), operator(data))
    other = next(kind for key, kind in PARTICLE_OPERATORS.items() if key != name)
    with pytest.raises(CheckpointError, match=name):
        other.from_pretrained(tmp_path)


@BOTH
@pytest.mark.parametrize("dim", [2, 3])
def test_without_gradients_in_small_pieces_the_outcome_is_the_same(name, dim, monkeypatch):
    operator = small(name, dim)
    arguments = scene(200, dim)
    arguments["position"][150:160] = arguments["position"][150]  # many pairs of one receiver
    arguments["position"][-1] = 100.0  # a receiver without pairs at the end
    data = graph(arguments, bounds=None)
    whole = operator(data)
    monkeypatch.setattr(edges, "PIECE", 16)
    monkeypatch.setattr("sciml.operators.particles.interaction.PIECE", 16)
    with torch.no_grad():
        assert (operator(data) - whole).abs().max() < 1e-12 * whole.abs().max()


@BOTH
def test_untrained_it_predicts_about_no_acceleration(name):
    operator = PARTICLE_OPERATORS[name](2, radius=RADIUS, history=HISTORY, n_kinds=3, n_parameters=2).double()
    assert operator(graph(scene(50, 2))).abs().max() < 0.05


@BOTH
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("symmetry", ["none", "gravity"])
def test_empty_scenes_and_lone_particles(name, dim, symmetry):
    operator = small(name, dim, symmetry=symmetry)
    assert operator(graph(scene(0, dim))).shape == (0, dim)
    assert operator(graph(scene(0, dim), bounds=None)).shape == (0, dim)
    for count in (1, 2):
        arguments = scene(count, dim)
        arguments["position"] = 100.0 * torch.arange(count, dtype=torch.float64).unsqueeze(1).expand(-1, dim).clone()
        arguments["position"].requires_grad_()
        outcome = operator(graph(arguments, bounds=None))
        outcome.square().sum().backward()
        assert outcome.isfinite().all()
        assert arguments["position"].grad.isfinite().all()
    together_ = together(scene(0, dim), scene(3, dim), scene(0, dim))
    assert operator(together_).isfinite().all()


@BOTH
def test_particles_at_the_same_place_have_finite_gradients(name):
    operator, arguments = small(name, 2), scene(6, 2)
    arguments["position"] = arguments["position"][[0, 0, 0, 3, 4, 5]].requires_grad_()
    operator(graph(arguments)).square().sum().backward()
    assert arguments["position"].grad.isfinite().all()


@BOTH
@pytest.mark.parametrize("changed", ["kind", "parameters", "fixed", "gravity", "velocity"])
def test_every_input_matters(name, changed):
    operator, arguments = small(name, 2), scene(20, 2)
    other = {
        "kind": (arguments["kind"] + 1) % 3,
        "parameters": arguments["parameters"] + 1,
        "fixed": ~arguments["fixed"],
        "gravity": arguments["gravity"] * 2,
        "velocity": arguments["velocity"].flip(1),
    }[changed]
    assert (operator(graph(arguments)) - operator(graph(arguments, **{changed: other}))).abs().max() > 1e-3


def test_giorom_hears_across_the_scene_and_gns_does_not():
    """Two clusters far apart: in one pass only the latent operator carries news from one to the other."""
    arguments = scene(20, 2, bounds=None)
    arguments["position"][10:] += 50
    faster = arguments["velocity"].clone()
    faster[10:] += 1
    change = {}
    for name in NAMES:
        operator = small(name, 2)
        change[name] = (operator(graph(arguments)) - operator(graph(arguments, velocity=faster)))[:10].abs().max()
    assert change["gns"] == 0
    assert change["giorom"] > 1e-6


def test_dropout_is_for_training_only():
    operator, data = small("giorom", 2, dropout=0.5), graph(scene(30, 2))
    assert torch.equal(operator(data), operator(data))
    operator.train()
    assert not torch.equal(operator(data), operator(data))


@pytest.mark.slow
@BOTH
def test_compiled_it_is_the_same(name):
    operator, data = small(name, 2), graph(scene(30, 2))
    with torch.no_grad():
        expected = operator(data)
        compiled = torch.compile(operator, backend="eager")
        assert (compiled(data) - expected).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 4}, "dim is 4"),
        ({"radius": 0.0}, "radius is 0.0"),
        ({"radius": float("nan")}, "radius is nan"),
        ({"history": 0}, "history is 0"),
        ({"n_kinds": 0}, "n_kinds is 0"),
        ({"n_parameters": -1}, "n_parameters is -1"),
        ({"symmetry": "gravitiy"}, "did you mean 'gravity'"),
        ({"hidden_channels": 0}, "hidden_channels is 0"),
        ({"n_layers": (2,)}, "n_layers is"),
        ({"n_heads": 3}, "not a multiple of n_heads 3"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"latent_spacing": -1.0}, "latent_spacing is -1.0"),
        ({"latent_radius": 0.7}, r"expected a radius above 0\.707"),
    ],
)
def test_wrong_arguments(changes, message):
    with pytest.raises(ConfigError, match=message):
        GIOROM(**({"dim": 2, "radius": 0.1} | changes))


def test_wrong_arguments_of_gns():
    with pytest.raises(ConfigError, match="n_layers is 0"):
        GNS(2, radius=0.1, n_layers=0)
    with pytest.raises(ConfigError, match="did you mean 'n_layers'"):
        GNS.create({"dim": 2, "radius": 0.1, "n_layer": 3})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("velocity", torch.zeros(20, 3, 2, dtype=torch.float64), "velocity has shape"),
        ("parameters", torch.zeros(20, 1, dtype=torch.float64), "parameters has shape"),
        ("kind", torch.full((20,), 3), "kinds reach from 3 to 3; expected 0 to 2"),
        ("edge_index", torch.tensor([[0], [20]]), "particles outside 0 to 19"),
        ("bounds", None, "lacks bounds"),
    ],
)
def test_a_graph_that_does_not_fit(name, value, message):
    data = graph(scene(20, 2))
    data[name] = value
    with pytest.raises(DataError, match=message):
        small("gns", 2)(data)


def test_a_graph_of_another_type_or_dimension():
    with pytest.raises(DataError, match="float64"):
        small("gns", 2, dtype=torch.float32)(graph(scene(20, 2)))
    with pytest.raises(DataError, match="pos has shape"):
        small("gns", 3)(graph(scene(20, 2)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position": torch.zeros(20)}, "position is float32 of shape"),
        ({"velocity": torch.zeros(20, 2)}, "velocity is float32 of shape"),
        ({"kind": torch.zeros(19, dtype=torch.int64)}, "kind is int64"),
        ({"kind": torch.zeros(20)}, "kind is float32"),
        ({"parameters": torch.zeros(20)}, "parameters are"),
        ({"batch": torch.arange(20).flip(0)}, "not sorted"),
        ({"bounds": torch.zeros(3, 2, 2), "gravity": torch.zeros(2, 2)}, "gravity are given for 2 scenes; expected 3"),
        ({"gravity": torch.zeros(3)}, "gravity are"),
        ({"bounds": torch.zeros(2, 2)}, "low < high"),
        ({"gravity": torch.full((2,), float("nan"))}, "gravity is"),
        ({"edge_index": torch.zeros(3, 2)}, "edge_index is"),
    ],
)
def test_wrong_particles(changes, message):
    arguments = scene(20, 2)
    with pytest.raises(DataError, match=message):
        graph(arguments, **changes)


def test_particles_outside_and_numbers_that_are_not_finite_are_named():
    arguments = scene(20, 2)
    arguments["position"][[7, 11]] += 2
    with pytest.raises(DataError, match="2 of 20 particles are outside their box; the first is particle 7 at"):
        graph(arguments)
    assert graph(arguments, check_values=False).num_graphs == 1
    arguments["position"][4, 1] = float("nan")
    with pytest.raises(
        DataError, match="1 of 20 particles have positions that are not finite; the first is particle 4"
    ):
        graph(arguments)
    arguments = scene(20, 2)
    arguments["velocity"][3, 0, 0] = float("inf")
    with pytest.raises(DataError, match="velocities that are not finite"):
        graph(arguments)
    with pytest.raises(ConfigError, match="radius is 0"):
        particle_graph(arguments["position"], arguments["velocity"], radius=0)


def test_a_diverged_scene_is_refused():
    data = graph(scene(3, 2))
    data.pos = torch.tensor([[0.0, 0.0], [1e17, 1e17], [2e17, 0.0]], dtype=torch.float64)
    with pytest.raises(DataError, match="diverged"):
        small("giorom", 2)(data)


def test_importing_the_operators_leaves_torch_geometric_alone():
    code = "import sciml.operators, sys; sys.exit('torch_geometric' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
