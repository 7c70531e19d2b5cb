"""A program as a graph of torch's operators, for any number of rows, with its constants folded."""

from __future__ import annotations

import logging
import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx

from cnf.export.programs import TRACED_ROWS, Program
from cnf.export.special import CommonOperators


@torch.no_grad()
def traced(program: Program) -> torch.export.ExportedProgram:
    """The program as `torch.export` writes it; what does not depend on its inputs is computed.

    `torch.export.save` keeps it in a file, which torch alone loads and runs.
    """
    with CommonOperators():
        first = export(program, program)
    return export(folded(first.module(check_guards=False)), program)


def export(module: torch.nn.Module, program: Program) -> torch.export.ExportedProgram:
    """A module with the inputs of a program as an exported program, for any number of rows."""
    examples = program.examples(TRACED_ROWS, torch.Generator().manual_seed(0))
    rows = torch.export.Dim("rows")
    shapes = tuple({0: rows} for _ in examples)
    with quiet():
        return torch.export.export(module, examples, dynamic_shapes=shapes, strict=False)


def folded(module: fx.GraphModule) -> fx.GraphModule:
    """The module with every value that depends on no input computed and kept.

    Runtimes have no inverse of a matrix, and weights need not be prepared at each call.

    Example:
        >>> class Shifted(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x + torch.ones(1).exp().log()
        >>> module = torch.export.export(Shifted(), (torch.zeros(1),)).module()
        >>> "exp" in module.code, "exp" in folded(module).code
        (True, False)
    """
    known: dict[fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            known[node] = operator.attrgetter(node.target)(module)
        elif node.op == "call_function" and all(part in known for part in node.all_input_nodes):
            arguments, options = fx.map_arg((node.args, node.kwargs), known.__getitem__)
            known[node] = node.target(*arguments, **options)
    computed = [node for node in known if node.op != "get_attr"]
    for k, node in enumerate(computed):
        if isinstance(known[node], Tensor) and not known.keys() >= node.users.keys():
            _keep(module, node, known[node], f"constant_{k}")
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _keep(module: fx.GraphModule, node: fx.Node, value: Tensor, name: str) -> None:
    """Let a value of a node be a buffer in its place."""
    module.register_buffer(name, value.detach().clone())
    with module.graph.inserting_before(node):
        node.replace_all_uses_with(module.graph.get_attr(name))


@contextmanager
def quiet() -> Iterator[None]:
    """A block in which torch does not say what concerns its exporters alone: packages that they do
    not need, their own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
