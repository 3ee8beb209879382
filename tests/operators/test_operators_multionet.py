"""MultiONet: derivatives carried forward, one trunk for a batch, and the DeepONet that it is with one layer."""

import pytest
import torch

from sciml.errors import ConfigError, DataError
from sciml.operators import DeepONet, MultiONet, Operator
from sciml.operators.multionet import Basis, BranchTrunk
from sciml.operators.multionet.activations import ACTIVATIONS, find_activation

DOUBLE = torch.float64


def network(out_channels: int = 3, dim: int = 2, dtype=DOUBLE, **options) -> BranchTrunk:
    torch.manual_seed(0)
    made = BranchTrunk(4, dim, out_channels, **{"hidden_channels": 7, "n_layers": 4, "averaged_layers": 3} | options)
    with torch.no_grad():
        made.bias += torch.randn(out_channels)
        for layer in (*made.branch_layers, *made.trunk_layers):
            layer.weight *= 2.5  # so that the smooth activations are not close to linear
    return made.to(dtype)


def given(dim: int = 2, batch: int = 5, n_points: int = 6, dtype=DOUBLE):
    torch.manual_seed(1)
    return torch.randn(batch, 4, dtype=dtype), 2 * torch.rand(n_points, dim, dtype=dtype) - 1


def by_autograd(net: BranchTrunk, features, points):
    """The per-sample form: the points repeated for every sample, derivatives by reverse mode."""
    points = points.expand(len(features), *points.shape[-2:]).clone().requires_grad_()
    values = net(features, points)
    slopes = [torch.autograd.grad(u.sum(), points, create_graph=True)[0] for u in values.unbind(1)]
    return values, torch.stack(slopes, 1)


def agree(found, expected, tolerance=1e-10):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------------------------------------------------- activations


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_derivatives_of_activations(name):
    activation = find_activation(name)
    z = torch.linspace(-3, 3, 101, dtype=DOUBLE, requires_grad=True)
    value, slope = activation.with_derivative(z)
    agree(value, activation.value(z), 1e-13)
    step = 1e-5
    agree(slope, (activation.value(z + step) - activation.value(z - step)) / (2 * step), 1e-8)
    (by_reverse,) = torch.autograd.grad(activation.value(z).sum(), z, create_graph=True)
    agree(slope, by_reverse, 1e-13)
    second, expected = (torch.autograd.grad(f.sum(), z)[0] for f in (slope, by_reverse))
    agree(second, expected, 1e-11)


@pytest.mark.parametrize(
    "name, formula",
    [
        ("tanh_sin", lambda z: torch.tanh(torch.sin(torch.pi * (z + 1))) + z),
        ("silu_sin", lambda z: torch.nn.SiLU()(torch.sin(torch.pi * (z + 1))) + z),
        ("silu_id", lambda z: torch.nn.SiLU()(z) + z),
    ],
)
def test_activations_are_those_of_the_authors(name, formula):
    z = torch.linspace(-3, 3, 101, dtype=DOUBLE)
    agree(find_activation(name).value(z), formula(z), 1e-14)


# ---------------------------------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("averaged", [1, 3, 4])
def test_derivatives_carried_forward_are_those_of_autograd(activation, averaged):
    net = network(activation=activation, averaged_layers=averaged)
    features, points = given()
    values, slopes = net.combine_with_gradient(net.trunk(points, gradient=True), features)
    assert values.shape == (5, 3, 6) and slopes.shape == (5, 3, 6, 2)
    expected, expected_slopes = by_autograd(net, features, points)
    agree(values, expected)
    agree(slopes, expected_slopes)
    assert expected_slopes.abs().max() > 0.1


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_weights_get_the_gradients_of_the_per_sample_form(activation):
    net = network(activation=activation)
    features, points = given()
    features.requires_grad_()
    wanted = [*net.parameters(), features]

    def gradients(values, slopes):
        residual = (slopes * torch.tensor([1.0, -2.0], dtype=DOUBLE)).sum(-1) * values + values.square()
        return torch.autograd.grad(residual.square().sum(), wanted)

    found = gradients(*net.combine_with_gradient(net.trunk(points, gradient=True), features))
    expected = gradients(*by_autograd(net, features, points))
    for one, other in zip(found, expected, strict=True):
        agree(one / other.abs().max(), other / other.abs().max())
        assert other.abs().max() > 0


@pytest.mark.parametrize("dim", [1, 3])
def test_one_and_three_coordinates(dim):
    net = network(dim=dim)
    features, points = given(dim=dim)
    values, slopes = net.combine_with_gradient(net.trunk(points, gradient=True), features)
    assert slopes.shape == (5, 3, 6, dim)
    expected, expected_slopes = by_autograd(net, features, points)
    agree(values, expected)
    agree(slopes, expected_slopes)


def test_gradcheck():
    net = network(out_channels=2, hidden_channels=3, n_layers=3, averaged_layers=2)
    features, points = given(batch=2, n_points=3)
    features.requires_grad_()
    points.requires_grad_()

    def outputs(features, points, *_):
        return net.combine_with_gradient(net.trunk(points, gradient=True), features)

    assert torch.autograd.gradcheck(outputs, (features, points, *net.parameters()))


