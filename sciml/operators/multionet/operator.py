"""MultiONet on grids."""

from collections.abc import Sequence

from torch import Tensor, nn

from sciml.operators.layers.perceptron import perceptron
from sciml.operators.multionet.core import BranchTrunk
from sciml.operators.sensors import SensorOperator
from sciml.operators.stored import check_positive


class MultiONet(SensorOperator):
    """``u_c(y) = b_c + 1 / (l sqrt(H)) sum_layers sum_k w_lck branch_lk(field) trunk_lk(y)``, over the last l layers.

    A DeepONet in which the products of several layers are summed [Zang et al. 2025, arXiv:2502.06250]; see
    ``BranchTrunk``. With ``averaged_layers=1`` it is a DeepONet: the one of a layer more whose last layers are the
    weights w in the branch and the identity in the trunk.

    The defaults are for learning from data, where they were more exact at equal steps than the authors' 6 layers of 100
    with tanh(sin) (``BranchTrunk`` has those).

    Args:
        n_sensors: sensors per axis; its length is the number of grid axes.
        encoder_channels: widths of layers (linear, GELU) between the sensors and the branch; none by default.
        hidden_channels: width H of every layer of branch and trunk.
        n_layers: layers of the branch, and of the trunk.
        averaged_layers: how many of the last layers are summed.
        activation: of branch and trunk, a name in ``activations.ACTIVATIONS``.

    Shapes: as of every ``SensorOperator``.

    Raises:
        ConfigError: an argument is out of range.
        DataError: an input has another shape.
    """

    name = "multionet"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        n_parameters: int = 0,
        time_conditioning: bool = False,
        hidden_channels: int = 128,
        n_layers: int = 4,
        averaged_layers: int = 3,
        activation: str = "gelu",
        encoder_channels: Sequence[int] = (),
        n_sensors: Sequence[int] = (16, 16),
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            n_parameters=n_parameters,
            time_conditioning=time_conditioning,
            n_sensors=n_sensors,
        )
        check_positive("multionet", **{f"encoder_channels[{i}]": n for i, n in enumerate(encoder_channels)})
        widths = [self.n_sensed, *encoder_channels]
        self.encoder = nn.Sequential(perceptron(widths), nn.GELU()) if encoder_channels else nn.Identity()
        self.core = BranchTrunk(
            widths[-1],
            self.dim,
            out_channels,
            hidden_channels=hidden_channels,
            n_layers=n_layers,
            averaged_layers=averaged_layers,
            activation=activation,
        )

    def at_points(self, sensed: Tensor, points: Tensor) -> Tensor:
        return self.core(self.encoder(sensed), points)
