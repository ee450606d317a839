"""The Tab key completes commands, options and values in real shells, with the scripts of `make completion`.

A completion takes half a second at most, and offers nothing after that. So these tests try again where the
machine was too slow for it.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .dialogs import terminal
from .harness import ISSUER, ORDERS_ZONE, Subject
from .lists import list_zone
from .orders import block
from .tools import dnsblock, run, tool, wait_for

ROOT = Path(__file__).parents[2]
ORDERS = ["17/BLOCK/2026", "18/BLOCK/2026", "18/B $(touch harm)"]
SCRIPTS = {"bash": "dnsblock", "zsh": "_dnsblock", "fish": "dnsblock.fish"}
START = {
    "bash": ["--norc", "--noprofile", "-i"],
    "zsh": ["-f", "-i"],
}
PREPARE = {
    "bash": "bind 'set enable-bracketed-paste off'; source {script}",
    "zsh": "bindkey -e; unset zle_bracketed_paste; setopt no_prompt_sp interactive_comments; "
    "autoload -Uz compinit; compinit -D -u; source {script}",
}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the scripts, as a package gets them."""
    folder = tmp_path_factory.mktemp("completion")
    made = run(["make", "--no-print-directory", "completion", f"COMPLETION={folder}"], cwd=ROOT, timeout=600)
    assert (made.returncode, made.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def running(shared_subject: Subject) -> Subject:
    """A daemon with three orders, one of them with a number that a shell would run, and a list."""
    shared_subject.start(
        zones=[ORDERS_ZONE, list_zone(name="national")],
        orders=[block(number, [f"order{n}.example"]) for n, number in enumerate(ORDERS)],
        lists={"list.txt": ["listed.example"]},
    )
    return shared_subject


def environment(config: Path) -> dict[str, str]:
    """The variables of the shells. Their home folder is that of the configuration: fish writes to it."""
    path = f"{Path(dnsblock()).parent}:{os.environ['PATH']}"
    return {"PATH": path, "DNSBLOCK_CONFIG": str(config), "HOME": str(config.parent)}


def completed(shell: str, scripts: Path, config: Path, line: str) -> set[str]:
    """The values that a shell offers at the end of a line."""
    script = scripts / SCRIPTS[shell]
    if shell == "fish":
        commands = f"source {script}; complete --do-complete '{line}'"
        command = [tool("fish"), "--no-config", "-c", commands]
    else:
        words = [f"'{word}'" for word in line.split(" ")]
        commands = (
            f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
            '_dnsblock_completion dnsblock; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        command = [tool("bash"), "--norc", "--noprofile", "-c", commands]
    done = run(command, env={**os.environ, **environment(config)}, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return {value.split("\t")[0] for value in done.stdout.splitlines() if value}


@pytest.mark.parametrize("shell", ["bash", "fish"])
@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("dnsblock sta", {"status"}),
        ("dnsblock order s", {"sign", "submit", "show"}),
        ("dnsblock order submit --wait ", {"accepted", "enforced", "verified"}),
        ("dnsblock probe --format ", {"table", "json", "csv"}),
        ("dnsblock order show ", {"17/BLOCK/2026", "18/BLOCK/2026"}),
        ("dnsblock log show --order 18", {"18/BLOCK/2026"}),
        ("dnsblock order show --issuer ", {ISSUER}),
        ("dnsblock order show --issuer other.example ", set()),
        ("dnsblock export --zone ", {"ministry", "national"}),
        ("dnsblock source refresh ", {"national"}),
    ],
)
def test_commands_choices_orders_and_zones_are_completed(
    running: Subject, scripts: Path, shell: str, line: str, values: set[str]
):
    """docs/completion.md. A number that a shell would run as a command is not offered."""
    wait_for(lambda: completed(shell, scripts, running.config_path, line) == values, f"{values} for {line!r}")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("dnsblock ver\t", "dnsblock versions"),
        ("dnsblock order show 17\t", "dnsblock order show 17/BLOCK/2026"),
        ("dnsblock versions na\t", "dnsblock versions national"),
    ],
)
def test_the_tab_key_completes_a_line(running: Subject, scripts: Path, shell: str, typed: str, line: str):
    """At a terminal, which shows what the shell would run."""

    def shown() -> str:
        with terminal(
            running.folder, tool(shell), *START[shell], environment=environment(running.config_path)
        ) as asked:
            asked.answer(PREPARE[shell].format(script=scripts / SCRIPTS[shell]))
            asked.answer("echo ready''now")
            asked.expect("readynow")
            asked.answer(f"{typed}\x01echo is: ", "echo do''ne")  # Ctrl-A goes to the start of the line
            asked.expect("\nis: ")
            asked.expect("\ndone")
            return asked.shown.rpartition("\nis: ")[2].split("\n")[0].strip()

    wait_for(lambda: shown() == line, f"{line!r} for {typed!r}")


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Path]:
    """A configuration whose control socket accepts connections and never responds."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen(8)
        (tmp_path / "dnsblock.yaml").write_text("control: control.sock\n")
        yield tmp_path / "dnsblock.yaml"


@pytest.mark.parametrize("shell", ["bash", "fish"])
@pytest.mark.parametrize("file", ["", "control: none.sock\n", "zones: [", "zones: 5\n", None])
def test_without_a_daemon_nothing_is_offered_and_nothing_is_printed(
    tmp_path: Path, scripts: Path, shell: str, file: str | None
):
    """A person who presses Tab must not get a traceback into the line."""
    config = tmp_path / "dnsblock.yaml"
    if file is not None:
        config.write_text(file)
    assert completed(shell, scripts, config, "dnsblock order show ") == set()
    assert completed(shell, scripts, config, "dnsblock export --zone ") == set()
    assert "status" in completed(shell, scripts, config, "dnsblock sta")


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_daemon_that_does_not_respond_delays_nobody(hanging: Path, scripts: Path, shell: str):
    """Without the limit, Tab would block the terminal for half a minute."""
    assert completed(shell, scripts, hanging, "dnsblock order show ") == set()
