"""Write your own trajectories into a file that sciml trains on (a decaying vortex stands for your solver)."""

from pathlib import Path

import numpy as np

from sciml.datasets import DatasetFile, DatasetInfo, DatasetWriter, FieldInfo, TrajectoryWindows


def my_solver(viscosity: float, x: np.ndarray, y: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Velocity ``(frames, 2, nx, ny)``, indexed [x, y]."""
    sx, cx = np.sin(np.pi * x)[:, None], np.cos(np.pi * x)[:, None]
    sy, cy = np.sin(np.pi * y)[None], np.cos(np.pi * y)[None]
    decay = np.exp(-2 * viscosity * np.pi**2 * time)[:, None, None]
    return np.stack([decay * sx * cy, -decay * cx * sy], axis=1)


def main(path: Path) -> Path:
    n, frames, viscosities = 32, 6, [0.01, 0.02, 0.05]
    x = y = (np.arange(n) + 0.5) / n
    time = np.linspace(0.0, 1.0, frames)
    info = DatasetInfo(
        problem="cavity",
        fields=(FieldInfo("velocity", 2, "m/s", order=1),),
        parameters={"lid_velocity": "m/s", "density": "kg/m^3", "viscosity": "Pa s", "height": "m", "width": "m"},
        grid=(n, n),
        n_frames=frames,
        boundaries={"x_low": "wall", "x_high": "wall", "y_low": "wall", "y_high": "moving_wall"},
        solver="an exact solution",
    )
    parameters = {"lid_velocity": 1.0, "density": 1.0, "viscosity": viscosities, "height": 1.0, "width": 1.0}
    with DatasetWriter(path, info, len(viscosities), parameters) as writer:
        for case in writer.missing():
            velocity = my_solver(viscosities[case], x, y, time)
            writer.write([case], {"velocity": velocity[None], "time": time[None]}, {"x": x, "y": y})
        writer.finish()
    file = DatasetFile(path)
    print(f"{path}: {file.n_cases} cases of {file.n_frames} frames on {file.info.grid}")
    windows = TrajectoryWindows([path], ["velocity"], history=1, horizon=2)
    print(f"{len(windows)} windows of one frame and the next two; state of the first: {windows[0]['state'].shape}")
    return path


if __name__ == "__main__":
    main(Path("mine.h5"))
