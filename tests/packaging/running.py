"""Runs the daemon for the tests of image, unit and examples."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).parent / "dnsblock"
# Free ports, and an upstream port that refuses connections immediately: tcpmux.
MINIMAL = 'listen: ["127.0.0.1:0"]\nmetrics: 127.0.0.1:0\nupstream: {servers: ["127.0.0.1:1"]}\n'


@contextmanager
def running(
    config: Path, *, program: Sequence[str | Path] = (PROGRAM,), **environment: str
) -> Iterator[dict[str, Any]]:
    """A daemon while the block runs. Yields its ready message, and its output after that as `output`.

    It is stopped as systemd does.
    """
    log = config.with_suffix(".log")
    with log.open("wb") as stderr:
        daemon = subprocess.Popen(
            [*program, "serve", "-c", config, "--json"],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=os.environ | environment,
        )
    with daemon:
        try:
            # Either one whole line or the end of the output.
            if not select.select([daemon.stdout], [], [], 120)[0]:
                pytest.fail(f"not ready in 120 seconds: {log.read_text()}")
            line = daemon.stdout.readline()
            assert line, f"refused to start: {log.read_text()}"
            yield json.loads(line) | {"output": daemon.stdout}
            daemon.terminate()
            assert daemon.wait(60) == 0
        finally:
            daemon.kill()
