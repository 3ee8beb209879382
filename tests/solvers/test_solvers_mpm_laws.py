"""Matrix functions, stresses, energies and return maps of the material point method."""

import math

import pytest
import torch
from mpm_helpers import MATERIALS, SOLIDS, random_deformation, random_rotation
from torch.autograd import gradcheck

from sciml.errors import ConfigError
from sciml.solvers.mpm import DruckerPrager, FixedCorotated, Fluid, HerschelBulkley, VonMises, laws, return_maps
from sciml.solvers.mpm.algebra import (
    determinant,
    deviator,
    matmul,
    matmul_transposed,
    norm,
    particles_first,
    spherical,
    trace,
)
from sciml.solvers.mpm.materials import Around
from sciml.solvers.mpm.spectral import eigen, rotated_back

DIMS = pytest.mark.parametrize("d", [2, 3])
DENSITY = 1000.0


def respond(material, deformation, *, rate=None, swelling=None, filling=None, dt=1e-4):
    """(deformation, stress, swelling) of a material, at rest unless a velocity gradient is given."""
    rate = torch.zeros_like(deformation) if rate is None else rate
    zeros = torch.zeros_like(deformation[0, 0])
    return material.respond(
        deformation, zeros if swelling is None else swelling, Around(rate, zeros + DENSITY, filling), dt
    )


def close(a, b, tolerance=1e-12):
    assert (a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1e-300)


@DIMS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 3e-14), (torch.float32, 3e-6)])
def test_eigensystem(d, dtype, tolerance):
    b = matmul_transposed(*[random_deformation(500, d, 0.5, dtype=dtype)] * 2)
    values, vectors = eigen(b)
    identity = torch.eye(d, dtype=dtype)[..., None].expand_as(b)
    assert (rotated_back(values, vectors) - b).abs().max() < tolerance * b.abs().max()
    assert (matmul_transposed(vectors, vectors) - identity).abs().max() < tolerance
    expected = torch.linalg.eigvalsh(particles_first(b))
    assert (values.sort(0).values.T - expected).abs().max() < tolerance * b.abs().max()


@DIMS
def test_eigensystem_of_multiples_of_the_identity(d):
    b = spherical(torch.tensor([1.0, 0.3, 0.0]), d)
    values, vectors = eigen(b)
    assert torch.equal(values, b.diagonal().T) and vectors.isfinite().all()


@DIMS
def test_logarithm_and_exponential_are_inverse(d):
    f = random_deformation(200, d)
    strain, vectors = laws.hencky_strain(f)
    doubled = laws.exponential(2 * strain, vectors)
    close(doubled, matmul_transposed(f, f))
    close(trace(strain), determinant(f).abs().log())


@DIMS
def test_gradient_of_matrix_functions_with_equal_and_near_eigenvalues(d):
    f = random_deformation(5, d)
    f[..., 0] = torch.eye(d)  # all equal
    f[..., 1] = torch.eye(d) * 1.3
    f[0, 0, 1] = 1.1  # two equal in 3D
    f[..., 2] = torch.eye(d) + 1e-7 * f[..., 2]

    def functions(f):
        strain, vectors = laws.hencky_strain(f)
        return strain, laws.exponential(0.5 * strain, vectors), laws.left_stretch(f)

    assert gradcheck(functions, f.requires_grad_(), eps=1e-6, atol=1e-7, rtol=1e-6)


@DIMS
@pytest.mark.parametrize("inverted", [False, True])
def test_left_stretch_times_a_proper_rotation(d, inverted):
    f = random_deformation(100, d, 0.1)
    if inverted:
        f[0] *= -1
    v = laws.left_stretch(f)
    rotation = particles_first(f).clone()
    rotation = torch.linalg.solve(particles_first(v), rotation)
    identity = torch.eye(d, dtype=f.dtype).expand_as(rotation)
    assert (rotation @ rotation.mT - identity).abs().max() < 1e-11
    assert (torch.linalg.det(rotation) - 1).abs().max() < 1e-11


