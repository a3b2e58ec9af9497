"""A server's folder on a file system of its own in a file: its power can be cut, and it can be filled.

The cut is ext4's own shutdown without a flush of its journal: from then on nothing reaches the disk, as when the power goes.
Then the server is killed, the file system is mounted again (which replays its journal), and the server is started on what
had really been written.

Mounts are made in a mount namespace of this process, so whatever becomes of it, none is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import functools
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from services.supervisor import Unit
from tests.chaos.faults import back, family, send
from tests.chaos.frame import CaseFailedError, World

IMAGE_BYTES: Final = 12 * 1024**3  # sparse: takes what is written
SHUTDOWN: Final = 0x8004587D  # EXT4_IOC_SHUTDOWN
NO_LOG_FLUSH: Final = 2
CLONE_NEWNS: Final = 0x00020000
UNMOUNT_SECONDS: Final = 15.0
TOOLS: Final = ("mkfs.ext4", "mount", "umount", "losetup")


def enter_own_mounts() -> None:
    """From now on nobody else sees what is mounted here, and all of it goes with the last process of this run."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) == 0:
        subprocess.run(["mount", "--make-rprivate", "/"], check=False, capture_output=True)


@functools.cache
def lacking() -> str:
    """What this machine lacks for such file systems, found by trying; empty: nothing."""
    if os.geteuid() != 0:
        return "root, to mount a file system of its own"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"the programs {', '.join(missing)}"
    with tempfile.TemporaryDirectory(prefix="recourse-disk-") as place:
        folder = Path(place) / "folder"
        folder.mkdir()
        disk = Disk(folder, Path(place) / "image", 64 * 1024**2)
        try:
            disk.attach()
            disk.detach()
        except (OSError, subprocess.CalledProcessError) as failure:
            return f"loop devices and ext4 ({type(failure).__name__})"
    return ""


class Disk:
    """One folder. All methods are for when nobody uses it but `cut`, `fill` and `free`."""

    def __init__(self, folder: Path, image: Path, size: int = IMAGE_BYTES) -> None:
        self.folder = folder
        self._image = image
        self._size = size
        self._plain = folder.with_name(f"{folder.name}.plain")
        self.is_attached = False

    def attach(self) -> None:
        """Put the folder's content onto a file system of its own, at the same place."""
        with self._image.open("wb") as image:
            image.truncate(self._size)
        _call("mkfs.ext4", "-q", "-F", "-J", "size=16", "-E", "lazy_itable_init=1", self._image)
        self.folder.rename(self._plain)
        self.folder.mkdir(mode=0o700)
        _call("mount", "-o", "loop", self._image, self.folder)
        self.is_attached = True
        (self.folder / "lost+found").rmdir()
        _call("cp", "-a", f"{self._plain}/.", self.folder)
        os.sync()

    def detach(self) -> None:
        """Put the content back where it was."""
        if not self.is_attached:
            return
        shutil.rmtree(self._plain)
        _call("cp", "-a", self.folder, self._plain)
        self._unmount()
        self.folder.rmdir()
        self._plain.rename(self.folder)
        self._image.unlink()

    def abandon(self) -> None:
        """Let go of the file system, with all that is on it: nobody will look at it any more."""
        if self.is_attached:
            with contextlib.suppress(OSError, CaseFailedError):
                self._unmount()

    def cut(self) -> None:
        """Cut its power: what is not on the disk by now is lost."""
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def mount_again(self) -> None:
        self._unmount()
        _call("mount", "-o", "loop", self._image, self.folder)
        self.is_attached = True

    def fill(self) -> None:
        """Take all the room there is."""
        ballast = os.open(self.folder / "ballast", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            taken, chunk = 0, 1024**3
            while chunk >= 4096:
                try:
                    os.posix_fallocate(ballast, taken, chunk)
                    taken += chunk
                except OSError:
                    chunk //= 2
        finally:
            os.close(ballast)

    def free(self) -> None:
        (self.folder / "ballast").unlink(missing_ok=True)

    def _unmount(self) -> None:
        end = time.monotonic() + UNMOUNT_SECONDS
        while True:
            done = subprocess.run(["umount", str(self.folder)], check=False, capture_output=True)
            if done.returncode == 0:
                self.is_attached = False
                return
            if time.monotonic() > end:
                raise CaseFailedError(f"{self.folder.name} could not be unmounted: {done.stderr.decode().strip()}")
            time.sleep(0.1)


def _call(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


@contextlib.asynccontextmanager
async def on_own_disk(world: World, name: str) -> AsyncIterator[tuple[Unit, Disk]]:
    """Run NATS or PostgreSQL on a file system of its own for as long as the block lasts."""
    folder = world.stack.local.folder
    disk = Disk(folder / name, folder / f"{name}.image")
    with world.stage("disk on"), world.stack.supervisor.held(name) as unit:
        await unit.stop()
        await asyncio.to_thread(disk.attach)
        await unit.start()
    try:
        await back(world.stack, name)
        yield unit, disk
    except asyncio.CancelledError:  # everything ends; nobody needs what is on it
        with world.stack.supervisor.held(name):
            await unit.kill()
            disk.abandon()
        raise
    finally:
        if disk.is_attached:
            with world.stage("disk off"), world.stack.supervisor.held(name):
                disk.free()
                await unit.stop()
                await asyncio.to_thread(disk.detach)
                await unit.start()
            await back(world.stack, name)


async def cut_power(world: World, unit: Unit, disk: Disk) -> bool:
    """Cut the power under a running server and bring it back; whether the disk really lost what nobody had synced."""
    unsynced = disk.folder / "unsynced"
    unsynced.write_bytes(b"lost" * 1000)
    with world.stack.supervisor.held(unit.name):
        processes = family(unit.pid)
        disk.cut()
        send(processes, signal.SIGKILL)
        await unit.kill()
        await asyncio.sleep(world.chance.uniform(0.1, 0.4))
        await asyncio.to_thread(disk.mount_again)
        lost = not unsynced.exists() or unsynced.stat().st_size == 0
        unsynced.unlink(missing_ok=True)
        await unit.start()
    await back(world.stack, unit.name)
    return lost
