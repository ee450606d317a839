"""The Telegram orders of 2017 with their true times, on three instances: the commands of docs/telegram.md."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from unit.https_server import Authority

from .harness import Subject, is_sinkholed
from .issuing import TOKENS, IssuersApi, by_token
from .orders import SHIPPED
from .test_walkthrough import squeezed
from .tools import dnsblock, run, tool, wait_for
from .upstreams import TELEGRAM, TELEGRAM_ADDRESSES, Unbound

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "telegram.md").read_text()
KOMINFO = "kominfo.go.id"
OFFICERS = ("budi", "sari")
PLACES = {"dns1": "ministry", "dns2": "court", "dns3": "old"}  # each instance, and the name of its token


VARYING = re.compile(
    r"probe-[0-9a-f]{10}|\b[\d.]+ m?s\b|SHA256:\S+|\brecord \d+: \S+|\b\d+ records\b"
)  # of one run, but for times of the day


def plain(text: str) -> list[str]:
    """The lines of an output, with one word for everything that differs between two runs."""
    return [VARYING.sub("N", line) for line in squeezed(text)]


class Case:
    """The ministry's folder, three instances, and the commands of the page."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder, self.instances, self.followed = folder, {}, []
        shutil.copytree(SHIPPED, folder / "orders")
        (folder / "isp.pem").write_bytes(authority.pem.read_bytes())
        (program,) = re.findall(r"^```python\n(.*?)^```", (DOCS / "ledger.md").read_text(), re.M | re.S)
        (folder / "verify_proof.py").write_text(program)
        for officer in OFFICERS:
            command = [tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", officer]
            assert run(command, cwd=folder).returncode == 0
            with self.signers.open("a") as file:
                file.write(f"{officer}@{KOMINFO} {(folder / f'{officer}.pub').read_text()}")

    @property
    def signers(self) -> Path:
        return self.folder / "kominfo.allowed_signers"

    def start(self, name: str, api: IssuersApi, upstream: str) -> None:
        """Starts an instance as the page configures it, and gives the ministry a token for it."""
        shutil.copy(self.signers, api.subject.folder)
        api.start(
            clients=[by_token(PLACES[name], issuers=[KOMINFO])],
            issuers=[{"id": KOMINFO, "keys": self.signers.name, "signatures": 2}],
            zones=[{"name": "kominfo", "issuer": KOMINFO, "answer": "sinkhole"}],
            ledger={"origin": f"{name}.isp.example/ledger"},
            upstreams=[upstream],
            probes={},
        )
        self.instances[name] = api
        with (self.folder / "tokens").open("a") as file:
            file.write(f"{api.url} {TOKENS[PLACES[name]]}\n")

    def addresses(self) -> dict[str, str]:
        """The addresses of the page, and those of the test."""
        found = {}
        for number, (name, api) in enumerate(self.instances.items(), start=1):
            found[f"https://{name}.isp.example:8443"] = api.url
            found[f"192.0.2.{number}:53"] = api.subject.ready["listening"][0]
        return found

    def run(self, place: str, script: str) -> str:
        """Runs commands of the page at a place; returns their output with the addresses of the page."""
        for shown, used in self.addresses().items():
            script = script.replace(shown, used)
        subject = self.instances[place].subject if place in self.instances else None
        environment = {
            **os.environ,
            "PATH": f"{Path(dnsblock()).parent}:{os.environ['PATH']}",
            "DNSBLOCK_CONFIG": "/nonexistent/dnsblock.yaml" if subject is None else str(subject.config_path),
            "LC_ALL": "C.UTF-8",
            "NO_PROXY": "*",
        }
        done = subprocess.run(
            ["sh", "-e"],
            input=script,
            cwd=self.folder if subject is None else subject.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, (script, done.stdout)
        printed = done.stdout
        for shown, used in self.addresses().items():
            printed = printed.replace(used, shown)
        return printed

    def follow(self, heading: str) -> None:
        """Runs the commands of a section. Each block of output has lines of the commands before it."""
        section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
        self.followed.append(heading)
        printed = ""
        for language, text in re.findall(r"^```(sh|text)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
            if language == "text":
                lines = {*plain(printed), "…"}
                missing = [line for line in plain(text) if line not in lines]
                assert missing == [], f"the page shows these lines, but this was printed:\n{printed}"
                continue
            place, script = re.match(r"# (?:on|at) (.*)\n((?s:.*))", text).groups()
            for one in PLACES if place == "each instance" else [place]:
                printed = self.run(one, script)
                if place == "each instance":
                    (self.folder / f"{one}.key").write_text(printed)

    def blocked(self, name: str) -> list[str]:
        """The names that an instance blocks over UDP and TCP. All others have their own addresses."""
        subject = self.instances[name].subject
        found = []
        for asked in TELEGRAM:
            replies = [subject.query(asked, transport=transport) for transport in ("udp", "tcp")]
            if all(is_sinkholed(reply) for reply in replies):
                found.append(asked)
            else:
                assert [reply.addresses for reply in replies] == [[TELEGRAM_ADDRESSES[asked]]] * 2
        return found


@pytest.fixture
def case(
    tmp_path: Path, authority: Authority, client_authority: Authority, unbound: Unbound
) -> Iterator[Case]:
    """Everything that the page presupposes: officers with keys, and three instances that know them."""
    (tmp_path / "ministry").mkdir()
    with ExitStack() as stack:
        case = Case(tmp_path / "ministry", authority)
        for name in PLACES:
            (tmp_path / name).mkdir()
            subject = stack.enter_context(closing(Subject(tmp_path / name)))
            case.start(name, IssuersApi(subject, authority, client_authority), unbound.address)
        yield case


def differs(case: Case, name: str) -> float:
    return case.instances[name].subject.metrics().total("dnsblock_statement_differs", issuer=KOMINFO)


def test_the_telegram_case(case: Case):
    """Two signatures, the push, proof, the unblock, the instance that missed it, and receipts."""
    names = list(TELEGRAM)
    case.follow("Before")
    case.follow("1. Check and sign")
    case.follow("2. Push")
    assert {name: case.blocked(name) for name in PLACES} == dict.fromkeys(PLACES, names)
    case.follow("3. Prove the block")
    case.follow("4. Lift the block")
    assert {name: case.blocked(name) for name in PLACES} == {"dns1": [], "dns2": [], "dns3": names}
    case.follow("5. Find the instance that missed it")
    wait_for(lambda: differs(case, "dns3") == 1, "the instance reports the missing order")
    assert [differs(case, name) for name in PLACES] == [0, 0, 1]
    case.follow("6. Complete the lifting")
    assert {name: case.blocked(name) for name in PLACES} == {name: [] for name in PLACES}
    wait_for(lambda: differs(case, "dns3") == 0, "the missing order has arrived")
    case.follow("7. Verify the receipts")
    case.follow("8. Law and knowledge")
    assert case.followed == re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
