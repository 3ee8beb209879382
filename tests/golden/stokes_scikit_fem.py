"""Stokes flow past a disc by scikit-fem (https://github.com/kinnala/scikit-fem), on a mesh of ours: golden numbers of
tests/solvers/test_solvers_stokes.py. Needs scikit-fem (12.0.2 was used) and neither sciml nor torch.

    python - <<'END'                                   # in the environment of the package
    import numpy
    from sciml.physics.weak import channel_with_disc
    mesh = channel_with_disc(0.08)
    numpy.savez("mesh.npz", vertices=mesh.vertices, triangles=mesh.triangles)
    END
    python stokes_scikit_fem.py mesh.npz               # in an environment with scikit-fem
"""

import sys

import numpy as np
from scipy.sparse import bmat
from skfem import Basis, ElementTriP1, ElementTriP2, ElementVector, MeshTri, asm, condense, solve
from skfem.models.general import divergence
from skfem.models.poisson import vector_laplace

VISCOSITY = 0.01
POINTS = np.array([[0.3, 0.5], [0.5, 0.8], [1.2, 0.4]])

arrays = np.load(sys.argv[1])
mesh = MeshTri(arrays["vertices"].T.copy(), arrays["triangles"].T.copy())
velocity = Basis(mesh, ElementVector(ElementTriP2()), intorder=4)
pressure = velocity.with_element(ElementTriP1())
laplace, div = asm(vector_laplace, velocity), asm(divergence, velocity, pressure)
matrix = bmat([[VISCOSITY * laplace, -div.T], [-div, None]]).tocsc()

facets = mesh.boundary_facets()
x = mesh.p[:, mesh.facets].mean(1)[0, facets]
given = np.zeros(velocity.N + pressure.N)
inflow = velocity.get_dofs(facets[x < 1e-9]).all(["u^1"])
y = velocity.doflocs[1, inflow]
given[inflow] = 2 * np.sin(np.pi * y) * (1 + np.sin(1.5 * y) + np.cos(4 * y))
fixed = velocity.get_dofs(facets[x < 2 - 1e-9]).all()
found = solve(*condense(matrix, np.zeros_like(given), x=given, D=fixed))
u, p = found[: velocity.N], found[velocity.N :]

fine = Basis(mesh, ElementVector(ElementTriP2()), intorder=6)
values = [*fine.interpolate(u).value, fine.with_element(ElementTriP1()).interpolate(p).value]
print("L2 norms of u, v, p:", [float(np.sqrt((value**2 * fine.dx).sum())) for value in values])
print("u, v at the points:", (velocity.probes(POINTS.T) @ u).tolist())
print("p at the points:", (pressure.probes(POINTS.T) @ p).tolist())
