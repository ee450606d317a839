"""Keys on hardware tokens: ssh-keygen and ssh-agent are real, only the token is a program."""

import subprocess
import sys
from pathlib import Path

import pytest

from dnsblock.signatures.officer_key import Signing, read_key
from dnsblock.signatures.signing import add_signature

from .officers import DOCUMENT, agent, is_signed_by, order, refusal
from .ssh_keys import KINDS, Key, make_key, token_file

__all__ = ["agent", "order"]  # fixtures

TOKEN = r"""
/* A token for ssh-sk-helper (sk-api.h of OpenSSH). The key handle is the path of the program that signs. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct response { uint8_t flags; uint32_t counter; uint8_t *r; size_t r_len; uint8_t *s; size_t s_len; };

uint32_t sk_api_version(void) { return 0x000a0000; }
int sk_enroll(void) { return -1; }
int sk_load_resident_keys(void) { return -1; }

static size_t part(FILE *from, uint8_t **to)
{
    int length = 0;
    *to = calloc(1, 256);
    if (fscanf(from, "%d", &length) != 1) return 0;
    for (int i = 0; i < length; i++) { unsigned byte; fscanf(from, "%2x", &byte); (*to)[i] = byte; }
    return length;
}

int sk_sign(uint32_t alg, const uint8_t *data, size_t data_len, const char *application,
    const uint8_t *handle, size_t handle_len, uint8_t flags, const char *pin, void *options,
    struct response **out)
{
    char command[4096];
    int at = snprintf(command, sizeof command, "'%.*s' %d ", (int)handle_len, handle, flags & 1);
    for (size_t i = 0; i < data_len; i++)
        at += snprintf(command + at, sizeof command - at, "%02x", data[i]);
    FILE *from = popen(command, "r");
    struct response *made = calloc(1, sizeof *made);
    made->flags = flags & 1;
    made->counter = 7;
    made->r_len = part(from, &made->r);
    made->s_len = part(from, &made->s);
    while (fgetc(from) != EOF) {}
    *out = made;
    return pclose(from) == 0 ? 0 : -1;
}
"""
SIGNER = """#!{python}
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from unit.ssh_keys import token_signature
for number in token_signature({kind!r}, Path({key!r}), int(sys.argv[1]), bytes.fromhex(sys.argv[2])):
    print(len(number), number.hex())
"""


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that ssh-keygen and ssh-agent talk to instead of a USB device."""
    folder = tmp_path_factory.mktemp("provider")
    (folder / "token.c").write_text(TOKEN)
    library = folder / "token.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", library, folder / "token.c"], check=True)
    return library


def _token(folder: Path, kind: str, flags: int = 1) -> tuple[Path, Key]:
    """The key file of a token, and the token's program."""
    key = make_key(kind)
    key.store(folder / "inside-the-token")
    program = folder / "token-program"
    tests = str(Path(__file__).parents[1])
    program.write_text(
        SIGNER.format(python=sys.executable, tests=tests, kind=kind, key=str(folder / "inside-the-token"))
    )
    program.chmod(0o700)
    path = folder / "key"
    path.write_bytes(token_file(key, handle=str(program).encode(), flags=flags))
    path.chmod(0o600)
    path.with_name("key.pub").write_text(f"{key.public_line}\n")
    return path, key


TOKEN_KINDS = [kind for kind in KINDS if kind.startswith("sk-")]


@pytest.mark.parametrize("kind", TOKEN_KINDS)
def test_a_key_on_a_token_signs_by_ssh_keygen(
    order: Path, tmp_path: Path, provider: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    """The key file only names the key on the token; ssh-keygen asks for PIN and touch."""
    monkeypatch.setenv("SSH_SK_PROVIDER", str(provider))
    path, own = _token(tmp_path, kind)
    key = read_key(path)
    assert (key.signing, key.public_key.is_token) == (Signing.SSH_KEYGEN, True)
    add_signature(order, DOCUMENT, key)
    assert is_signed_by(order, own)


@pytest.mark.parametrize("kind", TOKEN_KINDS)
@pytest.mark.usefixtures("agent")
def test_a_key_on_a_token_signs_by_ssh_agent(order: Path, tmp_path: Path, provider: Path, kind: str):
    """As `ssh-add` of a key file of a token."""
    path, own = _token(tmp_path, kind)
    subprocess.run(["ssh-add", "-q", "-S", provider, path], check=True)
    key = read_key(path.with_name("key.pub"))
    assert (key.signing, key.public_key.is_token) == (Signing.AGENT, True)
    add_signature(order, DOCUMENT, key)
    assert is_signed_by(order, own)


def test_a_key_that_needs_no_touch_does_not_sign(
    order: Path, tmp_path: Path, provider: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its signature would not count anywhere: better to know it now."""
    monkeypatch.setenv("SSH_SK_PROVIDER", str(provider))
    path, _ = _token(tmp_path, TOKEN_KINDS[0], flags=0)
    assert "make a key without the option no-touch-required" in refusal(order, path)
