"""Where a daemon takes commands, and how a command to it is written: what every command needs.

What the others are checked with (pydantic) takes longer to import than a command takes.
"""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from dnsblock import document
from dnsblock.errors import Refused

DEFAULT_CONFIG = "/etc/dnsblock/dnsblock.yaml"
DEFAULT_SOCKET = "control.sock"
MAX_BYTES = 1 << 20  # of a configuration file
MAX_SOCKET_OCTETS = 107  # unix(7): sun_path, less its NUL


def control_socket(config: Path) -> Path:
    """Where the daemon of this configuration file takes commands. Raises `Refused`.

    Nothing else in the file has to be right: a running daemon must be reachable while its file is mended.
    """
    config = config.absolute()
    data = document.read_bytes(config, max_bytes=MAX_BYTES)
    read = document.read(str(config), data, max_bytes=MAX_BYTES)
    options = read.value if isinstance(read.value, dict) else {}
    written = options.get("control", DEFAULT_SOCKET)
    try:
        return socket_path(written, config.parent)
    except ValueError as err:
        found = written if isinstance(written, str) else ""
        raise Refused([read.problem(("control",), found, f"control: {err}")]) from err


def socket_path(written: Any, folder: Path) -> Path:
    """The path of a Unix socket, relative to a folder. Raises `ValueError`."""
    path = document.path_of(written, folder)
    if len(bytes(path)) > MAX_SOCKET_OCTETS:
        reason = f"{len(bytes(path))} octets as a full path; a Unix socket's may have {MAX_SOCKET_OCTETS}"
        raise ValueError(reason)
    return path


def command_line(config: Path, *words: str) -> str:
    """A command to the daemon of this configuration file, as a person can paste it into a shell."""
    program = Path(sys.executable).with_name("dnsblock")
    found = shutil.which("dnsblock")
    if program.exists() and (found is None or not program.samefile(found)):
        words = (str(program), *words)
    else:
        words = ("dnsblock", *words)
    if str(config) != DEFAULT_CONFIG:
        words = (*words, "-c", str(config))
    return shlex.join(words)
