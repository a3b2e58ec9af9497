"""As whom PostgreSQL runs. It refuses to run as root, and root is who we are in most containers and pipelines."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from shared.embedded.errors import ServerStartError

_CLONE_NEWUSER = 0x10000000
_ACCOUNTS = ("postgres", "daemon", "bin", "nobody")  # accounts that exist nearly everywhere; any but root will do

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Identity(msgspec.Struct, frozen=True):
    """How to start a program: what to do before exec, and the user to become (None: who we are)."""

    programs: Path
    before_exec: Callable[[], None] | None = None
    user: int | None = None

    def run(self, *command: str | Path, pass_fds: tuple[int, ...] = ()) -> subprocess.CompletedProcess[bytes]:
        """Run a program of PostgreSQL to its end, with its output captured."""
        program, *arguments = command
        return subprocess.run(  # noqa: S603 - programs of the package we installed
            [self.programs / program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=self.before_exec,
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else [],
            pass_fds=pass_fds,
            check=False,
            cwd="/",
        )

    def works(self) -> bool:
        """Whether PostgreSQL's program can be started this way here."""
        try:
            return self.run("postgres", "--version").returncode == 0
        except (OSError, subprocess.SubprocessError):
            return False


def choose_identity(programs: Path, home: Path) -> Identity:
    """Return the first way to run PostgreSQL that works here, for the data in `home` (which need not exist yet).

    1. As we are, unless that is root.
    2. As root, in a user namespace in which we bear an ordinary account's number: files stay root's, and it works in
       folders closed to everybody else.
    3. Where user namespaces are forbidden, as an ordinary account; if that may not read our programs, from a copy in a
       temporary folder.

    Data that an ordinary account owns are that account's, and are used as that account.
    """
    if os.geteuid() != 0:
        return Identity(programs)
    owner = home.stat().st_uid if home.exists() else 0
    if owner != 0:
        return as_other_user(programs, owner)
    account = _ordinary_account()
    if _libc is not None:
        mapped = Identity(programs, before_exec=_enter_namespace(account))
        if mapped.works():
            return mapped
    return as_other_user(programs, account)


def as_other_user(programs: Path, account: int | None = None) -> Identity:
    """The third way of `choose_identity`."""
    account = account or _ordinary_account()
    other = Identity(programs, user=account)
    if not other.works():
        other = Identity(_readable_copy(programs), user=account)
    if not other.works():
        raise ServerStartError(
            "PostgreSQL does not run as root, and neither a user namespace nor another account can be used here; "
            "start Recourse as an ordinary user."
        )
    return other


def _ordinary_account() -> int:
    """The number of an account that is not root; initdb asks for its name, so it must exist."""
    accounts = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0}
    for name in _ACCOUNTS:
        if name in accounts:
            return accounts[name]
    if accounts:
        return min(accounts.values())
    raise ServerStartError("PostgreSQL does not run as root, and this system knows no other account.")


def _enter_namespace(account: int) -> Callable[[], None]:
    def enter() -> None:
        assert _libc is not None
        if _libc.unshare(_CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "user namespaces are not available")
        for name, text in (("setgroups", "deny"), ("uid_map", f"{account} 0 1"), ("gid_map", f"{account} 0 1")):
            with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - between fork and exec, the less the better
                file.write(text)

    return enter


def _readable_copy(programs: Path) -> Path:
    """Copy the installation to a folder that everybody may read, once a boot; return its programs."""
    installation = programs.parent
    package = installation.parent
    target = Path(tempfile.gettempdir()) / f"recourse-postgresql-{os.geteuid()}-{int(installation.stat().st_mtime)}"
    if not target.exists():
        draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{target.name}."))
        draft.chmod(0o755)
        shutil.copytree(installation, draft / package.name / installation.name, symlinks=True)
        libraries = package.parent / f"{package.name}.libs"  # the programs look for them beside the package
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name, symlinks=True)
        try:
            draft.rename(target)
        except OSError:  # somebody was quicker; theirs is checked like any other
            shutil.rmtree(draft)
    if target.lstat().st_uid != os.geteuid():
        raise ServerStartError(f"{target} belongs to somebody else and is not to be trusted; remove it.")
    return target / package.name / installation.name / programs.name
