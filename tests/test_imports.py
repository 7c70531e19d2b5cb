"""The direction of imports, and a quick, quiet `import cnf`."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cnf"

# A room may import from lower floors, and from itself; rooms on one floor do not see each other.
FLOORS = (
    {"card", "files", "functional", "rows", "deprecation", "precision", "registry", "version"},
    {"plugins", "inputs"},
    {"ode", "fields", "datasets", "plotting"},
    {"transforms"},
    {"flows"},
    {"tables"},
    {"training"},
    {"recipe"},
    {"neural_ode", "variational", "integrations", "diagnostics", "scale", "export"},
    {"pictures"},
    {"report", "estimator"},
    {"cli"},
    {"__main__"},
)
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
# The front page and the commands import late, so that `cnf --help` answers at once.
COMMANDS = ("fitting_commands.py", "using_commands.py", "viewing_commands.py")
LAZY = {PACKAGE / "__init__.py", *(PACKAGE / "cli" / name for name in COMMANDS)}


def room_of(module: str) -> str:
    return module.split(".")[1]


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(node: ast.AST, importer: str) -> list[str]:
    """The modules of this package that an import statement names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{importer}: relative imports hide the direction"
        base = node.module or ""
        names = [f"{base}.{alias.name}" for alias in node.names] if base == "cnf" else [base]
    else:
        return []
    return [name for name in names if name.split(".")[0] == "cnf"]


@cache
def edges() -> set[tuple[str, str]]:
    found = set()
    for path in modules():
        name = name_of(path)
        for node in ast.walk(ast.parse(path.read_text())):
            found |= {(name, target) for target in imported(node, name)}
    return found


def test_every_room_has_a_floor():
    rooms = {
        p.stem if p.is_file() else p.name for p in PACKAGE.iterdir() if not p.name.startswith("__")
    }
    assert rooms - {"py.typed", "py", "__init__"} <= HEIGHT.keys()


def test_imports_point_downwards():
    upward = [
        f"{importer} -> {target}"
        for importer, target in edges()
        if importer != "cnf"
        and "." in target
        and room_of(importer) != room_of(target)
        and HEIGHT[room_of(importer)] <= HEIGHT[room_of(target)]
    ]
    assert not upward


def test_no_module_imports_the_front_page():
    assert not [importer for importer, target in edges() if target == "cnf" and importer != "cnf"]


def test_no_cycles_inside_a_room():
    graph: dict[str, set[str]] = {}
    names = {name_of(path) for path in modules()}
    for importer, target in edges():
        if importer != "cnf" and target in names:
            graph.setdefault(importer, set()).add(target)

    sound: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        for target in graph.get(name, set()) - sound:
            visit(target, (*path, name))
        sound.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_no_import_hides_in_a_function(path):
    if path in LAZY:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            hidden = [
                n.lineno for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)
            ]
            assert not hidden, f"{path.name}:{hidden}"


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    ).stdout


def test_importing_is_quiet_and_light():
    heavy = "matplotlib", "sklearn", "pandas", "typer"
    code = f"import sys, cnf; print([m for m in {heavy} if m in sys.modules])"
    assert python(code).strip() == "[]"


@pytest.mark.parametrize("command", [[], ["fit"], ["score"], ["plot"], ["info"]], ids=str)
def test_help_answers_without_torch(command):
    code = f"""
import sys, cnf.cli
assert cnf.cli.main({[*command, "--help"]}) == 0
print("torch" in sys.modules)
"""
    assert python(code).splitlines()[-1] == "False"


@pytest.mark.slow
def test_help_names_the_types_that_are_registered():
    code = """
import cnf.tables.columns, cnf.cli.fitting_commands
print(cnf.tables.columns.type_usage() == cnf.cli.fitting_commands.BUILT_IN_TYPES)
"""
    assert python(code).strip() == "True"


@pytest.mark.slow
def test_importing_changes_no_setting_of_torch():
    code = """
import warnings, torch, numpy
def settings():
    return (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
            torch.distributions.Distribution._validate_args, torch.initial_seed(),
            torch.are_deterministic_algorithms_enabled(), numpy.geterr(), list(warnings.filters))
torch.manual_seed(7)
import torchdiffeq
before = settings()
import cnf
cnf.CNF, cnf.fit
print(before == settings())
"""
    assert python(code).strip() == "True"