def test_single_precision_agrees_with_double():
    """Where the matrix products are another library's."""
    features, points = given(n_points=50)
    single, double = network(dtype=torch.float32), network()
    found = single.combine_with_gradient(single.trunk(points.float(), gradient=True), features.float())
    expected = double.combine_with_gradient(double.trunk(points, gradient=True), features)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other, rtol=0, atol=2e-5 * float(other.detach().abs().max()))
    sum(part.square().sum() for part in found).backward()
    sum(part.square().sum() for part in expected).backward()
    for one, other in zip(single.parameters(), double.parameters(), strict=True):
        scale = float(other.grad.abs().max())
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=0, atol=1e-4 * scale)


# ------------------------------------------------------------------------------------------------------------ the basis


def test_points_for_all_and_points_for_each():
    net = network()
    features, points = given()
    each = torch.stack([points.roll(k, 0) + 0.1 * k for k in range(5)])
    basis = net.trunk(each, gradient=True)
    assert basis.values.shape == (3, 5, 6, 7) and basis.gradients.shape == (3, 5, 2, 6, 7)
    values, slopes = net.combine_with_gradient(basis, features)
    for k in range(5):
        one, one_slopes = net.combine_with_gradient(net.trunk(each[k], gradient=True), features[k : k + 1])
        agree(values[k], one[0], 1e-11)
        agree(slopes[k], one_slopes[0], 1e-11)
    agree(net(features, points), net(features, points.expand(5, -1, -1)), 1e-11)


def test_the_basis_is_what_its_name_says():
    """The layers' outputs, the sum written out, and no dependence on how the tensors are stored."""
    net = network()
    features, points = given()
    basis = net.trunk(points, gradient=True)
    assert basis.values.shape == (3, 6, 7) and basis.gradients.shape == (3, 2, 6, 7)
    assert net.trunk(points).gradients is None
    agree(net.trunk(points).values, basis.values, 1e-14)

    branch, trunk, total = features, points, 0
    for i, (left, right) in enumerate(zip(net.branch_layers, net.trunk_layers, strict=True)):
        branch, trunk = (net.activation.value(layer(x)) for layer, x in ((left, branch), (right, trunk)))
        if i >= 1:
            agree(basis.values[i - 1], trunk, 1e-13)
            total = total + torch.einsum("ck,bk,qk->bcq", net.weight[i - 1], branch, trunk)
    agree(net.combine(basis, features), total / 3 / 7**0.5 + net.bias[:, None], 1e-13)
    copied = Basis(basis.values.contiguous(), basis.gradients.contiguous())
    agree(net.combine_with_gradient(copied, features), net.combine_with_gradient(basis, features), 1e-14)


def test_a_basis_kept_for_an_inversion_gives_gradients_of_the_features():
    net = network()
    features, points = given()
    with torch.no_grad():
        basis = net.trunk(points, gradient=True)
    features.requires_grad_()
    kept, fresh = (
        torch.autograd.grad(sum(part.square().sum() for part in net.combine_with_gradient(b, features)), features)[0]
        for b in (basis, net.trunk(points, gradient=True))
    )
    agree(kept, fresh, 1e-13)


def test_channels_differ_and_every_weight_moves_from_the_start():
    torch.manual_seed(0)
    net = BranchTrunk(4, 2, 3)
    features, points = given(dtype=torch.float32)
    values = net(features, points)
    assert (values[:, 1] - values[:, 0]).std() > 1e-3 * values.std()
    values.square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in net.parameters())
    assert torch.equal(BranchTrunk(4, 2, 1).weight, torch.ones(5, 1, 100))


# ------------------------------------------------------------------------------------------------------------- DeepONet


@pytest.mark.parametrize("channels", [1, 3])
def test_one_averaged_layer_is_a_deeponet(channels):
    """The DeepONet of a layer more, whose last layers are w in the branch and the identity in the trunk."""
    torch.manual_seed(0)
    shared = {"n_parameters": 2, "time_conditioning": True, "hidden_channels": 8, "n_sensors": (4, 3)}
    net = MultiONet(2, channels, **shared, n_layers=3, averaged_layers=1, activation="gelu").double()
    twin = DeepONet(2, channels, **shared, n_layers=4, n_basis=8).double()
    with torch.no_grad():
        for mine, its in ((net.core.branch_layers, twin.branch), (net.core.trunk_layers, twin.trunk)):
            for layer, copy in zip(mine, its[::2][:3], strict=True):
                copy.load_state_dict(layer.state_dict())
            its[6].bias.zero_()
        twin.branch[6].weight.copy_(torch.cat([torch.diag(w) for w in net.core.weight[0]]))
        twin.trunk[6].weight.copy_(torch.eye(8).repeat(channels, 1))
        twin.bias.copy_(net.core.bias.normal_()[:, None])
    x, conditions = torch.randn(2, 2, 7, 6, dtype=DOUBLE), torch.randn(2, 2, dtype=DOUBLE)
    arguments = {"parameters": conditions, "time": torch.tensor([0.2, 0.7], dtype=DOUBLE)}
    agree(net(x, **arguments), twin(x, **arguments), 1e-13)
    points = torch.rand(2, 9, 2, dtype=DOUBLE)
    agree(net(x, **arguments, coordinates=points), twin(x, **arguments, coordinates=points), 1e-13)


