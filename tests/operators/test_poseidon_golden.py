"""Poseidon against what the reference code computed on the same weights (tests/golden/README.md)."""

import numpy as np
import pytest
import torch
from poseidon_golden import STORED, GoldenCase, golden_case, seeded_weights
from torch import Tensor

from sciml.operators import Poseidon

PARAMETERS = {"tiny": 20_774_444, "base": 157_729_988, "large": 628_575_524}
RANDOM_IN_TRAINING = ("tiny_3stage", "tiny_resnet")  # stochastic depth, batch statistics: the reference evaluated
DOUBLE, SINGLE = 1e-11, 3e-5  # of the largest output


def check_double(model: Poseidon, case: GoldenCase) -> None:
    """Output, loss, input gradient and every parameter's gradient in float64."""
    x = case.fields.double().requires_grad_()
    made = model(x, time=lead_time(case, x.dtype), labels=case.labels.double(), pixel_mask=case.pixel_mask)
    made.loss.backward()
    expected = case.expected
    close_to(sampled(made.output, expected["pixels"]), expected["out64"], DOUBLE * expected["largest"])
    assert made.loss.item() == pytest.approx(float(expected["loss64"]), rel=1e-12)
    close_to(sampled(x.grad, expected["pixels_in"]), expected["gin64"], 1e-9 * np.abs(expected["gin64"]).max())
    names = expected["param_names"].tolist()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert sorted(gradients) == sorted(names)
    norms = np.array([0.0 if gradients[name] is None else gradients[name].norm().item() for name in names])
    wrong = np.abs(norms - expected["gradnorm64"]) > 1e-8 * expected["gradnorm64"] + 1e-13
    assert not wrong.any(), [name for name, bad in zip(names, wrong, strict=True) if bad]


def check_single(model: Poseidon, case: GoldenCase) -> None:
    """Output without and with gradients, and the gradients, in float32: as far from float64 as the reference's own."""
    expected = case.expected
    tolerance = max(SINGLE, 3 * float(expected["rounding"])) * float(expected["largest"])
    options = {"time": lead_time(case, torch.float32), "labels": case.labels, "pixel_mask": case.pixel_mask}
    with torch.no_grad():
        for _ in range(2):  # the second time with whatever the first left behind
            made = model(case.fields, **options)
            close_to(sampled(made.output, expected["pixels"]), expected["out64"], tolerance)
    made = model(case.fields, **options)
    made.loss.backward()
    close_to(sampled(made.output, expected["pixels"]), expected["out64"], tolerance)
    assert made.loss.item() == pytest.approx(float(expected["loss64"]), rel=SINGLE)
    parameters = dict(model.named_parameters())
    gradients = [parameters[name].grad for name in expected["param_names"].tolist()]
    norms = np.array([0.0 if gradient is None else gradient.double().norm().item() for gradient in gradients])
    away = np.linalg.norm(norms - expected["gradnorm64"]) / np.linalg.norm(expected["gradnorm64"])
    assert away < max(1e-4, 3 * float(expected["gradient_rounding"]))


def lead_time(case: GoldenCase, dtype: torch.dtype) -> Tensor | None:
    """The reference ignores a time that its norms do not read; ours wants none."""
    return case.time.to(dtype) if case.config["use_conditioning"] else None


def sampled(x: Tensor, pixels: np.ndarray) -> Tensor:
    at = torch.from_numpy(pixels)
    return x.detach()[..., at[:, None], at]


def close_to(actual: Tensor, expected: np.ndarray, tolerance: float) -> None:
    torch.testing.assert_close(actual.double(), torch.from_numpy(expected), rtol=0, atol=float(tolerance))


@pytest.mark.parametrize("name", STORED)
def test_double_precision(name):
    case = golden_case(name)
    check_double(Poseidon.from_pretrained(case.directory).double().eval(), case)


@pytest.mark.parametrize("name", [name for name in STORED if name not in RANDOM_IN_TRAINING])
def test_double_precision_in_training(name):
    case = golden_case(name)
    check_double(Poseidon.from_pretrained(case.directory).double().train(), case)


@pytest.mark.parametrize("name", STORED)
def test_single_precision(name):
    case = golden_case(name)
    check_single(Poseidon.from_pretrained(case.directory).eval(), case)


def test_a_changed_weight_is_seen():
    case = golden_case("tiny_convnext")
    model = Poseidon.from_pretrained(case.directory).double().eval()
    with torch.no_grad():
        model.decoder.layers[1].blocks[0].attention.self.logit_scale += 1e-6
    with pytest.raises(AssertionError):
        check_double(model, case)


def seeded_tiny() -> Poseidon:
    """Poseidon-T with seeded weights."""
    model = Poseidon.tiny()
    model.load_state_dict(seeded_weights({name: tuple(t.shape) for name, t in model.state_dict().items()}))
    return model.eval()


def test_published_tiny_in_single_precision():
    check_single(seeded_tiny(), golden_case("T"))


def test_published_tiny_in_double_precision():
    check_double(seeded_tiny().double(), golden_case("T"))


@pytest.mark.parametrize("size", sorted(PARAMETERS))
def test_published_parameter_counts(size):
    with torch.device("meta"):
        model = getattr(Poseidon, size)()
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[size]
