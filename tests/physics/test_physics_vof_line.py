"""Area under a line in a rectangle and its inverse against direct integration."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.physics.vof import area_below, line_constant

SLOPES = st.one_of(
    st.floats(-3, 3).filter(lambda m: abs(m) > 1e-100), st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-9, -1e-14, 1e-30])
)
FRACTIONS = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1e-15, 1e-9, 0.5, 1 - 1e-9, 1.0]))
SIDES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1e-12, 1.0]))


def integrated(normal, constant, box, points=20001):
    """The area below a line as the integral over x of the part of each vertical chord that lies below it."""
    (m_x, m_y), (width, height) = normal, box
    x = torch.linspace(0, width, points, dtype=torch.float64)
    rest = constant - m_x * x
    if m_y == 0:
        chord = (rest >= 0).double() * height
    else:
        top = (rest / m_y).clamp(0, height)
        chord = top if m_y > 0 else height - top
    return float(torch.trapezoid(chord, x))


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


@settings(max_examples=300, deadline=None)
@given(m_x=SLOPES, m_y=SLOPES, fraction=FRACTIONS)
def test_the_line_cuts_off_the_fraction_that_it_was_asked_for(m_x, m_y, fraction):
    normal, fraction = column(m_x, m_y), torch.tensor([fraction], dtype=torch.float64)
    found = area_below(normal, line_constant(normal, fraction))
    assert float((found - fraction).abs()) <= 1e-14


def test_the_constant_survives_the_way_through_the_fraction():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(2, 10000, dtype=torch.float64, generator=generator)
    fraction = 0.01 + 0.98 * torch.rand(10000, dtype=torch.float64, generator=generator)
    constant = line_constant(normal, fraction)
    again = line_constant(normal, area_below(normal, constant))
    assert float(((again - constant) / normal.abs().sum(0)).abs().max()) < 1e-13


@settings(max_examples=150, deadline=None)
@given(
    m_x=st.floats(-2, 2).filter(lambda m: abs(m) > 0.05),
    m_y=st.floats(-2, 2).filter(lambda m: abs(m) > 0.05),
    where=st.floats(-0.2, 1.2),
    width=SIDES,
    height=SIDES,
)
def test_area_is_the_integral_of_the_chords(m_x, m_y, where, width, height):
    low, high = min(m_x, 0) + min(m_y, 0), max(m_x, 0) + max(m_y, 0)
    constant = low + where * (high - low)
    box = column(width, height)
    area = area_below(column(m_x, m_y), torch.tensor([constant], dtype=torch.float64), box)
    assert abs(float(area) - integrated((m_x, m_y), constant, (width, height))) < 1e-8


def test_upright_and_level_lines():
    constant = torch.tensor([0.25, 0.25, -0.25], dtype=torch.float64)
    normal = torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    box = torch.tensor([[0.5, 0.5, 1.0], [0.8, 0.8, 0.8]], dtype=torch.float64)
    torch.testing.assert_close(
        area_below(normal, constant, box), torch.tensor([0.25 * 0.8, 0.5 * 0.25, 0.75 * 0.8], dtype=torch.float64)
    )


def test_without_a_normal_every_box_holds_the_fraction():
    normal = torch.zeros(2, 1, dtype=torch.float64)
    constant = line_constant(normal, torch.tensor([0.3], dtype=torch.float64))
    assert float(area_below(normal, constant, column(0.5, 0.2))) == 0.3 * (0.5 * 0.2)


def test_no_area_is_negative_or_larger_than_the_box():
    generator = torch.Generator().manual_seed(1)
    normal = torch.randn(2, 100000, dtype=torch.float64, generator=generator)
    normal[0, ::2] *= 1e-13
    box = torch.rand(2, 100000, dtype=torch.float64, generator=generator)
    area = area_below(normal, torch.randn(100000, dtype=torch.float64, generator=generator), box)
    assert bool((area >= 0).all())
    assert bool((area <= box.prod(0)).all())
