"""What a model file says beside its model: checked before a command believes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnf.flows import ModelFileError

NONE = type(None)
NUMBER, MAYBE, TEXT, COUNT = (int, float), (int, float, NONE), (str,), (int, NONE)
SCORE = {"nll": MAYBE, "standard_error": MAYBE}
RECORD = {
    "phase": TEXT,
    "step": (int,),
    "seconds": NUMBER,
    "objective": MAYBE,
    "learning_rate": MAYBE,
    "valid_nll": MAYBE,
    "valid_se": MAYBE,
    "nfe": COUNT,
}
HISTORY = {
    "records": [RECORD],
    "valid_nll": MAYBE,
    "valid_se": MAYBE,
    "train_nll": MAYBE,
    "train_se": MAYBE,
    "rollbacks": ([TEXT], (NONE,)),
}
# A pattern is types, a list of one pattern, a dict of patterns whose missing keys count as None,
# or a tuple of patterns of which one must fit.
KNOWN: dict[str, Any] = {
    "columns": [TEXT],
    "context": [TEXT],
    "rows": COUNT,
    "valid_rows": COUNT,
    "seed": COUNT,
    "version": (str, NONE),
    "interrupted": (bool, NONE),
    "choices": (dict, NONE),
    "units": (dict, NONE),
    "gaussian": (SCORE, (NONE,)),
    "history": (HISTORY, (NONE,)),
    "quantiles": ({"levels": [NUMBER], "columns": (dict,)}, (NONE,)),
}
# What is there has these beside it.
NEEDS = {
    "rows": ("valid_rows",),
    "gaussian": ("rows", "valid_rows", "seed"),
    "quantiles": ("columns",),
}


def require_known(path: Path, metadata: dict[str, Any]) -> None:
    """Refuse metadata whose parts are not what `cnf fit` writes under their names; others may be
    anything.

    Raises:
        ModelFileError: naming the part.
    """
    for name, pattern in KNOWN.items():
        if name in metadata and not fits(metadata[name], pattern):
            raise ModelFileError(
                f"{path}: what it says of {name} is not as a fit writes it; fit it anew"
            )
    for name, needs in NEEDS.items():
        missing = [need for need in needs if metadata.get(need) is None]
        if metadata.get(name) is not None and missing:
            raise ModelFileError(
                f"{path}: it says nothing of {missing[0]}, which {name} needs; fit it anew"
            )
    if not (_paired(metadata) and _complete(metadata)):
        raise ModelFileError(
            f"{path}: what it says of its history does not fit together; fit it anew"
        )


def fits(value: Any, pattern: Any) -> bool:
    """Whether JSON data has the form of a pattern.

    >>> fits({"a": [1, 2.5]}, {"a": [NUMBER]}), fits({"a": [True]}, {"a": [NUMBER]})
    (True, False)
    """
    if isinstance(pattern, list):
        return isinstance(value, list) and all(fits(part, pattern[0]) for part in value)
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(
            fits(value.get(key), part) for key, part in pattern.items()
        )
    if isinstance(pattern[0], type):
        return isinstance(value, pattern) and (bool in pattern or not isinstance(value, bool))
    return any(fits(value, part) for part in pattern)


def _paired(metadata: dict[str, Any]) -> bool:
    """A likelihood stands with its standard error, or there is neither."""
    history, gaussian = metadata.get("history") or {}, metadata.get("gaussian") or {}
    pairs = [(history, "valid_nll", "valid_se"), (history, "train_nll", "train_se")]
    pairs += [(record, "valid_nll", "valid_se") for record in history.get("records", [])]
    pairs.append((gaussian, "nll", "standard_error"))
    return all((part.get(a) is None) == (part.get(b) is None) for part, a, b in pairs)


def _complete(metadata: dict[str, Any]) -> bool:
    """Every column has its quantiles, one for each level."""
    known = metadata.get("quantiles")
    if known is None:
        return True
    levels = len(known["levels"])
    parts = [known["columns"].get(name) for name in metadata["columns"]]
    return all(fits(part, [NUMBER]) and len(part) == levels for part in parts)
