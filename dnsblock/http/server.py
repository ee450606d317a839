"""Runs an ASGI application on an open socket, in the daemon's event loop."""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import uvicorn

from dnsblock.config import Config
from dnsblock.errors import Problem, Refused
from dnsblock.http.connections import HEAD_BYTES, Connections
from dnsblock.listeners import HttpSocket

LINGER_SECONDS = 1.0  # for clients that do not confirm the end of their connection
READY_POLL_SECONDS = 0.01
BACKLOG = 64  # connections that may wait to be accepted


class _Server(uvicorn.Server):
    """Does not handle signals: the daemon does."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serve(app: Any, sock: socket.socket, connections: Connections) -> AsyncIterator[None]:
    """Serves `app` on a listening socket while the block runs, within the limits of `connections`."""
    # No access log: it would contain client addresses.
    options = uvicorn.Config(
        app,
        http=connections.protocol(),
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        date_header=False,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
        # asyncio accepts this many connections in a row. Without free descriptors, each of them fails with a
        # traceback in the log and its own retry. With 1, there is one traceback and one retry per second.
        backlog=1,
    )
    server = _Server(options)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started and not task.done():  # noqa: ASYNC110  # uvicorn has no event to wait for
        await asyncio.sleep(READY_POLL_SECONDS)
    sock.listen(BACKLOG)  # the real backlog
    try:
        yield
    finally:
        server.should_exit = True
        _, pending = await asyncio.wait([task], timeout=LINGER_SECONDS)
        if pending:
            connections.abort_closing()
        await task


class Listener:
    """Serves an application on a TCP socket, which a reload may replace.

    `app` makes the application when there is a socket for the first time.
    """

    def __init__(self, app: Callable[[], Any], sock: HttpSocket, connections: Connections) -> None:
        self.endpoint = sock.endpoint
        self._make, self._socket, self._connections = app, sock, connections
        self._app: Any = None
        self._running = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Listener":
        await self.move(self._socket)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._running.aclose()
        self._socket.close()

    async def move(self, new: HttpSocket) -> None:
        """Serves on this socket, then stops serving on the previous one."""
        stack = contextlib.AsyncExitStack()
        if new.sock is not None:
            self._app = self._app or self._make()
            await stack.enter_async_context(serve(self._app, new.sock, self._connections))
        before, self._running = self._running, stack
        left, self._socket = self._socket, new
        self.endpoint = new.endpoint
        await before.aclose()
        if left is not new:
            left.close()


def bind_listeners(
    config: Config,
    apps: Mapping[str, Callable[[], Any]],
    connections: Mapping[str, Connections],
    resources: contextlib.ExitStack,
) -> dict[str, Listener]:
    """Binds the sockets of the applications, by option. Raises `Refused`; `resources` closes them then."""
    found: dict[str, Listener] = {}
    for option, app in apps.items():
        bound = HttpSocket.bind(config, option)
        resources.callback(bound.close)
        found[option] = Listener(app, bound, connections[option])
    return found


@contextlib.contextmanager
def bind_control(path: Path) -> Iterator[socket.socket]:
    """Listens on the control socket, for owner and group only; removes it at the end. Raises `Refused`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_way(path)
        # Set the permissions at creation: with a later chmod, others could connect in between.
        umask = os.umask(0o117)
        try:
            sock.bind(str(path))
        finally:
            os.umask(umask)
        sock.listen(BACKLOG)
    except OSError as err:
        sock.close()
        reason = f"{err.strerror}: create its folder, let dnsblock write there, or change `control`"
        raise Refused([Problem(str(path), None, "", reason)]) from err
    try:
        yield sock
    finally:
        sock.close()
        with contextlib.suppress(
            FileNotFoundError, PermissionError
        ):  # the folder belongs to root, and we have dropped privileges
            path.unlink()


def _make_way(path: Path) -> None:
    """Removes the socket of a killed daemon. Raises `Refused` if a daemon is listening on it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.settimeout(1)
        try:
            other.connect(str(path))
        except ConnectionRefusedError:
            # Connecting to another kind of file fails as well; never remove such a file.
            if not stat.S_ISSOCK(path.lstat().st_mode):
                reason = "a file with this name exists and is not a socket: change `control`"
                raise Refused([Problem(str(path), None, "", reason)]) from None
            path.unlink()
        except FileNotFoundError:
            return
        else:
            reason = "another dnsblock is listening on this control socket: stop it, or change `control`"
            raise Refused([Problem(str(path), None, "", reason)])