@DIMS
@pytest.mark.parametrize("name", MATERIALS)
def test_no_stress_and_no_energy_at_rest(name, d):
    one = torch.eye(d, dtype=torch.float64)[..., None]
    f, stress, _ = respond(MATERIALS[name], one)
    assert stress.abs().max() < 1e-9 and (f - one).abs().max() < 1e-14
    assert MATERIALS[name].energy(one, torch.tensor([DENSITY])).abs().max() < 1e-9


@DIMS
@pytest.mark.parametrize("name", SOLIDS)
def test_frame_indifference(name, d):
    f, q = random_deformation(100, d), random_rotation(100, d)
    plain, turned = respond(MATERIALS[name], f), respond(MATERIALS[name], matmul(q, f))
    close(turned[1], matmul(matmul(q, plain[1]), q.transpose(0, 1)), 1e-10)
    close(turned[0], matmul(q, plain[0]), 1e-11)
    # An isotropic material does not feel a rotation before the deformation either.
    turned = respond(MATERIALS[name], matmul(f, q))
    close(turned[1], plain[1], 1e-10)


@DIMS
@pytest.mark.parametrize("name", [*SOLIDS, "water"])
def test_stress_is_the_derivative_of_the_energy(name, d):
    """tau = (dW / dF) F^T, at a deformation inside the yield surface."""
    f = random_deformation(20, d, 2e-3 if name != "sand" else 1e-5)
    if name in ("water", "sand"):
        f = f * 0.98
    f, stress, _ = respond(MATERIALS[name], f)
    f = f.requires_grad_()
    (slope,) = torch.autograd.grad(MATERIALS[name].energy(f, torch.full_like(f[0, 0], DENSITY)).sum(), f)
    close(matmul_transposed(slope, f.detach()), stress, 1e-8)


@DIMS
def test_inverted_jelly_is_pushed_back(d):
    """The energy falls on the way back through det F = 0 to the identity."""
    stretch = torch.linspace(-0.5, 1, 16, dtype=torch.float64)
    f = torch.eye(d, dtype=torch.float64)[..., None].repeat(1, 1, 16)
    f[0, 0] = stretch
    energy = FixedCorotated(1e4, 0.2).energy(f, torch.ones(16))
    assert (energy.diff() < 0).all()


@DIMS
@pytest.mark.parametrize("name", ["plasticine", "bingham", "goop", "sand"])
def test_return_map_is_idempotent_or_flows_on(name, d):
    material = MATERIALS[name]
    f, _, swelling = respond(material, random_deformation(300, d))
    again, _, swollen = respond(material, f, swelling=swelling)
    if name in ("plasticine", "sand"):
        close(again, f, 1e-13)
        close(swollen, swelling, 1e-12)
    else:
        # Viscoplastic stress keeps relaxing towards the yield surface, and never through it.
        before, after = (material.energy(x, torch.ones(300)) for x in (f, again))
        assert (after <= before).all() and (after < before).any()
        long = respond(material, f, dt=1e6)[1]
        assert norm(deviator(long)).max() < math.sqrt(2 / 3) * material.yield_stress * (1 + 1e-2)


@DIMS
@pytest.mark.parametrize("name", ["plasticine", "bingham", "goop"])
def test_shear_yield_keeps_the_volume(name, d):
    f = random_deformation(300, d)
    f[0] *= determinant(f).sign()
    close(determinant(respond(MATERIALS[name], f)[0]), determinant(f), 1e-12)


@DIMS
def test_von_mises_yield_stress(d):
    material = VonMises(1e4, 0.3, 100.0)
    size = norm(deviator(respond(material, random_deformation(300, d))[1]))
    assert size.max() < math.sqrt(2 / 3) * 100 * (1 + 1e-12)
    assert ((size - math.sqrt(2 / 3) * 100).abs() < 1e-9).sum() > 250


@DIMS
def test_von_mises_is_herschel_bulkley_without_viscosity(d):
    f = random_deformation(100, d)
    plastic = respond(VonMises(1e4, 0.3, 100.0), f)[0]
    close(respond(HerschelBulkley(1e4, 0.3, 100.0, 0.0), f)[0], plastic)
    close(respond(HerschelBulkley(1e4, 0.3, 100.0, 0.0, exponent=0.5), f)[0], plastic)


