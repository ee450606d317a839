"""Debian's Prometheus: it scrapes a daemon each second, and evaluates the alerts of the repository."""

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

from .asking import TIMEOUT
from .orders import as_yaml
from .tools import tool, wait_for


class Prometheus:
    """One Prometheus in a folder of its own, on a free port of the loopback address; close it."""

    def __init__(self, folder: Path, rules: Path, *targets: str) -> None:
        folder.mkdir()
        self._url = f"http://127.0.0.1:{free_port()}"
        config = folder / "prometheus.yml"
        scrape = {"job_name": "dnsblock", "static_configs": [{"targets": list(targets)}]}
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [scrape],
        }
        config.write_text(as_yaml(settings))
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self._url.removeprefix('http://')}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def wait_ready(self) -> None:
        """Waits until it has scraped a target."""
        wait_for(lambda: self._process.poll() is not None or self._is_ready(), "Prometheus has scraped")
        assert self._process.poll() is None, Path(self._log.name).read_text()

    def _is_ready(self) -> bool:
        try:
            urllib.request.urlopen(f"{self._url}/-/ready", timeout=TIMEOUT).close()
        except urllib.error.URLError:  # it does not listen yet, or it is starting
            return False
        return bool(self.query("up == 1"))

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression now; one that does not parse fails the test."""
        try:
            found = self._get("query", query=expression)
        except urllib.error.HTTPError as err:
            pytest.fail(f"{expression}: {json.load(err)['error']}")
        return [found] if found["resultType"] == "scalar" else found["result"]

    def rules(self) -> list[dict[str, Any]]:
        """All rules, with the result of their last evaluation."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, method: str, **parameters: str) -> Any:
        url = f"{self._url}/api/v1/{method}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            return json.load(response)["data"]
