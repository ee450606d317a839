"""The layers of the design, and one place for each dependency: checked in the imports of every module."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "dnsblock"

# A module imports from its own line and from the lines below it, never from one above.
LAYERS = [
    {"start"},
    {"cli"},
    {"daemon"},
    {"http", "web"},
    {"actions", "advance", "verification", "checkpoints", "exports", "landing", "webhooks", "counting"},
    {"publishing"},
    {"ahead", "change", "inputs", "startup", "listeners"},
    {"reports"},
    {"policy"},
    {"orders", "lists", "probe", "rpz"},
    {"log", "notify", "process", "handover", "privileges", "access"},
    {"config_file"},
    {"config"},
    {"config_zones"},
    {
        "config_dnstap",
        "config_exports",
        "config_issuers",
        "config_landing",
        "config_ledger",
        "config_rpz",
        "config_webhooks",
    },
    {"values"},
    {"instances"},
    {"client"},
    {
        "names",
        "suffixes",
        "signatures",
        "tls",
        "control",
        "clock",
        "durable",
        "endpoints",
        "principal",
        "texts",
        "threads",
        "times",
        "https",
        "retries",
        "standard_webhooks",
    },
    {"document"},
    {"yaml_advice"},
    {"errors"},
]

# One door for each dependency: the only modules (or packages) that may import it.
DOORS = {
    "yaml": {"dnsblock.document"},
    "click": {"dnsblock.cli"},
    "prometheus_client": {
        "dnsblock.http.metrics",
        "dnsblock.http.dnstap_metrics",
        "dnsblock.http.count_metrics",
        "dnsblock.http.probe_metrics",
        "dnsblock.http.export_metrics",
        "dnsblock.http.listener_metrics",
        "dnsblock.http.transfer_metrics",
        "dnsblock.http.list_metrics",
        "dnsblock.http.order_metrics",
        "dnsblock.http.webhook_metrics",
    },
    # And the package itself, for its version. `names` uses nothing but the name parser.
    "dnsblock._engine": {
        "dnsblock.policy",
        "dnsblock.lists",
        "dnsblock.rpz",
        "dnsblock.orders.intake",
        "dnsblock.orders.reading",
        "dnsblock.orders.transparency.merkle",
        "dnsblock.actions",
        "dnsblock.advance",
        "dnsblock.counting",
        "dnsblock.publishing",
        "dnsblock.inputs",
        "dnsblock.listeners",
        "dnsblock.names",
        "dnsblock.privileges",
    },
    "publicsuffixlist": {"dnsblock.suffixes"},
    "cryptography": {"dnsblock.signatures"},
    "dnslib": {"dnsblock.probe"},
    "jinja2": {"dnsblock.web", "dnsblock.reports"},
    "markupsafe": {"dnsblock.web"},
    "httptools": {"dnsblock.web.landing"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}


def imported(importer: str, source: str) -> Iterator[str]:
    """Every module that is imported anywhere in the source; of `from a import b` both a and a.b.

    Imports under `if TYPE_CHECKING` count: a reader of the module has to know its types.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{importer}: imports are absolute"
            yield from (node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names))


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def layer(module: str) -> int | None:
    parts = module.split(".")
    if parts[0] != "dnsblock" or len(parts) == 1 or module == "dnsblock.__version__":
        return None
    return next((depth for depth, names in enumerate(LAYERS) if parts[1] in names), None)


def breaches(modules: dict[str, str]) -> list[str]:
    """The violations of the layers, and of the confined imports, in these modules."""
    found = []
    for importer, source in modules.items():
        for name in set(imported(importer, source)):
            own, other = layer(importer), layer(name)
            if own is not None and other is not None and other < own:
                found.append(f"{importer} imports {name}, which is above it")
            for dependency, doors in DOORS.items():
                if importer == "dnsblock" and name.startswith("dnsblock._engine"):
                    continue
                if is_within(name, dependency) and not any(is_within(importer, door) for door in doors):
                    found.append(f"{importer} imports {name}: its door is {', '.join(sorted(doors))}")
    return found


def test_no_module_imports_from_a_layer_above_it_or_past_a_door():
    """The design's layers, and one place for each dependency."""
    assert breaches(MODULES) == []


def cycles(modules: dict[str, str]) -> list[list[str]]:
    """Modules that import each other, directly or through others. A package and its modules are not one."""
    imports = {
        name: modules.keys() & set(imported(name, source)) - {name} for name, source in modules.items()
    }
    reached = {name: set(direct) for name, direct in imports.items()}
    for through in modules:
        for name in modules:
            if through in reached[name]:
                reached[name] |= reached[through]
    return sorted([name, *sorted(reached[name])] for name in modules if name in reached[name])


def test_no_modules_import_each_other():
    """A reader can begin at the bottom and never meets what was not read yet."""
    assert cycles({name: source for name, source in MODULES.items() if name != "dnsblock"}) == []
    assert cycles({"a": "import b", "b": "if TYPE_CHECKING:\n    from c import x", "c": "import a"})


def test_files_classes_and_functions_are_short_enough_to_read():
    """A file of 600 lines, a class of 300 or a function of 60 asks to be two."""
    too_long = [name for name, source in MODULES.items() if source.count("\n") > 600]
    for name, source in MODULES.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                most = 300 if isinstance(node, ast.ClassDef) else 60
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > most:
                    too_long.append(f"{name}.{node.name}: {lines} lines")
    assert too_long == []


def test_every_module_has_a_layer():
    """A new module is put into a layer by a person, not by accident."""
    homeless = [name for name in MODULES if layer(name) is None]
    assert homeless == ["dnsblock"]


def test_a_wrong_import_is_found():
    """The walk itself: functions, submodules and both forms of import."""
    assert breaches({"dnsblock.orders.state": "def f():\n    from dnsblock.policy.zones import x"})
    assert breaches({"dnsblock.names": "import dnsblock.config"})
    assert breaches({"dnsblock.errors": "from dnsblock import document"})
    assert breaches({"dnsblock.config": "from yaml import safe_load"})
    assert breaches({"dnsblock.http.api": "from dnsblock import _engine"})
    assert breaches({"dnsblock.http.api": "import prometheus_client.core"})
    assert breaches({"dnsblock.http.api": "if TYPE_CHECKING:\n    from dnsblock.daemon import Daemon"})
    assert not breaches({"dnsblock.policy.zones": "from dnsblock._engine import Snapshot"})
    assert not breaches({"dnsblock.inputs": "from dnsblock import __version__, _engine, config"})


def test_client_commands_import_no_slow_module():
    """A person waits for it, and a health check starts one every half a minute."""
    slow = {"asyncio", "cryptography", "httpx", "pydantic", "rich", "importlib.metadata"}
    script = f"import sys, dnsblock.cli; print(sorted({slow} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_sighup_is_blocked_before_other_modules_are_imported():
    """Until then it ends the process, and imports take most of a startup."""
    script = (
        "import sys; sys.argv[1:] = ['serve']; import dnsblock.start, signal; "
        "print(sorted(name for name in sys.modules if name.startswith('dnsblock'))); "
        "print(signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["['dnsblock', 'dnsblock.start']", "True"]