@DIMS
@pytest.mark.parametrize(
    ("yield_stress", "consistency", "exponent", "rate"),
    [
        (300.0, 5.0, 1.0, 2.0),
        (300.0, 50.0, 1.0, 2.0),
        (0.0, 25.0, 1.0, 5.0),
        (100.0, 40.0, 0.5, 3.0),
        (50.0, 9.0, 1.7, 3.0),
    ],
)
def test_simple_shear_of_the_viscoplastic_law(d, yield_stress, consistency, exponent, rate):
    """Steady tau_xy = yield_stress / sqrt(3) + consistency rate^exponent, within 0.2 %."""
    material = HerschelBulkley(2.6e4, 0.3, yield_stress, consistency, exponent)
    f, shear = torch.eye(d, dtype=torch.float64)[..., None], torch.zeros(d, d, 1, dtype=torch.float64)
    shear[0, 1] = rate
    for _ in range(250):
        f, stress, _ = respond(material, f, rate=shear, dt=1e-3)
    expected = yield_stress / math.sqrt(3) + consistency * rate**exponent
    assert stress[0, 1].item() == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("exponent", [0.2, 0.5, 1.5, 3.0])
def test_flow_rate_solves_its_equation(exponent):
    excess = torch.logspace(-12, 6, 200, dtype=torch.float64)
    rate = return_maps.flow_rate(excess, torch.tensor(7.0, dtype=torch.float64), exponent, 0.3)
    close((7 * rate**exponent + 0.3 * rate) / excess, torch.ones_like(excess), 1e-10)
    assert return_maps.flow_rate(torch.zeros(2), 7.0, exponent, 0.3).abs().max() == 0


