"""Models as programs that need no `cnf`: ONNX for any runtime, or a program of `torch.export`.

programs    `ScoreProgram`, `SampleProgram`: a question as tensors in and tensors out
noise       draws of a base from standard normal numbers
tracing     a program as operators, its constants folded
writing     `write_program`: the file, and its check against the model
"""

from cnf.export.errors import ExportError
from cnf.export.programs import Program, SampleProgram, ScoreProgram
from cnf.export.tracing import traced
from cnf.export.writing import OPSET, Written, write_program

__all__ = [
    "OPSET",
    "ExportError",
    "Program",
    "SampleProgram",
    "ScoreProgram",
    "Written",
    "traced",
    "write_program",
]
