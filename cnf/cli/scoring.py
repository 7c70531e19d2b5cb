"""`cnf score`: the log-density of every row of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnf.cli.bar import counted
from cnf.cli.model import load_model
from cnf.cli.output import require_writable, say, say_json, writing
from cnf.scale import ScoredFolder, ScoreOptions, ScoreSummary, write_scores


def score_table(
    path: Path, data: str, output: Path, options: ScoreOptions, *, device: str, as_json: bool
) -> None:
    """Write log_prob and error of every row of DATA, in order; a row that has no answer keeps its
    place.

    Raises:
        ValueError: for a model, table, device or output that cannot be used.
    """
    model = load_model(path, device)
    require_writable(output, path, data)
    with writing(output):
        chunks = counted(model.chunks(data, judged=True))
        summary = write_scores(model.table_flow, chunks, output, data, options, rows_needed=1)
    _tell(output, summary, as_json=as_json)


def score_folder(
    path: Path,
    data: str,
    output: Path,
    options: ScoreOptions,
    *,
    device: str,
    run: tuple[str, int],
    as_json: bool,
) -> None:
    """Write the scores of every file of a folder or a pattern to a file of the same name in
    OUTPUT, with an engine and a number of workers; files with existing scores are skipped.

    Raises:
        ValueError: as `score_table`, and for an engine that is not installed.
        KeyboardInterrupt: saying that the same command goes on, if it is interrupted.
    """
    load_model(path, device)
    summary, files = ScoreSummary(), 0
    try:
        with writing(output):
            for found in ScoredFolder(path, data, output, device, options).run(*run):
                summary.merge(found)
                files += 1
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; {output} keeps the scores of finished files, and the same command scores the rest"
        ) from None
    _tell(output, summary, as_json=as_json, files=files)


def _tell(output: Path, summary: ScoreSummary, *, as_json: bool, **counts: int) -> None:
    """Print the summary, for people or as one JSON object."""
    report = {"output": str(output), **counts, **summary.as_json()}
    say_json(report) if as_json else say(sentence(report))


def sentence(report: dict[str, Any]) -> str:
    """The report for people."""
    left_out = report["outside"] + report["not_ok"]
    files = f" in {report['files']:,} files" if "files" in report else ""
    parts = [f"{report['output']}: {report['rows']:,} rows{files}"]
    if report["outside"]:
        parts.append(
            f"{report['outside']:,} outside the ranges of their columns, where the density is zero"
        )
    if report["unseen"]:
        parts.append(
            f"{report['unseen']:,} have a category that was not in training, treated as rare"
        )
    if report["not_ok"]:
        why = f", the first for this reason: {report['left_out']}" if report["left_out"] else ""
        parts.append(
            f"{report['not_ok']:,} have no log-density{why} (--reason writes all reasons)"
        )
    if report["rows"] > left_out:
        of = "mean log-density of the others" if left_out else "mean log-density"
        parts.append(f"{of} {report['mean_log_prob']:.4f} ± {report['standard_error']:.4f} nats")
    return "; ".join(parts)
