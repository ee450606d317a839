"""The control socket and the commands that use it: whatever is asked, the answer is a result or a reason."""

import http.client
import json
import re
import socket
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .asking import TIMEOUT
from .harness import ORDERS_ZONE, Subject
from .lists import list_zone
from .orders import as_yaml, block, unblock
from .tools import dnsblock, run

ENDPOINTS = {
    ("GET", "/v1/status"): (),
    ("GET", "/v1/work"): (),
    ("GET", "/v1/why"): ("name", "at"),
    ("GET", "/v1/sources"): (),
    ("GET", "/v1/versions"): ("zone",),
    ("GET", "/v1/diff"): ("a", "b", "limit"),
    ("GET", "/v1/history"): ("name",),
    ("POST", "/v1/sources/{}/refresh"): (),
    ("POST", "/v1/sources/{}/accept"): ("sha256", "reason"),
    ("POST", "/v1/rollback"): ("serial", "reason"),
    ("POST", "/v1/cache/purge"): ("name", "below"),
    ("POST", "/v1/reload"): (),
    ("POST", "/v1/orders"): (),
    ("POST", "/v1/orders/annul"): ("issuer", "order_id", "reason"),
    ("POST", "/v1/log/accept-restore"): ("reason",),
    ("POST", "/v1/impact"): ("file", "seconds", "top", "match", "zone"),
    ("GET", "/v1/impact"): (),
    ("DELETE", "/v1/impact"): (),
}
TIMES = [
    *("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "0001-01-01", "9999-12-31T23:59:59"),
    *("2026-08-10", "2026-08-10T10:46:00Z", "1970-01-01T00:00:00Z", "2999-12-31T23:59:59+07:00"),
]
NUMBERS = [
    "0",
    "-1",
    "1",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775808",
    "9" * 20,
    "9" * 5000,
    "1e9",
    "\u0661",
    "",
    "x",
]
NAMES = [
    "blocked.example",
    "listed",
    "192.0.2.1",
    "::1",
    "a" * 64,
    "x." * 600,
    "..",
    "\0",
    "%",
    "*.a.example",
]
ORDERS = ["ministry.example", "B-1", "B-2"]
VALUES = st.one_of(st.sampled_from([*TIMES, *NUMBERS, *NAMES, *ORDERS]), st.text(max_size=30))
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
DOCUMENTS = st.sampled_from(
    [
        *(as_yaml(block("B-2", ["other.example"])).encode(), as_yaml(unblock("U-1", "B-1")).encode()),
        *(as_yaml(block("B-1", ["blocked.example"])).encode(), as_yaml(block("B-3", ["com"])).encode()),
        *(b"", b"- 1\n", b"\xff"),
    ]
) | st.binary(max_size=30)
BOUNDARY = "b"
FILE_NAMES = st.sampled_from(["a.yaml", "b.yaml", "a.json", "../a.yaml", "/", "\ud800", ""]) | st.text(
    max_size=9
)


@st.composite
def bodies_of_submit(draw: st.DrawFn) -> bytes:
    """Forms (RFC 7578) of `order submit` that are what they should be, or nearly."""
    body = b""
    for document in draw(st.lists(DOCUMENTS, max_size=3)):
        parts = [("document", draw(FILE_NAMES), document)]
        for name in ("signatures", "entries", "x"):
            if draw(st.integers(0, 3)) == 0:
                parts.insert(draw(st.integers(0, 1)), (name, name, draw(st.binary(max_size=20))))
        for name, file, data in parts:
            head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n\r\n'
            body += head.encode("utf-8", "surrogatepass") + data + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode() * draw(st.integers(0, 1))


BODIES = st.one_of(
    st.just(b""),
    bodies_of_submit(),
    JSON_VALUES.map(lambda value: json.dumps(value).encode() + b"\n"),
    st.binary(max_size=60),
    st.sampled_from(
        [b"[" * 100_000, b"--b\r\n" * 1000, b"--b\r\n" + b"X: y\r\n" * 5000, b"--b\r\n" + b"x" * 9000]
    ),
)


@pytest.fixture(scope="module")
def running(shared_subject: Subject) -> Subject:
    shared_subject.start(
        zones=[list_zone("listed.txt"), ORDERS_ZONE],
        orders=[block("B-1", ["blocked.example"])],
        lists={"listed.txt": ["listed.example"]},
        time_zone="Asia/Jakarta",
    )
    return shared_subject


class OverUnix(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("dnsblock", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(
    subject: Subject, method: str, path: str, parameters: dict[str, str], body: bytes = b""
) -> tuple[int, dict]:
    query = urlencode({key: value.encode("utf-8", "replace") for key, value in parameters.items()})
    with closing(OverUnix(Path(subject.ready["control"]))) as connection:
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        connection.request(method, f"{path}?{query}", body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


@settings(
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(sorted(ENDPOINTS)), st.data())
def test_no_endpoint_fails_whatever_its_parameters(running: Subject, endpoint: tuple[str, str], data):
    """A value out of range is refused with a reason: it is never a fault of the daemon. So is any body."""
    method, path = endpoint
    parameters = {
        name: data.draw(VALUES, label=name) for name in ENDPOINTS[endpoint] if data.draw(st.booleans())
    }
    # Whatever is valid is carried out: no second of counting, no way back to another list.
    parameters |= {"seconds": "0"} if "seconds" in ENDPOINTS[endpoint] else {}
    place = quote(data.draw(VALUES, label="zone").encode("utf-8", "replace"), safe="")
    body = data.draw(BODIES, label="body") if method == "POST" else b""
    status, answer = ask(running, method, path.format(place or "x"), parameters, body)
    assert status < 500, (status, answer)
    if status >= 400:
        assert answer["detail"], answer
        assert answer["type"].startswith("urn:dnsblock:problem:"), answer
        assert (answer["status"], bool(answer["code"])) == (status, True), answer


@pytest.mark.parametrize("at", TIMES)
def test_why_at_accepts_every_time_that_exists_in_utc(running: Subject, at: str):
    """A time that does not exist in UTC is a usage error; every other one gets an answer."""
    said = running.cli("why", "blocked.example", "--at", at, as_json=False)
    assert "Traceback" not in said.stderr
    assert "no daemon" not in said.stderr
    if at.endswith(("-23:59", "+23:59")):
        assert (said.code, "2017-08-10" in said.stderr) == (2, True), said
    elif at != "0001-01-01":
        assert said.code in (0, 1), said
    else:  # in the configured time zone, east of Greenwich, that is before the first year in UTC
        assert said.code == 4, said


@pytest.mark.parametrize("number", ["99999999999999999999", "4294967296", "-1", "1.5", "x", ""])
@pytest.mark.parametrize("command", [["diff", "1"], ["rollback", "--reason", "x"]])
def test_an_invalid_serial_is_a_usage_error(running: Subject, command: list[str], number: str):
    """Exit code 2 with a reason; not 3, which means that the daemon is unreachable."""
    said = running.cli(*command, number)
    assert said.code == 2, said
    assert "Traceback" not in said.stderr
    assert "control.sock" not in said.stderr


def test_help_shows_the_whole_summary_of_each_command():
    """A summary that ends in three dots is useless; every command has one sentence of its own."""
    for group in ([], ["source"], ["cache"], ["order"], ["log"]):
        shown = " ".join(run([dnsblock(), *group, "--help"]).stdout.split())
        assert "..." not in shown.replace("COMMAND [ARGS]...", "")
        names = re.findall(
            r"^  ([a-z-]+) ", run([dnsblock(), *group, "--help"]).stdout.partition("Commands:\n")[2], re.M
        )
        assert names
        for name in names:
            own = run([dnsblock(), *group, name, "--help"]).stdout
            summary = " ".join(own.split("\n\n")[1].split())
            assert summary in shown
