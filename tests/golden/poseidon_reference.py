"""Runs the original code of Poseidon on the golden cases and writes what it computes (io.npz).

    python tests/golden/poseidon_reference.py SCOT [CASE ...]

SCOT: a checkout of camlab-ethz/poseidon; needs transformers 4.46.3 or another version that it works with. A case is a
directory in tests/golden/poseidon with config.json; weights are its model.safetensors or, without, the seeded recipe
(only T), inputs those of its io.npz or seeded ones. ``--new`` makes seeded weights and inputs for a directory that has
only config.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent.parent / "operators"))
from poseidon_golden import GOLDEN, golden_case, seeded_field, seeded_weights

LARGEST_STORED = 6 * 1024  # numbers of an array; larger ones are thinned
DERIVED = ("model_type", "architectures", "torch_dtype", "transformers_version", "hidden_size", "num_layers")
NEW_TIMES = {"odd_3levels": (0.0, 1.3), "tiny_odd36": (0.3, 0.7), "tiny_shift2": (0.1, 0.9), "T": (0.25, 0.8)}


def original(directory: Path) -> Any:
    """The reference's model of a case, with its weights, in evaluation mode."""
    from scOT.model import ScOT, ScOTConfig

    config = json.loads((directory / "config.json").read_text())
    ignored = (*DERIVED, "pretrained_window_sizes")
    model = ScOT(ScOTConfig(**{key: value for key, value in config.items() if key not in ignored}))
    weights = directory / "model.safetensors"
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict(load_file(weights) if weights.exists() else seeded_weights(shapes))
    return model.eval()


def run(directory: Path, dtype: torch.dtype) -> dict[str, Any]:
    case, model = golden_case(directory.name), original(directory).to(dtype)
    x = case.fields.to(dtype).requires_grad_()
    made = model(pixel_values=x, time=case.time.to(dtype), labels=case.labels.to(dtype), pixel_mask=case.pixel_mask)
    made.loss.backward()
    norms = {name: float(p.grad.double().norm()) for name, p in model.named_parameters()}
    return {"out": made.output.detach().numpy(), "loss": made.loss.item(), "gin": x.grad.numpy(), "norms": norms}


def thinned(size: int, count: int, name: str) -> np.ndarray:
    """Rows (and columns) to keep of an array; a step that is odd meets every place within a patch."""
    if name == "T":
        return np.arange(5, size, 31)
    return np.arange(0, size, 1 if count <= LARGEST_STORED else 3)


def prepare(directory: Path) -> None:
    """Seeded weights and inputs for a directory that has only config.json."""
    config = json.loads((directory / "config.json").read_text())
    made = {"time": np.array(NEW_TIMES[directory.name], dtype=np.float32)}
    if directory.name != "T":
        grid = (config["image_size"], config["image_size"])
        made["pixel_values"] = seeded_field("pixel_values", (2, config["num_channels"], *grid)).numpy()
        made["labels"] = seeded_field("labels", (2, config["num_out_channels"], *grid)).numpy()
        save_file(original(directory).state_dict(), directory / "model.safetensors", metadata={"format": "pt"})
    np.savez_compressed(directory / "io.npz", **made)


def write(directory: Path) -> None:
    double, single = run(directory, torch.float64), run(directory, torch.float32)
    kept = {}
    with np.load(directory / "io.npz") as file:
        kept = {key: file[key] for key in ("pixel_values", "labels", "time", "pixel_mask") if key in file}
    names = list(double["norms"])
    norms = np.array([double["norms"][name] for name in names])
    norms32 = np.array([single["norms"][name] for name in names])
    largest = np.abs(double["out"]).max()
    pixels = thinned(double["out"].shape[-1], double["out"].size, directory.name)
    pixels_in = thinned(double["gin"].shape[-1], double["gin"].size, directory.name)
    np.savez_compressed(
        directory / "io.npz",
        **kept,
        out64=double["out"][..., pixels[:, None], pixels],
        gin64=double["gin"][..., pixels_in[:, None], pixels_in],
        pixels=pixels,
        pixels_in=pixels_in,
        loss64=double["loss"],
        gradnorm64=norms,
        param_names=np.array(names),
        largest=largest,
        rounding=np.abs(single["out"] - double["out"]).max() / largest,
        gradient_rounding=np.linalg.norm(norms32 - norms) / np.linalg.norm(norms),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="The original Poseidon on the golden cases.")
    parser.add_argument("scot", type=Path, help="a checkout of camlab-ethz/poseidon")
    parser.add_argument("cases", nargs="*", help="default: all")
    parser.add_argument("--new", action="store_true", help="seeded weights and inputs first")
    options = parser.parse_args()
    sys.path.insert(0, str(options.scot))
    for name in options.cases or sorted(path.name for path in GOLDEN.iterdir()):
        if options.new:
            prepare(GOLDEN / name)
        write(GOLDEN / name)
        print(name)


if __name__ == "__main__":
    main()
