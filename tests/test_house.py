"""The house: what an import loads, and what the papers say."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "torch_geometric", "matplotlib", "h5py", "scipy")


@pytest.mark.parametrize("statement", ["import sciml", "import sciml.cli.main", "import sciml.training.config"])
def test_light_imports(statement):
    script = f"{statement}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_architecture_names_every_room():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for path in (ROOT / "sciml").iterdir():
        if path.name.startswith("__") or path.name == "py.typed":
            continue
        assert f"sciml/{path.name}" in text, f"ARCHITECTURE.md does not mention sciml/{path.name}"


def test_readme_links_lead_somewhere():
    import re

    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
