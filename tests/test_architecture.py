"""The floors of the house, read from the imports: they go down only, never sideways.

Imports inside functions and under TYPE_CHECKING count too: what is typed is known.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ambassador"

FLOORS = {
    "app": 8,
    "cli": 8,
    "control": 7,
    "proxy": 6,
    "roles": 6,
    "bench": 6,
    "upstream": 5,
    "discovery": 4,
    "http": 4,
    "config": 3,
    "net": 2,
    "identity": 2,
    "telemetry": 2,
    "policy": 1,
    "wire": 1,
    "core": 0,
}
PURE = ("policy", "wire")
UNIT_TESTED = ("core", *PURE)

# Nothing that waits, asks the world or speaks to it; time and chance are arguments.
IMPURE = {
    "asyncio",
    "concurrent",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "secrets",
    "select",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib.request",
}
IMPURE_CALLS = {"open", "print", "input", "breakpoint"}

# Library -> packages (or modules) that may import it.
ONLY_IN = {
    "socket": {"net"},
    "selectors": {"net"},
    "select": {"net"},
    "OpenSSL": {"identity", "net"},  # net: the connection that it drives, and its errors
    "cryptography": {"identity", "cli"},
    "prometheus_client": {"telemetry"},
    "structlog": {"telemetry"},
    "pydantic": {"config"},
    "pydantic_core": {"config"},
    "yaml": {"config"},
    "click": {"cli"},
    "rich": {"cli"},
    # The demo's intruder is somebody else's program, and must not profit from ours; httpx takes no other context.
    "ssl": {"cli.demo", "discovery.web"},
    "httpx": {"discovery", "roles"},
    "dns": {"discovery"},
    "uvloop": {"app", "cli"},
}
# Standard library, and these, are all that floors 0 and 1 may use.
ALLOWED_BELOW = {"core.record": {"msgspec"}, "core.model": {"msgspec"}}


@dataclass(frozen=True)
class Import:
    """One imported module: `ambassador.net.tasks` or `asyncio`."""

    module: str
    line: int


@dataclass(frozen=True)
class Source:
    """A module of ours; `name` is without the leading `ambassador.`."""

    path: Path
    name: str
    tree: ast.Module

    @property
    def top(self) -> str:
        """The package, or the module at the top."""
        return self.name.split(".", 1)[0]

    @property
    def imports(self) -> list[Import]:
        """All imports, wherever they stand."""
        return list(_imports(self.tree))

    def place(self, line: int) -> str:
        """Say where, so that an editor can go there."""
        return f"{self.path.relative_to(ROOT)}:{line}"


def _imports(tree: ast.Module) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            for alias in node.names:
                yield Import(f"{node.module}.{alias.name}", node.lineno)


@cache
def sources() -> tuple[Source, ...]:
    """Give every module of the package but `__init__` and `__main__` at the top."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts in {("__init__",), ("__main__",)}:
            continue
        name = ".".join(part for part in parts if part != "__init__")
        found.append(Source(path, name, ast.parse(path.read_text(encoding="utf-8"), str(path))))
    return tuple(found)


def _is(module: str, wanted: str) -> bool:
    return module == wanted or module.startswith(wanted + ".")


def _may_see(importer: str, imported: str) -> bool:
    if importer == imported:
        return True
    if importer == "cli" and imported == "app":
        return True  # the commands start it
    return FLOORS[imported] < FLOORS[importer]


def test_every_package_stands_on_a_floor() -> None:
    known = {source.top for source in sources()}

    assert known <= set(FLOORS)


def test_the_package_is_read() -> None:
    """A wrong path would make every other test here pass."""
    assert {"core.model", "config.model"} <= {source.name for source in sources()}


def test_imports_go_down_only_and_never_sideways() -> None:
    wrong = [
        f"{source.place(each.line)}: {source.top} imports {each.module}"
        for source in sources()
        for each in source.imports
        if each.module.startswith("ambassador.")
        and each.module.split(".")[1] in FLOORS
        and not _may_see(source.top, each.module.split(".")[1])
    ]

    assert not wrong, "\n".join(wrong)


def test_floor_one_is_pure() -> None:
    """Decisions and formats take time, chance and bytes as arguments (house §1, sans-I/O contract)."""
    wrong = []
    for source in sources():
        if source.top not in PURE:
            continue
        wrong += [
            f"{source.place(each.line)}: imports {each.module}"
            for each in source.imports
            if any(_is(each.module, impure) for impure in IMPURE)
        ]
        wrong += [f"{source.place(line)}: {what}" for line, what in _impure_uses(source.tree)]

    assert not wrong, "\n".join(wrong)


