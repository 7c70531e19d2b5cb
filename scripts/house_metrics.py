"""Size and structure of the source of `cnf`, compared with an installed zuko.

    python scripts/house_metrics.py                       # writes figures/house_metrics.json
    python scripts/house_metrics.py PATH [PATH ...]       # prints any other packages instead

All numbers come from the syntax trees, so that they are the same on every machine. A function is
measured from its first to its last line, including its docstring. The cyclomatic number is one plus
the number of branches, loops, handlers, assertions, comprehensions and Boolean operators in the
function's own body; nested functions are counted separately. The fraction of typed arguments excludes
starred ones. Odd numbers are literals other than 0, 1, 2, 3, ½ and −1.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import io
import json
import tokenize
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
PEERS = ("zuko",)
PLAIN_NUMBERS = (0, 1, 2, 3, 0.5, -1)
# The limits that the table counts functions beyond.
LONG_FUNCTION, MANY_BRANCHES, MANY_PARAMETERS, TOO_MANY_PARAMETERS = 50, 10, 7, 9

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function
LAYOUT = {
    *(tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENDMARKER, tokenize.COMMENT),
}


@dataclass
class Count:
    """What is counted over all files of a package."""

    file_lengths: list[int] = field(default_factory=list)
    line_lengths: list[int] = field(default_factory=list)
    function_lengths: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    parameters: list[int] = field(default_factory=list)
    code_lines: int = 0
    docstring_lines: int = 0
    comment_lines: int = 0
    arguments: int = 0
    typed_arguments: int = 0
    typed_returns: int = 0
    public_things: int = 0
    documented_things: int = 0
    public_names: int = 0
    classes: int = 0
    odd_numbers: int = 0


@dataclass(frozen=True)
class Spread:
    """Median, 95th percentile and maximum."""

    median: float
    most: float
    maximum: float

    @staticmethod
    def of(values: list[int]) -> Spread:
        """The spread of values; zeros where there are none."""
        if not values:
            return Spread(0.0, 0.0, 0.0)
        middle, most = np.percentile(values, (50, 95))
        return Spread(float(middle), round(float(most), 1), float(max(values)))

    def __str__(self) -> str:
        return " / ".join(f"{value:,.4g}" for value in (self.median, self.most, self.maximum))


@dataclass(frozen=True)
class Metrics:
    """The table of one package; shares are percentages."""

    files: int
    lines: int
    code_lines: int
    file_length: Spread
    function_length: Spread
    functions: int
    long_functions: int
    cyclomatic: Spread
    branching_functions: int
    functions_over_7_parameters: int
    functions_over_9_parameters: int
    most_parameters: int
    typed_arguments: float
    typed_returns: float
    documented: float
    docstring_share: float
    comment_share: float
    public_names: int
    classes: int
    odd_numbers_per_1000_lines: float
    line_length_mean: float
    line_length_most: float


def lines_of_docstrings(tree: ast.Module) -> set[int]:
    """The numbers of the lines that docstrings fill."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, Documented) and ast.get_docstring(node, clean=False) is not None:
            lines |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def lines_of_tokens(source: str) -> tuple[set[int], set[int]]:
    """The numbers of the lines with code, docstrings among it, and of those with a comment."""
    code, comments = set(), set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in LAYOUT:
            code |= set(range(token.start[0], token.end[0] + 1))
    return code, comments


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Everything inside a node that is not inside a function within it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function):
            yield child
            yield from own_nodes(child)


def branches_of(node: ast.AST) -> int:
    """What a node adds to the cyclomatic number of its function."""
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    plain = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler)
    return int(isinstance(node, (*plain, ast.Assert, ast.match_case)))


