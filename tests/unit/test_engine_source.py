"""Rules for the engine's source: where `unsafe` and pyo3 are, a pure decision, layers, short files."""

import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "engine" / "src"
FILES = {str(path.relative_to(SOURCE)): path.read_text() for path in SOURCE.rglob("*.rs")}
PURE = ("answer.rs", "targets.rs", "message.rs", "message/writer.rs", "message/soa.rs", "relay.rs")

# A module imports from its own line and from the lines below it, never from one above. A folder is
# one module with the file of the same name.
LAYERS = [
    {"python"},
    {"engine"},
    {"worker"},
    {"shared"},
    {"upstream", "impact", "export"},
    {"answer"},
    {"rules", "targets", "failures", "counters"},
    {"cache", "dnstap", "suffixes", "local", "notify", "outcome"},
    {"chain", "relay"},
    {"response"},
    {"list", "transfer", "transport"},
    {"query_counts"},
    {"policy", "limits", "nat64", "message"},
    {"name", "prefix", "cookie", "digests", "events", "sealed", "sys", "tsig", "way"},
]
LONGEST_FILE = 600
LONGEST_FUNCTION = 60


def code(text: str) -> str:
    """The source without comments, where words mean nothing."""
    return re.sub(r"//.*", "", text)


def files_with(pattern: str) -> set[str]:
    return {name for name, text in FILES.items() if re.search(pattern, code(text))}


def test_unsafe_is_in_one_file_and_each_block_is_justified():
    """Held by the compiler's `unsafe_code = "deny"` too; this names the file."""
    assert files_with(r"\bunsafe\b") == {"sys.rs"}
    lines = FILES["sys.rs"].splitlines()
    for number, line in enumerate(lines):
        if re.search(r"\bunsafe\b", code(line)):
            above = "\n".join(lines[max(0, number - 4) : number + 1])
            assert "SAFETY" in above, f"sys.rs:{number + 1}: an unsafe block without its reason"


def test_pyo3_is_in_one_place():
    """The core builds and tests without Python: `cargo test` has no feature of that name."""
    bindings = {name for name in FILES if name == "python.rs" or name.startswith("python/")}
    assert files_with(r"\bpyo3\b|\bPython\b|\bPyErr\b") == bindings


def test_decide_uses_no_socket_clock_or_log():
    """Bytes, client address and snapshot in, verdict out."""
    impure = (
        r"UdpSocket|TcpStream|Instant|SystemTime|println|eprintln|std::fs|\bVec<|\bBox<|\bString\b|format!"
    )
    own = {name: code(FILES[name]).split("#[cfg(test)]")[0] for name in PURE}
    found = {name: re.findall(impure, text) for name, text in own.items()}
    assert found == {name: [] for name in PURE}


Module = tuple[str, ...]
MODULES: dict[Module, str] = {
    Path(name).with_suffix("").parts: text for name, text in FILES.items() if name != "lib.rs"
}


def without_tests(text: str) -> str:
    """Tests may use what they like."""
    return code(re.split(r"#\[cfg\(test\)\]\n(?:pub(?:\([a-z]+\))? )?mod ", text)[0])


def leaves(tree: str) -> list[str]:
    """The paths of a `use` tree: of `a::{b, c::d}` both `a::b` and `a::c::d`."""
    start = tree.find("{")
    if start < 0:
        return [tree]
    depth, parts = 0, [""]
    for character in tree[start:]:
        if character == "," and depth == 1:
            parts.append("")
            continue
        depth -= character == "}"
        parts[-1] += character if depth > 0 else ""
        depth += character == "{"
    # The braces themselves stand at depth 0, outside of every part.
    return [tree[:start] + leaf for part in parts if part for leaf in leaves(part)]


def paths(module: Module, text: str) -> Iterator[Module]:
    """All paths in a module's code, in `use` and elsewhere, from the root of the crate."""
    source = without_tests(text)
    used = re.findall(r"\buse\s+([^;]+);", source)
    found = [leaf for tree in used for leaf in leaves(re.sub(r"\s+as\s+\w+|\s+", "", tree))]
    found += re.findall(r"\b[a-z_0-9]+(?:::\w+)+", re.sub(r"\buse\s+[^;]+;", "", source))
    for path in found:
        head, *rest = path.split("::")
        base = module
        if head == "crate":
            yield tuple(rest)
        elif head == "super":
            while head == "super":
                base, (head, *rest) = base[:-1], rest
            yield (*base, head, *rest)
        elif (*module, head) in MODULES:
            yield (*module, head, *rest)