def test_flow_rate_gradients():
    excess = torch.tensor([0.5, 20.0], dtype=torch.float64, requires_grad=True)
    consistency, exponent = (torch.tensor([v, v], dtype=torch.float64, requires_grad=True) for v in (3.0, 0.6))
    elastic = torch.tensor([0.2, 2.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(return_maps.flow_rate, (excess, consistency, exponent, elastic))


@DIMS
@pytest.mark.parametrize("angle", [15.0, 30.0, 45.0])
def test_mobilised_friction_of_drucker_prager(d, angle):
    """(p1 - p2) / (p1 + p2) = sin(phi) in biaxial (2D) and triaxial (3D) compression, within 1 %."""
    f = torch.eye(d, dtype=torch.float64)[..., None] * 1.005
    f[0, 0] = 0.97
    stress = respond(DruckerPrager(1e6, 0.2, angle), f)[1][..., 0].diagonal()
    mobilised = (stress.max() - stress.min()) / -(stress.max() + stress.min())
    assert mobilised.item() == pytest.approx(math.sin(math.radians(angle)), rel=1e-2)
    assert mobilised.item() == pytest.approx(math.sin(math.radians(angle)), rel=1e-9)


def test_the_three_dimensional_constant_would_be_wrong_in_two():
    alpha = math.sqrt(2 / 3) * 2 * 0.5 / (3 - 0.5)
    assert alpha / return_maps.drucker_prager_slope(30.0, 2) == pytest.approx(0.9238, rel=1e-3)


@DIMS
def test_cohesion_is_mohr_coulombs(d):
    """Unconfined compression fails at 2 c cos(phi) / (1 - sin(phi))."""
    c, phi = 500.0, math.radians(30)
    material = DruckerPrager(1e6, 0.2, 30.0, cohesion=c)
    strength = 2 * c * math.cos(phi) / (1 - math.sin(phi))
    # Axial strain far beyond yield, sideways strain so that the sideways stress is zero (bisection).
    low, high = 0.0, 0.2
    for _ in range(80):
        side = (low + high) / 2
        strain = torch.tensor([-0.01] + [side] * (d - 1), dtype=torch.float64)
        f = torch.diag(strain.exp())[..., None]
        stress = respond(material, f)[1][..., 0].diagonal()
        low, high = (side, high) if stress[1] < 0 else (low, side)
    assert -stress[0].item() == pytest.approx(strength, rel=1e-6)


@DIMS
def test_sand_has_no_tension_and_remembers_its_volume(d):
    material = DruckerPrager(1e6, 0.2, 30.0)
    f = torch.eye(d, dtype=torch.float64)[..., None] * 1.02
    f, stress, swelling = respond(material, f)
    assert stress.abs().max() < 1e-6 and swelling.item() == pytest.approx(d * math.log(1.02))
    # Pressed back by less than it swelled it carries nothing; by more, only the difference.
    _, stress, left = respond(material, f * 0.99, swelling=swelling)
    assert stress.abs().max() < 1e-6 and left.item() == pytest.approx(d * math.log(1.02 * 0.99))
    f3, stress, left = respond(material, f * 0.97, swelling=swelling)
    assert left.item() == 0 and determinant(f3).item() == pytest.approx((1.02 * 0.97) ** d)
    assert (stress.diagonal() < 0).all()


@DIMS
def test_water_under_pressure_and_shear(d):
    material = Fluid(20.0, viscosity=3.0)
    f = torch.eye(d, dtype=torch.float64)[..., None] * 0.99
    rate = torch.zeros_like(f)
    rate[0, 1] = 2.0
    f, stress, _ = respond(material, f, rate=rate)
    j = 0.99**d
    pressure = DENSITY * 400 / 7 * (j**-7 - 1)
    assert stress[0, 0].item() == pytest.approx(-j * pressure) and stress[0, 1].item() == pytest.approx(6 * j)
    assert determinant(f).item() == pytest.approx(j)
    rate = torch.zeros_like(f)
    rate[0, 1], rate[1, 0] = 50.0, -50.0  # a rotation
    assert determinant(respond(material, f, rate=rate)[0]).item() == pytest.approx(j)


def test_sparse_water_has_no_pressure_until_it_is_full():
    f = torch.eye(2, dtype=torch.float64)[..., None].expand(2, 2, 3) * 0.99
    filling = torch.tensor([0.5, 0.9, 1.1], dtype=torch.float64)
    f, stress, _ = respond(Fluid(20.0), f, filling=filling)
    assert determinant(f).tolist() == pytest.approx([1.6, 0.99**2, 0.99**2])
    assert stress[0, 0, 0] == 0 and (stress[0, 0, 1:] < 0).all()
    # It forgets the gap as soon as the gap is closed.
    f, _, _ = respond(Fluid(20.0), f, filling=torch.ones(3, dtype=torch.float64))
    assert determinant(f).tolist() == pytest.approx([1.0, 0.99**2, 0.99**2])


def test_constants_one_a_particle():
    f = random_deformation(4, 2)
    for young, poisson in ((1e4, 0.2), (torch.tensor([1e4, 2e4, 3e4, 4e4]), torch.tensor([0.1, 0.2, 0.3, 0.4]))):
        material = HerschelBulkley(young, poisson, 10.0, torch.full((4,), 3.0), exponent=torch.full((4,), 0.7))
        each = [
            HerschelBulkley(
                float(torch.as_tensor(young).expand(4)[k]), float(torch.as_tensor(poisson).expand(4)[k]), 10.0, 3.0, 0.7
            )
            for k in range(4)
        ]
        whole = respond(material, f)[1]
        for k in range(4):
            close(whole[..., k : k + 1], respond(each[k], f[..., k : k + 1])[1], 1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedCorotated(-1.0, 0.3), r"FixedCorotated: young must lie in \(0, inf\), got -1"),
        (lambda: FixedCorotated(1e4, 0.5), r"poisson must lie in \(-1, 0.5\), got 0.5"),
        (lambda: VonMises(1e4, torch.tensor([0.2, 0.7]), 1.0), r"poisson .* got 0.7"),
        (lambda: Fluid(0.0), r"sound_speed"),
        (lambda: Fluid(10.0, exponent=1.0), r"exponent must lie in \(1, inf\)"),
        (lambda: Fluid(10.0, viscosity=-1.0), r"viscosity must lie in \[0, inf\)"),
        (lambda: HerschelBulkley(1e4, 0.3, 1.0, 1.0, exponent=0.0), r"exponent must lie in \(0, inf\)"),
        (lambda: DruckerPrager(1e4, 0.3, 90.0), r"friction_angle must lie in \(0, 90\), got 90"),
        (lambda: DruckerPrager(1e4, 0.3, float("nan")), r"friction_angle .* got nan"),
    ],
)
def test_constants_out_of_range(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
