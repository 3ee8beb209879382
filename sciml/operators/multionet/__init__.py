"""MultiONet: a DeepONet that sums over several layers of its branch and trunk."""

from sciml.operators.multionet.core import Basis, BranchTrunk
from sciml.operators.multionet.operator import MultiONet

__all__ = ["Basis", "BranchTrunk", "MultiONet"]
