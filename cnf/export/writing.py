"""Writing programs to files, each checked against its model before it is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cnf.export.errors import ExportError
from cnf.export.programs import Program
from cnf.export.tracing import quiet, traced
from cnf.files import atomic_path
from cnf.version import VERSION

# The operators of ONNX that a file needs: those of onnxruntime 1.14 and later.
OPSET = 18
# Draws that a file is checked on, and what it may differ by, in nats or relative to the value.
CHECKED_ROWS, MOST_NATS, MOST_RELATIVE = 333, 1e-4, 1e-5
SEED = 1
Run = Callable[[tuple[Tensor, ...]], list[np.ndarray]]


class Written(NamedTuple):
    """The description of an exported file.

    Attributes:
        inputs: names and columns of its inputs, in float64.
        outputs: names of its outputs.
        rows: number of rows of the check.
        difference: largest difference from the model on these rows.
    """

    inputs: dict[str, int]
    outputs: tuple[str, ...]
    rows: int
    difference: float


@torch.no_grad()
def write_program(program: Program, path: str | Path) -> Written:
    """Write a program as .onnx, or as .pt2 of `torch.export`, atomically.

    The results of the file for samples of the model are first compared with the model.

    Raises:
        ExportError: for another extension, a package that is not installed, an operator that ONNX
            lacks, or a file that differs from its model.
    """
    ending = Path(path).suffix
    if ending not in FORMATS:
        raise ExportError(f"{path}: expected a name that ends in {' or '.join(FORMATS)}")
    with atomic_path(path) as temporary:
        run = FORMATS[ending](program, temporary)
        difference = _difference(program, run)
    return Written(program.inputs, program.outputs, CHECKED_ROWS, difference)


def _write_onnx(program: Program, path: Path) -> Run:
    onnxruntime = _optional("onnxruntime")
    passes = _optional("onnx_ir.passes.common")
    exported, names = traced(program), list(program.inputs)
    with quiet():
        try:
            found = torch.onnx.export(
                exported, dynamo=True, opset_version=OPSET, verbose=False,
                input_names=names, output_names=list(program.outputs),
            )  # fmt: skip
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(
                f"the model has an operation that ONNX lacks ({_root(error)}); score with cnf.Scorer"
            ) from error
        assert found is not None, "dynamo returns the program"
        passes.ClearMetadataAndDocStringPass()(found.model)  # where each operator was written
        found.model.metadata_props.update(_metadata(program))
        found.save(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    return lambda given: session.run(None, dict(zip(names, (part.numpy() for part in given))))


def _write_torch(program: Program, path: Path) -> Run:
    with quiet():
        torch.export.save(traced(program), path)
        module = torch.export.load(path).module()
    return lambda given: [part.numpy() for part in module(*given)]


FORMATS: dict[str, Callable[[Program, Path], Run]] = {".onnx": _write_onnx, ".pt2": _write_torch}


def _metadata(program: Program) -> dict[str, str]:
    """What the file says of itself."""
    tolerance = program.flow.error_model.tolerance
    said: dict[str, Any] = {"columns": program.columns, "context": program.context}
    said |= {"tolerance": tolerance, "version": VERSION}
    return {f"cnf.{name}": json.dumps(value) for name, value in said.items()}


def _difference(program: Program, run: Run) -> float:
    """The largest difference between what a file answers and the program.

    Raises:
        ExportError: if it is too large, or a verdict differs.
    """
    given = program.examples(CHECKED_ROWS, torch.Generator().manual_seed(SEED))
    largest, wanted = 0.0, dict(zip(program.outputs, program(*given)))
    for (name, expected), found in zip(wanted.items(), run(given)):
        right = expected.double().numpy()
        same = (found == right) | (np.isnan(found) & np.isnan(right))
        if name == "error":  # of a row that is not ok the bar says nothing
            same |= ~wanted["ok"].numpy()
        apart = np.where(same, 0.0, np.abs(found.astype(np.float64) - right))
        allowed = np.maximum(MOST_NATS, MOST_RELATIVE * np.abs(np.nan_to_num(right)))
        if not (apart <= allowed).all():
            raise ExportError(
                f"{name}: the file differs from the model by {np.nanmax(apart):.2g};"
                " nothing was written: score with cnf.Scorer, and report this"
            )
        largest = max(largest, float(apart.max()))
    return largest


def _root(error: BaseException) -> str:
    """The first line of what an error came from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0]


def _optional(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ExportError(f"{module} is not installed; pip install 'cnf[onnx]'") from error