# --------------------------------------------------------------------------------------------------------- the operator


def operator(**options) -> MultiONet:
    torch.manual_seed(0)
    sizes = {"hidden_channels": 8, "n_layers": 3, "averaged_layers": 2, "n_sensors": (4, 4)}
    return MultiONet(2, 3, **sizes | options).double()


def test_at_points_agrees_with_the_grid():
    net = operator(encoder_channels=(10, 6))
    x = torch.randn(2, 2, 6, 5, dtype=DOUBLE)
    axes = [(2 * torch.arange(n, dtype=DOUBLE) + 1) / n - 1 for n in (6, 5)]
    points = torch.cartesian_prod(*axes)
    expected = net(x).flatten(2)
    agree(net(x, coordinates=points), expected, 1e-13)
    agree(net(x, coordinates=points.expand(2, -1, -1)), expected, 1e-13)
    with pytest.raises(DataError, match=r"multionet: coordinates have shape \(30, 3\); expected \(N, 2\) or \(2, N"):
        net(x, coordinates=torch.zeros(30, 3))
    with pytest.raises(DataError, match=r"coordinates have shape \(3, 30, 2\)"):
        net(x, coordinates=torch.zeros(3, 30, 2))


def test_the_encoder_feeds_the_branch():
    net = operator(encoder_channels=(10, 6))
    x = torch.randn(2, 2, 4, 4, dtype=DOUBLE)
    points = torch.rand(5, 2, dtype=DOUBLE)
    encoder = net.encoder[0]
    hidden = torch.nn.functional.gelu(encoder[2](torch.nn.functional.gelu(encoder[0](x.flatten(1)))))
    agree(net(x, coordinates=points), net.core(hidden, points), 1e-14)
    plain = operator()
    agree(plain(x, coordinates=points), plain.core(x.flatten(1), points), 1e-14)


@pytest.mark.parametrize("encoder_channels", [(), (10, 6)])
def test_saved_and_loaded(encoder_channels, tmp_path):
    net = operator(encoder_channels=encoder_channels, activation="silu_sin")
    net.save_pretrained(tmp_path)
    loaded = Operator.from_pretrained(tmp_path)
    x = torch.randn(2, 2, 6, 5, dtype=DOUBLE)
    assert type(loaded) is MultiONet and loaded.config == net.config
    assert torch.equal(loaded(x), net(x))


def test_transposition():
    net, twin = operator(n_sensors=(4, 3)), operator(n_sensors=(3, 4))
    twin.load_state_dict(net.state_dict())
    with torch.no_grad():
        sensors = net.core.branch_layers[0].weight.unflatten(1, (2, 4, 3))
        twin.core.branch_layers[0].weight.copy_(sensors.mT.flatten(1))
        twin.core.trunk_layers[0].weight.copy_(net.core.trunk_layers[0].weight.flip(1))
    x = torch.randn(2, 2, 7, 5, dtype=DOUBLE)
    agree(twin(x.mT), net(x).mT, 1e-12)


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"features": 0}, "features is 0"),
        ({"dim": 1.5}, "dim is 1.5"),
        ({"out_channels": -1}, "out_channels is -1"),
        ({"hidden_channels": 0}, "hidden_channels is 0"),
        ({"n_layers": 0}, "n_layers is 0"),
        ({"averaged_layers": 0}, "averaged_layers is 0"),
        ({"averaged_layers": 7}, "averaged_layers is 7, and there are 6 layers; expected 1 to 6"),
        ({"activation": "tanh_sine"}, "unknown activation 'tanh_sine'; did you mean 'tanh_sin'.*expected one of"),
    ],
)
def test_arguments_out_of_range(wrong, message):
    with pytest.raises(ConfigError, match=message):
        BranchTrunk(**{"features": 4, "dim": 2, "out_channels": 1} | wrong)


def test_wrong_inputs_are_named():
    net = network()
    features, points = given()
    with pytest.raises(DataError, match=r"features have shape \(5, 3\); expected \(B, 4\)"):
        net(features[:, :3], points)
    with pytest.raises(DataError, match=r"features have shape \(4,\)"):
        net(features[0], points)
    with pytest.raises(DataError, match=r"points have shape \(6, 1\); expected \(Q, 2\) or \(B, Q, 2\)"):
        net(features, points[:, :1])
    with pytest.raises(DataError, match=r"points have shape \(2,\)"):
        net.trunk(points[0])
    with pytest.raises(DataError, match="points for 4 samples and features for 5; expected as many"):
        net(features, points.expand(4, -1, -1))
    with pytest.raises(DataError, match=r"no gradients; make it with trunk\(points, gradient=True\)"):
        net.combine_with_gradient(net.trunk(points), features)
