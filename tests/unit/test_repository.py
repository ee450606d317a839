"""Repository files: what they call, name and pin exists, and is the same everywhere."""

import re
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from dnsblock.http.server import bind_control

ROOT = Path(__file__).parents[2]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def toml(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / name).read_text())


def yaml_of(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def recipe(target: str) -> list[str]:
    """The commands that `make TARGET` runs, those of its prerequisites included."""
    command = ["make", "--no-print-directory", "--dry-run", "--always-make", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


# ------- Toolchain


def test_image_and_workflow_use_the_same_compiler_and_it_is_new_enough():
    """A release is built with the compiler that ran its tests."""
    files = (ROOT / "Dockerfile", ROOT / ".github/workflows/ci.yaml")
    images = [version for file in files for version in re.findall(r"rust:([\d.]+)-", file.read_text())]
    assert len(images) == 2
    assert images[0] == images[1]
    oldest = toml("engine/Cargo.toml")["package"]["rust-version"]
    assert [int(part) for part in images[0].split(".")] >= [int(part) for part in oldest.split(".")][:2]


def test_the_toolchain_is_stable():
    """Nothing of the engine needs nightly; cargo-fuzz sets RUSTC_BOOTSTRAP itself."""
    assert toml("rust-toolchain.toml")["toolchain"]["channel"] == "stable"


def test_the_toolchain_has_the_components_that_the_checks_call():
    """`make check` needs rustfmt and clippy."""
    components = toml("rust-toolchain.toml")["toolchain"]["components"]
    assert set(components) == {"clippy", "rustfmt"}


def test_the_formatters_and_the_editor_agree_about_the_length_of_a_line():
    """Otherwise an editor undoes what a formatter does."""
    configured = (ROOT / ".editorconfig").read_text()
    python = re.search(r"^\[\*\.\{py,pyi\}\]\nmax_line_length = (\d+)$", configured, re.MULTILINE)[1]
    assert int(python) == toml("pyproject.toml")["tool"]["ruff"]["line-length"]


# ------- CI, pre-commit


def test_the_workflow_calls_what_a_contributor_calls():
    """One definition of what must pass: .ci/run."""
    job = yaml_of(".github/workflows/ci.yaml")["jobs"]["run"]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == [".ci/run"]
    assert (ROOT / ".ci/run").stat().st_mode & stat.S_IXUSR


def test_ci_runs_the_tests_and_the_fuzzer():
    """A workflow that runs less than .ci/run would pass changes that fail there."""
    called = re.findall(r"^ *make ([a-z-]+)", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert {"test", "fuzz"} <= set(called) <= TARGETS


def test_the_hooks_before_a_commit_run_all_of_make_check_and_nothing_else():
    """A commit that passes the hooks passes `make check`."""
    hooks = [hook for repo in yaml_of(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    called = [hook["entry"].split()[-1] for hook in hooks]
    assert set(called) <= TARGETS
    assert sorted({line for target in called for line in recipe(target)}) == sorted(set(recipe("check")))


@pytest.mark.parametrize(
    ("path", "hooks"),
    [
        ("dnsblock/daemon.py", ["check-python"]),
        ("dnsblock/_engine.pyi", ["check-python"]),
        ("engine/src/answer.rs", ["check-rust"]),
        ("engine/src/python.rs", ["check-python", "check-rust"]),
        ("engine/Cargo.lock", ["check-rust"]),
        ("constraints.txt", ["check-python"]),
        ("README.md", []),
    ],
)
def test_a_commit_runs_the_checks_of_what_it_changes(path: str, hooks: list[str]):
    """A hook with the wrong file pattern never runs."""
    assert (ROOT / path).exists()
    configured = [hook for repo in yaml_of(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert [hook["id"] for hook in configured if re.search(hook["files"], path)] == hooks


@pytest.mark.parametrize("form", sorted((ROOT / ".github").rglob("*.y*ml")), ids=lambda form: form.name)
def test_every_file_for_the_platform_is_yaml(form: Path):
    """A syntax error in a workflow is noticed only after a push."""
    assert yaml.safe_load(form.read_text())


# ------- Release


def test_the_version_is_the_same_everywhere():
    """The wheel, the crate and the changelog name one version."""
    version = toml("pyproject.toml")["project"]["version"]
    assert toml("engine/Cargo.toml")["package"]["version"] == version
    for lock in ("engine/Cargo.lock", "engine/fuzz/Cargo.lock"):
        packages = {package["name"]: package["version"] for package in toml(lock)["package"]}
        assert packages["dnsblock-engine"] == version
    assert re.search(r"^## (\S+) \(", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", "SECURITY.md", "docs/threat-model.md"])
def test_no_page_names_an_unknown_make_target_or_file(page: str):
    """A newcomer follows these pages word by word."""
    text = (ROOT / page).read_text()
    assert set(re.findall(r"\bmake\s+([a-z][a-z-]+)(?=[\s`])", code_of(text))) <= TARGETS
    for file in re.findall(r"`((?:\.ci|config|dnsblock|docs|engine|tests)/[\w./-]+)`", text):
        assert (ROOT / file).exists(), file


def code_of(text: str) -> str:
    """The text in backquotes and in code blocks."""
    return "\n".join(re.findall(r"^```.*?^```|`[^`]+`", text, re.MULTILINE | re.DOTALL))


# ------- Guarantees


def linked_tests() -> list[tuple[str, Path]]:
    """Every test that the threat model and the README link to."""
    found = []
    for page in (ROOT / "docs/threat-model.md", ROOT / "README.md"):
        for name, target in re.findall(r"\[`(\w+)`\]\(([^)\s]+\.(?:py|rs))\)", page.read_text()):
            found.append((name, (page.parent / target).resolve()))
    return found


@pytest.mark.parametrize(("name", "file"), linked_tests())
def test_every_guarantee_links_to_a_test_that_exists(name: str, file: Path):
    """A renamed test must not leave a guarantee that nothing holds."""
    assert re.search(rf"^ *(?:def|fn) {name}\(", file.read_text(), re.MULTILINE), file


def test_every_guarantee_of_the_threat_model_has_a_test():
    """A guarantee without a test is a claim."""
    text = (ROOT / "docs/threat-model.md").read_text()
    part = text.split("\n## Guarantees\n")[1].split("\n## ")[0]
    guarantees = re.split(r"^\* ", re.sub(r"^#+ .*$", "", part, flags=re.MULTILINE), flags=re.MULTILINE)[1:]
    assert len(guarantees) >= 30
    for guarantee in guarantees:
        assert re.search(r"\[`\w+`\]\(\.\./[^)]+\.(py|rs)\)", guarantee), guarantee


def test_only_owner_and_group_may_use_the_control_socket(tmp_path: Path):
    """A process that can open the socket can change which names are blocked."""
    path = tmp_path / "control.sock"
    with bind_control(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