def imports(module: Module, text: str, modules: dict[Module, str]) -> set[Module]:
    """The other modules whose items these paths name."""
    found = set()
    for path in paths(module, text):
        ends = [path[:length] for length in range(1, len(path) + 1) if path[:length] in modules]
        found |= set(ends[-1:]) - {module}
    return found


def is_family(one: Module, other: Module) -> bool:
    """A module and what it contains know each other: a child extends the types of its parent."""
    return one == other[: len(one)] or other == one[: len(other)]


def layer(module: Module) -> int | None:
    return next((depth for depth, names in enumerate(LAYERS) if module[0] in names), None)


def breaches(modules: dict[Module, str]) -> list[str]:
    """Imports of modules that stand above the one that imports them."""
    return [
        f"{'/'.join(module)}.rs imports {'::'.join(other)}, which is above it"
        for module, text in modules.items()
        for other in sorted(imports(module, text, MODULES | modules))
        if (own := layer(module)) is not None and (there := layer(other)) is not None and there < own
    ]


def cycle(modules: dict[Module, str]) -> list[Module]:
    """One cycle among files, and among folders; empty where there is none."""
    files = {module: imports(module, text, modules) for module, text in modules.items()}
    beside = {module: {o for o in others if not is_family(module, o)} for module, others in files.items()}
    folders: dict[Module, set[Module]] = {}
    for module, others in files.items():
        folders.setdefault(module[:1], set()).update(other[:1] for other in others if other[0] != module[0])
    for graph in (folders, beside):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            return list(error.args[1])
    return []


def test_no_engine_module_imports_from_a_layer_above_it():
    """The order of layers, from the Python bindings down to system calls."""
    assert breaches(MODULES) == []


def test_every_engine_module_has_a_layer():
    """A new module is put into a layer by a person, not by accident."""
    assert {module[0] for module in MODULES} == set().union(*LAYERS)


def test_engine_modules_form_no_import_cycle():
    """No cycle among folders, and none among files, except between a parent and its own children."""
    assert cycle(MODULES) == []


def test_an_import_cycle_or_a_breach_of_layers_would_be_found():
    """The search itself: `use` trees, `super`, paths in code, tests left out."""
    assert breaches({("name",): "use crate::{message::{Query, rtype}, prefix::Prefix};"})
    assert breaches({("policy", "names"): "fn f() { crate::answer::decide() }"})
    assert not breaches({("answer",): "use crate::name::Name;"})
    assert not breaches({("name",): "#[cfg(test)]\nmod tests {\n    use crate::answer::decide;\n}"})
    assert cycle({("a",): "use crate::b::B;", ("b",): "use crate::a::A;"})
    assert cycle({("a",): "", ("a", "x"): "use super::y::Y;", ("a", "y"): "use super::x::X;"})
    assert cycle({("a",): "", ("a", "x"): "use crate::b::B;", ("b",): "use crate::a::A;"})
    assert not cycle({("a",): "use x::X;", ("a", "x"): "use super::A;"})


def test_no_engine_file_and_no_function_is_long():
    """A file that needs a table of contents is two; a function fits on a screen."""
    long_files = {name: text.count("\n") for name, text in FILES.items() if text.count("\n") > LONGEST_FILE}
    function = re.compile(r"^( *)(?:pub(?:\([a-z]+\))? )?(?:unsafe |const |extern \"C\" )*fn (\w+)", re.M)
    long_functions = {}
    for name, text in FILES.items():
        for match in function.finditer(text):
            end = text.find(f"\n{match[1]}}}\n", match.start())
            lines = text.count("\n", match.start(), end + 1) + 1
            if lines > LONGEST_FUNCTION:
                long_functions[f"{name}: {match[2]}"] = lines
    assert (long_files, long_functions) == ({}, {})
