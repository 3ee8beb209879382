"""sciml: neural PDE solvers that can be trusted.

``import sciml`` is light: neither torch nor torch_geometric is imported until something that needs them is used.
"""

from typing import TYPE_CHECKING, Any

from sciml.version import __version__

__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from sciml.surrogate import load as load


def __getattr__(name: str) -> Any:
    if name == "load":
        from sciml.surrogate import load

        return load
    raise AttributeError(f"module 'sciml' has no attribute {name!r}")
