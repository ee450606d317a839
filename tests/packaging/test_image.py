"""The image and the installation: the Dockerfile does what the Makefile does, and what comes out of it runs.

No Docker is needed: the files that a build would be sent are copied to a folder, and the steps are run there.
"""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from building import is_sent, make
from running import MINIMAL, ROOT, running

pytestmark = pytest.mark.timeout(3600)  # the build takes minutes, and longer beside other tests
PREFIX = "/opt/dnsblock"  # in the image
# Commands that prepare the base image: packages, the user and its folders.
PREPARES = ("apt-get ", "rm -rf /var/lib/apt/lists/", "useradd ", "install -d ")


@dataclass(frozen=True)
class Step:
    """One instruction of the Dockerfile."""

    word: str
    rest: str
    stage: int


def steps() -> list[Step]:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    found: list[Step] = []
    stage = -1
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        stage += word == "FROM"
        if word:
            found.append(Step(word, " ".join(rest.split()), stage))
    return found


def make_steps() -> list[list[str]]:
    """The commands of RUN that build and install, in their order."""
    commands = [command for step in steps() if step.word == "RUN" for command in step.rest.split(" && ")]
    return [shlex.split(command) for command in commands if not command.startswith(PREPARES)]


def last(word: str) -> str:
    """The last value of this instruction in the final stage."""
    final = max(step.stage for step in steps())
    return next(s.rest for s in reversed(steps()) if s.stage == final and s.word == word)


