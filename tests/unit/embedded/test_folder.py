"""The data folder: its marker, its secrets and its lock."""

from __future__ import annotations

import signal
import stat
import sys
from pathlib import Path

import pytest

from shared.embedded.errors import FolderInUseError, LocalStackError, NewerDataError
from shared.embedded.folder import LAYOUT, FolderLock, kept_passwords, open_folder
from shared.embedded.processes import Child


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_closed_to_others(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "deep" / "data")
    assert mode_of(folder) == 0o700


def test_a_folder_of_the_same_version_opens_again(tmp_path: Path) -> None:
    assert open_folder(tmp_path / "data") == open_folder(tmp_path / "data")


def test_a_folder_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "data")
    (folder / "layout.json").write_text(f'{{"layout": {LAYOUT + 1}, "something": "new"}}')
    with pytest.raises(NewerDataError, match="written by a newer version of Recourse"):
        open_folder(folder)


def test_a_damaged_marker_is_refused(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "data")
    (folder / "layout.json").write_text("{")
    with pytest.raises(LocalStackError, match="damaged"):
        open_folder(folder)


def test_a_path_that_is_a_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(LocalStackError, match="cannot be used"):
        open_folder(tmp_path / "data")


def test_passwords_are_made_once_and_readable_by_us_alone(tmp_path: Path) -> None:
    file = tmp_path / "secret.json"
    first = kept_passwords(file, ["intake", "sla"])
    assert kept_passwords(file, ["intake", "sla"]) == first
    assert len(set(first.values())) == 2
    assert mode_of(file) == 0o600


def test_a_user_added_later_gets_a_password_and_the_others_keep_theirs(tmp_path: Path) -> None:
    file = tmp_path / "secret.json"
    first = kept_passwords(file, ["intake"])
    second = kept_passwords(file, ["intake", "sla"])
    assert second["intake"] == first["intake"]
    assert set(second) == {"intake", "sla"}


async def test_a_lock_is_held_once_and_free_after_release(tmp_path: Path) -> None:
    lock = await FolderLock.acquire(tmp_path / "lock", 0.0)
    with pytest.raises(FolderInUseError, match=r"Another Recourse \(process \d+\)"):
        await FolderLock.acquire(tmp_path / "lock", 0.0)
    lock.release()
    (await FolderLock.acquire(tmp_path / "lock", 0.0)).release()


async def test_a_lock_stays_held_by_the_process_that_inherited_it(tmp_path: Path) -> None:
    lock = await FolderLock.acquire(tmp_path / "lock", 0.0)
    heir = Child(
        [sys.executable, "-c", "import time; time.sleep(300)"],
        log=tmp_path / "log",
        death_signal=signal.SIGKILL,
        pass_fds=(lock.descriptor,),
    )
    lock.release()
    with pytest.raises(FolderInUseError):
        await FolderLock.acquire(tmp_path / "lock", 0.0)
    await heir.stop(signal.SIGKILL, 5.0)
    (await FolderLock.acquire(tmp_path / "lock", 0.0)).release()
