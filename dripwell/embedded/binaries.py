"""Finds the server programs inside their wheels, and a user and a place they can run as and from when we are root."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from dripwell.core.errors import ConfigurationError
from dripwell.embedded.process import NOBODY, Account

SYSTEM_PLACE = Path("/var/lib/dripwell")


def package_folder(package: str) -> Path | None:
    """Where a package lies, without importing it: these two change the machine or kill servers when imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def account_for(data: Path) -> Account | None:
    """The user a server with this data must run as: None, ourselves, unless we are root.

    Both servers give up root: PostgreSQL insists, and the other has no password.
    Data that an ordinary user began stays theirs.
    """
    if os.geteuid() != 0:
        return None
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    return NOBODY


def own_folder(data: Path, account: Account | None) -> None:
    """Make the data folder, for that account alone.

    What root put back there, such as a backup, becomes the account's too.
    """
    data.mkdir(exist_ok=True, mode=0o700)
    if account is not None and data.stat().st_uid == 0:
        for folder, _, files in os.walk(data):
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                os.chown(path, account.uid, account.gid, follow_symlinks=False)
    data.chmod(0o700)


def can_reach(path: Path, account: Account | None) -> bool:
    """Whether that account can read the path, by the mode bits of it and every folder above it."""
    if account is None:
        return True
    for place in (path.resolve(), *path.resolve().parents):
        status = place.stat()
        if status.st_uid == account.uid:
            mode = status.st_mode >> 6
        elif status.st_gid == account.gid:
            mode = status.st_mode >> 3
        else:
            mode = status.st_mode
        needed = 0o1 if stat.S_ISDIR(status.st_mode) else 0o5
        if mode & needed != needed:
            return False
    return True


def runnable_folder(
    source: Path, siblings: tuple[Path, ...], distribution: str, account: Account | None, state: Path
) -> Path:
    """`source` itself if the account can reach it; or else a copy in a place that it can.

    A copy keeps `source`'s name and its parent's, and has `siblings` beside that parent, since that is where the
    programs look for their libraries (RPATH).
    """
    if can_reach(source, account):
        return source
    name = f"{distribution}-{importlib.metadata.version(distribution)}"
    place = _place_for_copies(state, account)
    copy = place / name
    if not copy.exists():
        fresh = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=place))
        ignore = shutil.ignore_patterns("*.a", "include", "__pycache__")
        shutil.copytree(source, fresh / source.parent.name / source.name, symlinks=True, ignore=ignore)
        for sibling in siblings:
            shutil.copytree(sibling, fresh / sibling.name, symlinks=True)
        _let_all_read(fresh)
        try:
            fresh.rename(copy)
        except OSError:  # another process was first
            shutil.rmtree(fresh)
            if not copy.exists():
                raise
    return copy / source.parent.name / source.name


def _place_for_copies(state: Path, account: Account | None) -> Path:
    temporary = Path(tempfile.gettempdir()) / "dripwell-programs"  # where /var/lib is read-only, as in some containers
    for place in (state / "programs", SYSTEM_PLACE, temporary):
        try:
            place.mkdir(exist_ok=True, mode=0o755)
        except OSError:
            continue
        status = place.lstat()
        # In a folder that others can write to, the name may have been taken by somebody else first.
        trusted = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
        if trusted and can_reach(place, account) and os.access(place, os.W_OK):
            return place
    raise ConfigurationError(
        f"Dripwell runs as root, its own servers must not, and their user can reach neither {sys.prefix} nor {state}. "
        f"Make {SYSTEM_PLACE} writable, run Dripwell as an ordinary user, or set DATABASE_URL and REDIS_URL."
    )


def _let_all_read(folder: Path) -> None:
    folder.chmod(0o755)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(mode | (0o555 if mode & 0o100 else 0o444))
