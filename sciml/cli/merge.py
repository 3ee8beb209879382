"""``sciml merge``: join data files of one problem into one."""

from pathlib import Path
from typing import Annotated

import typer

from sciml.cli import options
from sciml.cli.console import print_json
from sciml.cli.progress import RichProgress

NEEDS_ARGUMENTS = True
EXAMPLES = """Examples:

  sciml merge all.h5 part1.h5 part2.h5 part3.h5
  sciml merge all.h5 parts/*.h5 --copy
  sciml train --problem cavity --data all.h5

The merged file refers to its parts, which stay where they are; move them together. With --copy it needs no other.
Particle files are always copied."""


def merge(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The HDF5 file to write.")],
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Shards of one sample, in any order, or other files.")
    ],
    copy: Annotated[bool, typer.Option("--copy", help="Copy all data into a file that needs no other.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT where it exists.")] = False,
    json: options.Json = False,
) -> None:
    """Join data files (the shards of a generation, say) into one."""
    from sciml.datasets import DatasetFile, merge_files
    from sciml.datasets.particles import ParticleFile, is_particle_file, merge_particle_files

    with RichProgress() as progress:
        if any(is_particle_file(file) for file in files):  # small beside what is learned from them: always copied
            written = merge_particle_files(out, files, overwrite=overwrite, progress=progress)
            file, parts = ParticleFile(written), ()
        else:
            written = merge_files(out, files, copy=copy, overwrite=overwrite, progress=progress)
            file = DatasetFile(written)
            parts = file.parts
        size = written.stat().st_size
        progress.message(
            f"wrote {written} ({size / 1e6:.1f} MB): {file.n_cases} cases of {len(files)} files"
            f"{', which it needs where they are' if parts else ''}; look at it with: sciml info {written}"
        )
    if json:
        print_json(
            {
                "file": str(written),
                "bytes": size,
                "cases": file.n_cases,
                "parts": [str(part.path) for part in parts],
            }
        )