def parameters_of(function: Function) -> list[ast.arg]:
    """The parameters of a function but `self` and `cls`; those with stars count as one each."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return [each for each in named if each is not None and each.arg not in ("self", "cls")]


def is_public(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_")


def public_things(node: ast.Module | ast.ClassDef) -> Iterator[ast.ClassDef | Function]:
    """Public functions and classes, and the public methods of the latter."""
    for child in filter(is_public, node.body):
        yield child
        if isinstance(child, ast.ClassDef):
            yield from public_things(child)


def is_odd(node: ast.AST) -> bool:
    value = node.value if isinstance(node, ast.Constant) else None
    number = isinstance(value, int | float | complex) and not isinstance(value, bool)
    return number and value not in PLAIN_NUMBERS


def count_file(source: str, count: Count) -> None:
    """Add one file to the counts of its package."""
    tree, lines = ast.parse(source), source.splitlines()
    docstrings, (code, comments) = lines_of_docstrings(tree), lines_of_tokens(source)
    code -= docstrings
    count.file_lengths.append(len(lines))
    count.line_lengths += [len(line) for line in lines if line.strip()]
    count.code_lines += len(code)
    count.docstring_lines += len(docstrings)
    count.comment_lines += len(comments)
    count.public_names += sum(map(is_public, tree.body))
    things = list(public_things(tree))
    count.public_things += len(things)
    count.documented_things += sum(ast.get_docstring(thing) is not None for thing in things)
    for node in ast.walk(tree):
        count.classes += isinstance(node, ast.ClassDef)
        count.odd_numbers += is_odd(node)
        if isinstance(node, Function):
            count_function(node, count)


def count_function(function: Function, count: Count) -> None:
    parameters = parameters_of(function)
    count.function_lengths.append(function.end_lineno - function.lineno + 1)
    count.branches.append(1 + sum(map(branches_of, own_nodes(function))))
    count.parameters.append(len(parameters))
    starred = (function.args.vararg, function.args.kwarg)
    plain = [each for each in parameters if each not in starred]
    count.arguments += len(plain)
    count.typed_arguments += sum(each.annotation is not None for each in plain)
    count.typed_returns += function.returns is not None


def measure(folder: Path) -> Metrics:
    """The metrics of all Python files below a folder."""
    count = Count()
    for path in sorted(folder.rglob("*.py")):
        count_file(path.read_text(encoding="utf-8"), count)
    if not count.file_lengths:
        raise SystemExit(f"{folder}: expected a folder with Python files; found none")
    return summarize(count)


def summarize(count: Count) -> Metrics:
    """The table of a package from its counts."""
    lines = sum(count.file_lengths)
    functions = len(count.function_lengths)
    return Metrics(
        files=len(count.file_lengths),
        lines=lines,
        code_lines=count.code_lines,
        file_length=Spread.of(count.file_lengths),
        function_length=Spread.of(count.function_lengths),
        functions=functions,
        long_functions=sum(length > LONG_FUNCTION for length in count.function_lengths),
        cyclomatic=Spread.of(count.branches),
        branching_functions=sum(each > MANY_BRANCHES for each in count.branches),
        functions_over_7_parameters=sum(each > MANY_PARAMETERS for each in count.parameters),
        functions_over_9_parameters=sum(each > TOO_MANY_PARAMETERS for each in count.parameters),
        most_parameters=max(count.parameters, default=0),
        typed_arguments=percent(count.typed_arguments, count.arguments),
        typed_returns=percent(count.typed_returns, functions),
        documented=percent(count.documented_things, count.public_things),
        docstring_share=percent(count.docstring_lines, lines),
        comment_share=percent(count.comment_lines, lines),
        public_names=count.public_names,
        classes=count.classes,
        odd_numbers_per_1000_lines=round(1000 * count.odd_numbers / max(count.code_lines, 1), 1),
        line_length_mean=round(float(np.mean(count.line_lengths or [0])), 1),
        line_length_most=Spread.of(count.line_lengths).most,
    )


def percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 100.0


def rows_of(metrics: Metrics) -> dict[str, str]:
    """The table of one package as text, row by row."""
    m = metrics
    return {
        "files": f"{m.files:,}",
        "lines / code lines": f"{m.lines:,} / {m.code_lines:,}",
        "file length: median / 95 % / max": str(m.file_length),
        "function length: median / 95 % / max": str(m.function_length),
        "functions > 50 lines": f"{m.long_functions} of {m.functions:,}",
        "cyclomatic number: median / 95 % / max": str(m.cyclomatic),
        "cyclomatic number > 10": str(m.branching_functions),
        "parameters > 7, > 9 (max)": f"{m.functions_over_7_parameters}, "
        f"{m.functions_over_9_parameters} ({m.most_parameters})",
        "arguments / returns typed, %": f"{m.typed_arguments:g} / {m.typed_returns:g}",
        "public things with a docstring, %": f"{m.documented:g}",
        "docstrings, % of lines": f"{m.docstring_share:g}",
        "comments, % of lines": f"{m.comment_share:g}",
        "public top-level names": f"{m.public_names:,}",
        "classes": f"{m.classes:,}",
        "odd numbers per 1,000 code lines": f"{m.odd_numbers_per_1000_lines:g}",
        "line length: mean / 95 %": f"{m.line_length_mean:g} / {m.line_length_most:g}",
    }


def table(found: dict[str, Metrics]) -> str:
    """All packages side by side, as a Markdown table."""
    columns = [rows_of(metrics) for metrics in found.values()]
    lines = [f"| | {' | '.join(found)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {row} | {' | '.join(each[row] for each in columns)} |" for row in columns[0]]
    return "\n".join(lines)


def installed(name: str) -> Path | None:
    """The folder of an installed package; None where it is not installed."""
    found = importlib.util.find_spec(name)
    return None if found is None or found.origin is None else Path(found.origin).parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, help="packages to measure instead")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "figures", help="folder of the JSON file"
    )
    return parser.parse_args()


def main() -> None:
    args = arguments()
    folders = {path.resolve().name: path for path in args.paths}
    if not folders:
        ours = {"cnf": ROOT / "cnf", "scripts": ROOT / "scripts", "tests": ROOT / "tests"}
        peers = {name: installed(name) for name in PEERS}
        folders = ours | {name: path for name, path in peers.items() if path is not None}
    found = {name: measure(path) for name, path in folders.items()}
    print(table(found))
    if not args.paths:
        results = {name: asdict(metrics) for name, metrics in found.items()}
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "house_metrics.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
