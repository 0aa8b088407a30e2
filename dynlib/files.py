"""Where the project's files lie, and how they are written and identified."""

import hashlib
import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from glob import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = ROOT / "checkpoints"
PROFILES = ROOT / "workflow" / "profiles"
DENIED = "may not be read: permission denied"  # what readers say about a file that is none the worse for it
# What is said where the package was installed without the repository, in which networks, profiles and records lie.
CLONE = "" if PROFILES.exists() else ": clone the repository, and `pip install -e .` there"
PUBLISHED, RERUN = "published", "rerun"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path that becomes ``path`` once the block has ended without an error.

    It lies in a folder of this process's own, where a killed run's leftovers are in nobody's way until the next one clears them.
    """
    host = platform.node()
    for left in path.parent.glob(f".partial-{escape(host)}-*"):
        if not _alive(int(left.name.rpartition("-")[2])):
            shutil.rmtree(left, ignore_errors=True)
    folder = path.parent / f".partial-{host}-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / path.name  # keeps the suffix, which some writers look at
    try:
        yield temporary
        # Some writers let nobody else read what they write: here the umask decides, as it did for the folder.
        temporary.chmod(folder.stat().st_mode & 0o666)
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say where
        raise
    finally:
        temporary.unlink(missing_ok=True)
        with suppress(OSError):  # another file may be on its way there
            folder.rmdir()


def _alive(process: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """SHA-256 of bytes in this order."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def unread(error: OSError) -> str:
    """Why a file could not be read, for messages."""
    return DENIED if isinstance(error, PermissionError) else f"is missing{CLONE}"


def there(path: Path) -> bool:
    """Whether a file or folder is there. Raises PermissionError where only others can tell; ``exists`` may say that it is not."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def listed(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder, sorted. Raises PermissionError for one that may not be read, in which ``glob`` finds nothing."""
    if there(folder):
        os.listdir(folder)
    return sorted(folder.glob(pattern))


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def code_version(*parts: str) -> str:
    """A digest of some of dynlib's files and folders: it names the code that ran, committed or not.

    Line endings do not matter. By default those that records depend on.
    """
    digest, package = hashlib.sha256(), ROOT / "dynlib"
    chosen = [
        package / part
        for part in parts or ("craft.py", "data.py", "datasets.py", "settings.py", "attacks", "mechanisms", "networks")
    ]
    for path in sorted(path for one in chosen for path in (one.rglob("*.py") if one.is_dir() else [one])):
        digest.update(path.name.encode() + path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:12]


def home(run: str) -> Path:
    """Where a run keeps its ``results``, ``figures`` and ``notebooks``.

    What is published lies at the top and is committed. Whatever else is run has a folder of its own below ``runs``.
    """
    return ROOT if run == PUBLISHED else ROOT / "runs" / run


def profile_of(run: str) -> str:
    """The profile of a run. Its runs have the profile's name, except for ``"rerun"``, which measures ``"published"`` anew."""
    return PUBLISHED if run == RERUN else run
