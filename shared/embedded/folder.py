"""The data folder of a local stack: who may use it, which version wrote it, and the secrets it keeps."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import msgspec

from shared.embedded.errors import FolderInUseError, LocalStackError, NewerDataError

DEFAULT_FOLDER = Path(".recourse")
LAYOUT = 1  # of the files and folders below the data folder; raise it when older code could not use them
_MARKER = "layout.json"


class _Marker(msgspec.Struct):
    layout: int


def open_folder(path: Path) -> Path:
    """Create the data folder, closed to others, or check that this version can use it; return its full path.

    Raises NewerDataError when a newer version wrote it, LocalStackError when it cannot be used at all.
    """
    folder = path.expanduser().resolve()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "logs").mkdir(mode=0o700, exist_ok=True)
        marker = folder / _MARKER
        if marker.exists():
            written = msgspec.json.decode(marker.read_bytes(), type=_Marker).layout
            if written > LAYOUT:
                raise NewerDataError(
                    f"The data folder {folder} was written by a newer version of Recourse (layout {written}, "
                    f"this one knows {LAYOUT}). Use that version, or another folder."
                )
        else:
            write_private(marker, msgspec.json.encode(_Marker(LAYOUT)))
    except OSError as failure:
        raise LocalStackError(f"The data folder {folder} cannot be used: {failure.strerror}.") from failure
    except msgspec.DecodeError as failure:
        raise LocalStackError(f"{folder / _MARKER} is damaged; is {folder} a data folder of Recourse?") from failure
    return folder


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only we can read; after a crash it is there whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as sink:
        sink.write(content)
        sink.flush()
        os.fsync(sink.fileno())
    draft.replace(path)


def kept_passwords(path: Path, users: Iterable[str]) -> dict[str, str]:
    """Return one password a user, made once and kept in `path`; a user added later gets one then."""
    kept: dict[str, str] = msgspec.json.decode(path.read_bytes(), type=dict[str, str]) if path.exists() else {}
    missing = [user for user in users if user not in kept]
    if missing:
        # A leading letter: an all-digit word would be read as a number where a configuration file names it by variable.
        kept |= {user: f"p{secrets.token_hex(24)}" for user in missing}
        write_private(path, msgspec.json.encode(kept))
    return kept


class FolderLock:
    """Holds one server's part of a data folder against a second stack.

    The server inherits the lock, so it is free only when the server, all processes of it and we have let go: whoever
    holds it may remove what a killed server left behind.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    @classmethod
    async def acquire(cls, path: Path, seconds: float = 3.0) -> Self:
        """Take the lock; waits a moment for servers that are just ending.

        Raises FolderInUseError, naming the process that holds it.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < end:
                    await asyncio.sleep(0.05)
                    continue
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
                os.close(descriptor)
                raise FolderInUseError(
                    f"Another Recourse (process {holder}) is using the data folder {path.parent}; stop it first, "
                    "or choose another folder."
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            return cls(path, descriptor)

    @property
    def descriptor(self) -> int:
        assert self._descriptor is not None, "the lock was released"
        return self._descriptor

    def release(self) -> None:
        """Let go; those who inherited the lock keep it until they end."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
