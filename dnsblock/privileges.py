"""Drops root privileges after startup (`user`), except the right to bind ports below 1024."""

import grp
import logging
import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from dnsblock._engine import keep_capabilities, keep_net_bind_service
from dnsblock.config import Config
from dnsblock.errors import Problem, Refused
from dnsblock.log import event


def drop(config: Config, descriptors: Iterable[int]) -> None:
    """Becomes the configured user; `descriptors` are the client sockets. Raises `Refused`.

    Call it while the process has one thread: each thread has its own capabilities, and new threads inherit
    them.
    """
    if config.user is None:
        if os.geteuid() == 0:
            event(logging.WARNING, "running as root: set `user`, or start dnsblock as another user")
        return
    user = _user(config.user)
    if os.geteuid() != user.pw_uid:
        if os.geteuid() != 0:
            raise _refused(config, "only root can become another user: start as root, or remove `user`")
        _give(config, user)
        for descriptor in descriptors:
            # Sockets of one address must belong to one user (SO_REUSEPORT), and a reload may bind more.
            os.fchown(descriptor, user.pw_uid, user.pw_gid)
        keep_capabilities()
        os.setgroups(os.getgrouplist(user.pw_name, user.pw_gid))
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        keep_net_bind_service()
    _check_reload(config)


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        advice = f"there is no such user: `useradd --system {name}`, or change `user`"
        raise Refused([Problem("user", None, name, advice)]) from None


def _refused(config: Config, reason: str) -> Refused:
    return Refused([Problem("user", None, config.user or "", reason)])


def _give(config: Config, user: pwd.struct_passwd) -> None:
    """Changes the owner of the state folder and the control socket. Raises `Refused`."""
    group = grp.getgrgid(user.pw_gid).gr_name
    for path in _all_in(config.state):
        status = path.lstat()
        if status.st_uid not in (0, user.pw_uid) or (stat.S_ISREG(status.st_mode) and status.st_nlink > 1):
            reason = f"belongs to another user: chown -R {user.pw_name}:{group} {config.state}"
            raise Refused([Problem(str(path), None, "", reason)])
        # Never follow symbolic links.
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    os.chown(config.control, user.pw_uid, user.pw_gid, follow_symlinks=False)


def _all_in(folder: Path) -> Iterator[Path]:
    yield folder
    for path, folders, files in os.walk(folder):
        yield from (Path(path, name) for name in (*folders, *files))


def _check_reload(config: Config) -> None:
    """Raises `Refused` if the user could not reload or start again."""
    for library in (Path(os.__file__).parent, Path(__file__).parent):
        if not os.access(library, os.R_OK | os.X_OK):
            # Some modules are imported later.
            advice = "install with a Python that it can execute: make install PYTHON=/usr/bin/python3"
            raise _refused(config, f"cannot read the running Python ({library}): {advice}")
    places = [place for zone in config.zones for place in (zone.place, zone.addresses)]
    api = config.api
    of_api = () if api is None else (api.certificate, api.key, api.tokens, api.clients)
    transfers = [zone.rpz for zone in config.zones if zone.rpz is not None]
    places += [rpz.key.secret_file for rpz in transfers if rpz.key is not None]
    places += [rpz.tls.ca for rpz in transfers if rpz.tls is not None]
    needed = [config.path, config.orders, config.cookies.secrets, *of_api, *places]
    reason = f"user {config.user} cannot read it, so a reload would fail: change its permissions"
    problems = [
        Problem(str(path), None, "", reason)
        for path in needed
        if isinstance(path, Path) and path.exists() and not os.access(path, os.R_OK)
    ]
    if not os.access(config.control.parent, os.W_OK | os.X_OK):
        reason = f"user {config.user} cannot write in its folder: chown {config.user} it, or change `control`"
        problems.append(Problem(str(config.control), None, "", reason))
    if problems:
        raise Refused(problems)
