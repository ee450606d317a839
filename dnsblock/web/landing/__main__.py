"""The program: `python -m dnsblock.web.landing SOCKET MEMORY LISTENER...`, all of them open descriptors.

The daemon starts it (`dnsblock/landing/process.py`). It ends when the other end of SOCKET is closed.
"""

import sys

from dnsblock.web.landing.confine import confine, give_way, without_capabilities

MAX_CONNECTIONS = 4096


def main(link_number: int, memory: int, *listening: int) -> None:
    """Serves until the daemon closes its end of the socket."""
    # Imported before the limits apply, and before another user may be unable to read them.
    import asyncio
    import json
    import os
    import socket

    from dnsblock.landing.counts import Counts
    from dnsblock.web.landing.questions import Questions
    from dnsblock.web.landing.server import Server
    from dnsblock.web.landing.site import Site

    link = socket.socket(fileno=link_number)
    link.setblocking(True)
    settings = link.recv(1 << 16)
    if not settings:
        return
    link.setblocking(False)
    counts = Counts(memory)
    sockets = [socket.socket(fileno=number) for number in listening]

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        questions = Questions(link, counts, lambda: os._exit(0))
        site = Site(json.loads(settings), questions)
        server = Server(site, questions, counts, confine(MAX_CONNECTIONS))
        loop.set_exception_handler(lambda _, context: server.failed(context.get("exception")))
        await server.serve(sockets)

    asyncio.run(serve())


if __name__ == "__main__":
    without_capabilities()
    give_way()
    main(*map(int, sys.argv[1:]))
