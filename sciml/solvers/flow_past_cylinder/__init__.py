"""Flow past a cylinder in a channel: incompressible Navier-Stokes by Taylor-Hood elements fitted to the disc.

flow = FlowPastCylinder(lengths, centre, radius, speed, viscosity)      # one case a row, SI units
state = flow.initial_state()
state = flow.advance(state, seconds)
drag, lift = flow.forces(state).unbind(1)
fields = flow.sample(state, (128, 64))
"""

from sciml.solvers.flow_past_cylinder.cases import MAX_REYNOLDS, CylinderCases
from sciml.solvers.flow_past_cylinder.solver import FlowPastCylinder
from sciml.solvers.flow_past_cylinder.state import CaseState, CylinderState

__all__ = ["MAX_REYNOLDS", "CaseState", "CylinderCases", "CylinderState", "FlowPastCylinder"]
