"""`cnf export`: a model as a program that other runtimes run."""

from __future__ import annotations

from pathlib import Path

from cnf.cli.model import load_model
from cnf.cli.output import require_writable, say, say_json, writing
from cnf.export import SampleProgram, ScoreProgram, write_program

PROGRAMS = {"score": ScoreProgram, "sample": SampleProgram}


def export_model(path: Path, output: Path, program: str, *, as_json: bool) -> None:
    """Write the program "score" or "sample" of a model, and print its inputs and outputs.

    Raises:
        ValueError: for a model that cannot be exported, or an output that cannot be written.
    """
    model = load_model(path)
    require_writable(output, path)
    with writing(output):
        written = write_program(PROGRAMS[program](model.table_flow), output)
    if as_json:
        say_json({"output": str(output), **written._asdict()})
        return
    takes = ", ".join(f"{name} (rows, {width})" for name, width in written.inputs.items())
    say(
        f"{output}: takes {takes} in float64, gives {', '.join(written.outputs)};"
        f" differs from the model by at most {written.difference:.1g} on {written.rows} rows"
    )
