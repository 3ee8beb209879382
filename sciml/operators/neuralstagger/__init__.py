"""NeuralStagger: a grid operator on the interleaved coarse grids of a fine one (spatial and temporal subtasks)."""

from sciml.operators.neuralstagger.operator import MODES, NeuralStagger
from sciml.operators.neuralstagger.split import merge, split

__all__ = ["MODES", "NeuralStagger", "merge", "split"]