@pytest.fixture(scope="module")
def installed(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of /opt/dnsblock, made by the steps of the Dockerfile."""
    prefix = tmp_path_factory.mktemp("image") / "dnsblock"
    for command in make_steps():
        done = make(context, *(word.replace(PREFIX, str(prefix)) for word in command[1:]))
        assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
    return prefix


def run(installed: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs the installed program in a folder outside of the checkout."""
    command = [str(installed / "bin" / "dnsblock"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


# ------- The tests


def test_every_step_that_builds_is_a_target_of_the_makefile():
    """The image's steps are those of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    built = [(command[0], command[1] in targets) for command in make_steps()]
    assert built == [("make", True), ("make", True)]
    assert [command[1] for command in make_steps()] == ["wheel", "install"]


def test_the_image_has_no_compiler():
    """An attacker cannot use a program that is not in the image."""
    assert [step.rest for step in steps() if step.word == "FROM"] == [
        "rust:1.95-slim-bookworm AS build",
        "debian:bookworm-slim",
    ]
    packages = [s.rest for s in steps() if s.stage == 1 and s.word == "RUN" and "apt-get install" in s.rest]
    assert len(packages) == 1
    names = packages[0].split("--no-install-recommends ")[1].split(" && ")[0].split()
    assert names == ["ca-certificates", "python3", "tzdata"]
    assert f"--from=build {PREFIX} {PREFIX}" in [step.rest for step in steps() if step.word == "COPY"]


def test_the_image_does_not_run_as_root():
    """The UID is that of the created user and of the writable folders."""
    user, _, group = last("USER").partition(":")
    assert user.isdigit()
    assert int(user) > 0
    assert group == user
    made = next(step.rest for step in steps() if step.word == "RUN" and "useradd" in step.rest)
    assert f"--uid {user} " in made
    for folder in (last("VOLUME"), "/run/dnsblock"):
        assert re.search(rf"install -d -o {user} -g {user} -m 07[05]0 {folder}\b", made), folder


def test_the_image_declares_ports_user_and_command():
    """Ports, user and command are in the metadata, so that orchestrators need no manual."""
    assert last("EXPOSE").split() == ["53/udp", "53/tcp", "9353/tcp"]
    assert (last("ENTRYPOINT"), last("CMD")) == ('["dnsblock"]', '["serve"]')
    assert f"PATH={PREFIX}/bin:$PATH" in last("ENV")


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("Makefile", True),
        ("dnsblock/http/api.py", True),
        ("dnsblock/orders/data/popular.txt", True),
        ("engine/src/lib.rs", True),
        ("config/isp.yaml", True),
        ("engine/target/release/lib_engine.so", False),
        ("dnsblock/_engine.abi3.so", False),
        ("dnsblock/http/__pycache__/api.cpython-311.pyc", False),
        (".git/config", False),
        (".venv/bin/python", False),
        ("tests/unit/test_docs.py", False),
        ("letter.pem", False),
    ],
)
def test_the_build_context_holds_only_what_the_build_needs(path: str, sent: bool):
    """`.dockerignore`: no state, keys or build folders in the context."""
    assert is_sent(path) is sent


def test_the_steps_of_the_image_produce_a_portable_program(installed: Path, tmp_path: Path):
    """The image's steps run; the program finds everything it needs at its prefix."""
    result = run(installed, "--version", cwd=tmp_path)
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert (result.returncode, result.stdout) == (0, f"dnsblock, version {version}\n")
    (tmp_path / "dnsblock.yaml").write_text(MINIMAL + "zones: [{name: own, list: own.txt, answer: nodata}]\n")
    (tmp_path / "own.txt").write_text("listed.example\n")
    checked = run(installed, "check", "-c", "dnsblock.yaml", cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    (tmp_path / "own.txt").write_text("not a name\n")
    checked = run(installed, "check", "-c", "dnsblock.yaml", cwd=tmp_path)
    assert checked.returncode == 1
    assert "own.txt:1: 'not a name'" in checked.stdout
    assert list(installed.rglob("dnsblock/orders/data/popular.txt")), "the list of popular names is missing"


def test_the_health_check_of_the_image_ignores_a_failed_reload(installed: Path, tmp_path: Path):
    """Docker runs the command with /bin/sh. After a failed reload, the daemon still enforces."""
    line = last("HEALTHCHECK").split(" CMD ")[1]
    config = tmp_path / "dnsblock.yaml"
    config.write_text(MINIMAL + "zones: [{name: own, list: own.txt, answer: nodata}]\n")
    (tmp_path / "own.txt").write_text("listed.example\n")
    path = f"{installed / 'bin'}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "DNSBLOCK_CONFIG": str(config)}

    def is_healthy() -> bool:
        done = subprocess.run(["/bin/sh", "-c", line], env=environment, capture_output=True, timeout=60)
        assert done.returncode in (0, 1)  # Docker allows no other exit codes
        return done.returncode == 0

    assert not is_healthy()
    with running(config, program=[installed / "bin" / "dnsblock"]):
        assert is_healthy()
        (tmp_path / "own.txt").write_text("not a name\n")
        assert run(installed, "reload", "-c", str(config), cwd=tmp_path).returncode == 4
        assert run(installed, "status", "-c", str(config), cwd=tmp_path).returncode == 1
        assert is_healthy()
        config.write_text("broken: [")
        assert is_healthy()
        config.write_text(MINIMAL)
    assert not is_healthy()


# ------- Without the image


def test_dnsblock_installs_from_wheels_without_internet_access(
    context: Path, installed: Path, tmp_path: Path
):
    """A copy of the folder `dist` is enough to install on a machine without a package index."""
    fetched = make(context, "offline")
    assert fetched.returncode == 0, fetched.stderr
    prefix = tmp_path / "offline"
    # No package index responds, and pip has no cached wheels.
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:1/", "PIP_NO_CACHE_DIR": "1"}
    done = make(context, "install", f"PREFIX={prefix}", "OFFLINE=1", **nowhere)
    assert done.returncode == 0, done.stderr
    result = run(prefix, "--version", cwd=tmp_path)
    assert result.stdout == run(installed, "--version", cwd=tmp_path).stdout
    (tmp_path / "dnsblock.yaml").write_text(MINIMAL)
    assert run(prefix, "check", "-c", "dnsblock.yaml", cwd=tmp_path).returncode == 0


def test_install_refuses_a_python_that_the_service_cannot_execute():
    """A Python below a home folder is refused before anything is created, with advice."""
    home = Path(tempfile.mkdtemp(prefix="home-"))  # closed to others
    place = Path(tempfile.mkdtemp(prefix="opt-"))
    place.chmod(0o755)
    try:
        subprocess.run(
            ["/usr/bin/python3", "-m", "venv", "--copies", "--without-pip", home / "python"], check=True
        )
        private = home / "python" / "bin" / "python3"
        refused = make(ROOT, "install", f"PREFIX={place / 'dnsblock'}", f"PYTHON={private}")
        assert refused.returncode != 0
        assert (
            f"{private.resolve()} cannot be executed by other users ({home} is closed to them)"
            in refused.stderr
        )
        assert "make install PYTHON=/usr/bin/python3" in refused.stderr
        assert list(place.iterdir()) == []
    finally:
        shutil.rmtree(home)
        shutil.rmtree(place)
