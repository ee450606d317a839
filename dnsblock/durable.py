"""Atomic, fsynced writes: after a crash or on a full disk a file has its old content or its new one."""

import contextlib
import errno
import glob
import os
from pathlib import Path


def write(path: Path, data: bytes, *, mode: int = 0o600, replaces: bool = True) -> None:
    """Replaces the content of a file, and returns when the new content is on the disk. Raises `OSError`.

    The content is written to a file beside it, which is then renamed. Only one writer at a time. The umask
    applies to `mode`. Without `replaces`, a file with this name raises `FileExistsError`.
    """
    partial = path.with_name(path.name + ".tmp")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replaces:
            partial.replace(path)
        else:
            _give_name(partial, path)
    finally:
        partial.unlink(missing_ok=True)  # frees the space on a full disk
    sync_folder(path.parent)


def _give_name(partial: Path, path: Path) -> None:
    """Gives a complete file its name, never instead of another file. Raises `FileExistsError`."""
    try:
        path.hardlink_to(partial)
    except OSError as err:
        # Memory sticks (FAT) and some network file systems have no hard links.
        if err.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from err
        partial.replace(path)


def sync_folder(folder: Path) -> None:
    """Makes new names in a folder durable: fsync(2) of a file does not include its name."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def partial_of(path: Path) -> Path:
    """The name of a file while this process writes it, before it replaces the file at `path`."""
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


def remove_left_behind(path: Path) -> None:
    """Removes incomplete files of processes that were killed while they wrote the file at `path`."""
    for partial in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
        process = partial.name.removeprefix(f"{path.name}.").removesuffix(".tmp")
        if process.isdecimal() and (int(process) == os.getpid() or not Path("/proc", process).exists()):
            with contextlib.suppress(OSError):  # a folder, or another user's
                partial.unlink()