def _impure_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    # Without `import random` the name is an argument of that name, which is how chance should come in.
    chance = "random" if any(each.module == "random" for each in _imports(tree)) else None
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            yield node.lineno, "awaits"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in IMPURE_CALLS:
                yield node.lineno, f"calls {node.func.id}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == chance and node.attr != "Random":
                yield node.lineno, f"random.{node.attr}: take a Random as an argument"
        elif isinstance(node, ast.ImportFrom) and node.module == "random":
            for alias in node.names:
                if alias.name != "Random":
                    yield node.lineno, f"random.{alias.name}: take a Random as an argument"


def test_the_check_of_purity_sees_what_is_impure() -> None:
    tree = ast.parse(
        "import random\nfrom random import choice\nasync def f():\n    await x\n"
        "random.random()\nopen('x')\nr: random.Random\n"
    )

    found = sorted(_impure_uses(tree))

    assert [line for line, _ in found] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    wrong = [
        f"{source.place(each.line)}: imports {each.module}"
        for source in sources()
        for each in source.imports
        if _is(each.module, library)
        and not any(_is(source.name, allowed) for allowed in ONLY_IN[library])
    ]

    assert not wrong, "\n".join(wrong)


def test_the_lowest_floors_use_the_standard_library_only() -> None:
    import sys

    wrong = [
        f"{source.place(each.line)}: imports {each.module}"
        for source in sources()
        if source.top in UNIT_TESTED
        for each in source.imports
        if (top := each.module.split(".")[0]) not in sys.stdlib_module_names
        and top not in {"ambassador", *ALLOWED_BELOW.get(source.name, ())}
    ]

    assert not wrong, "\n".join(wrong)


def test_only_identity_builds_tls_contexts() -> None:
    """`net` drives connections on contexts that `identity.tls` made, and never makes its own."""
    wrong = [
        source.place(node.lineno)
        for source in sources()
        if source.top != "identity"
        for node in ast.walk(source.tree)
        if (isinstance(node, ast.Attribute) and node.attr == "Context" and _is_ssl(node.value))
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "OpenSSL.SSL"
            and any(alias.name == "Context" for alias in node.names)
        )
    ]

    assert not wrong, "\n".join(wrong)


def _is_ssl(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id == "SSL") or (
        isinstance(node, ast.Attribute) and node.attr == "SSL"
    )


def test_every_pure_module_has_its_unit_test() -> None:
    missing = []
    for source in sources():
        if source.top not in UNIT_TESTED or source.path.name == "__init__.py":
            continue
        *packages, module = source.name.split(".")
        test = Path("tests", "unit", *packages, f"test_{module}.py")
        if not (ROOT / test).exists():
            missing.append(str(test))

    assert not missing, "\n".join(missing)


def test_init_files_hold_no_logic() -> None:
    """Docstring, re-exports, `__all__` and `__version__` (house §8)."""
    wrong = []
    for path in sorted(PACKAGE.rglob("__init__.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if not docstring and not isinstance(node, ast.Import | ast.ImportFrom | ast.Assign):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")

    assert not wrong, "\n".join(wrong)


def test_modules_stay_short_enough_to_be_read() -> None:
    """400 lines is a question, 600 an answer (house §8)."""
    long = [
        f"{source.path.relative_to(ROOT)}: {lines} lines"
        for source in sources()
        if (lines := len(source.path.read_text(encoding="utf-8").splitlines())) > 600
    ]

    assert not long, "\n".join(long)


def test_a_function_over_60_lines_says_why() -> None:
    """Its first comment, before its first statement, is the reason (house §8)."""
    wrong = []
    for source in sources():
        text = source.path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > 60 and not _explained(node, text):
                wrong.append(f"{source.place(node.lineno)}: {node.name} has {length} lines")

    assert not wrong, "\n".join(wrong)


def _explained(node: ast.FunctionDef | ast.AsyncFunctionDef, text: list[str]) -> bool:
    has_docstring = ast.get_docstring(node) is not None
    first = node.body[1 if has_docstring and len(node.body) > 1 else 0]
    begin = node.body[0].end_lineno or node.lineno if has_docstring else node.lineno - 1
    return any("#" in line for line in text[begin : first.lineno - 1])
