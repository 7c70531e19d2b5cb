"""A file of ONNX as data for a page, which runs it by an interpreter of its own."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

# ONNX's numbers of the types that a page knows, and how they are packed; integers beyond 32 bits
# stand for the end of an axis.
PACKED = {1: "<f4", 7: "<i4", 9: "|u1", 11: "<f8"}
Packed: TypeAlias = tuple[int, "tuple[int, ...]", str]
Graph: TypeAlias = "dict[str, Any]"


def graph_of(path: Path) -> Graph:
    """The graph of a file as JSON: the names of its inputs and outputs, its constants in base64,
    and its nodes in order.

    Raises:
        ModuleNotFoundError: if onnx_ir is not installed, which writing the file needs too.
    """
    return _graph(import_module("onnx_ir").load(path).graph)


def operators(graph: Graph) -> Iterator[str]:
    """The names of the operators in a graph and in the bodies of its loops, with repeats."""
    for node in graph["nodes"]:
        yield node["operator"]
        if body := node["attributes"].get("body"):
            yield from operators(body)


def packed(value: np.ndarray, kind: int) -> Packed:
    """A constant as the number of its type, its shape and its elements.

    >>> packed(np.array([[1.5]]), 11)
    (11, (1, 1), 'AAAAAAAA+D8=')
    """
    if kind == 7:
        limits = np.iinfo(np.int32)
        value = value.clip(limits.min, limits.max)
    return kind, value.shape, base64.b64encode(value.astype(PACKED[kind]).tobytes()).decode()


def _graph(graph: Any) -> Graph:
    return {
        "inputs": [value.name for value in graph.inputs],
        "outputs": [value.name for value in graph.outputs],
        "constants": {
            name: _packed(value.const_value) for name, value in graph.initializers.items()
        },
        "nodes": [_node(node) for node in graph],
    }


def _node(node: Any) -> Graph:
    return {
        "operator": node.op_type,
        "inputs": ["" if value is None else value.name for value in node.inputs],
        "outputs": [value.name for value in node.outputs],
        "attributes": _attributes(node.attributes),
    }


def _attributes(attributes: Mapping[str, Any]) -> Graph:
    convert = {"GRAPH": _graph, "TENSOR": _packed}
    return {
        name: convert.get(attribute.type.name, lambda value: value)(attribute.value)
        for name, attribute in attributes.items()
    }


def _packed(tensor: Any) -> Packed:
    return packed(tensor.numpy(), int(tensor.dtype))
