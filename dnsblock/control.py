"""The path of the control socket, and command lines for messages. Every command uses this module.

It reads `control` without pydantic, whose import takes longer than a whole command.
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
MAX_SOCKET_BYTES = 107  # unix(7): sun_path, less its NUL


def control_socket(config: Path) -> Path:
    """The control socket of the daemon with this configuration file. Raises `Refused`.

    The rest of the file may be invalid: a running daemon must be reachable while the operator fixes its file.
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
    if len(bytes(path)) > MAX_SOCKET_BYTES:
        reason = f"the full path has {len(bytes(path))} bytes; a Unix socket allows {MAX_SOCKET_BYTES}"
        raise ValueError(reason)
    return path


def command_line(config: Path, *words: str) -> str:
    """A command for the daemon with this configuration file, ready to paste into a shell."""
    program = Path(sys.executable).with_name("dnsblock")
    found = shutil.which("dnsblock")
    if program.exists() and (found is None or not program.samefile(found)):
        words = (str(program), *words)
    else:
        words = ("dnsblock", *words)
    if str(config) != DEFAULT_CONFIG:
        words = (*words, "-c", str(config))
    return shlex.join(words)
