"""Model files: one safetensors file with weights and a JSON configuration, never a pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cnf.files import atomic_path

# The format that is written, and that of release 0.1, which is read too.
FORMAT, EARLIER = "2", "1"
# A header longer than this is not one of ours; JSON nests a few levels only.
LONGEST_HEADER = 32 * 2**20
MOST_DIGITS = 20  # of a whole number: seeds have up to 64 bits


class ModelFileError(ValueError):
    """A file is not a valid model of this library; one line gives the reason."""


def write_model(
    path: str | Path, configuration: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    """Write tensors and configuration to `path`, atomically.

    Raises:
        ValueError: for a configuration with anything other than numbers, text, lists and
            dictionaries.
    """
    try:
        text = json.dumps(configuration, allow_nan=False)
    except TypeError as failure:
        raise ValueError(f"a model file cannot store this configuration: {failure}") from failure
    # The file is read back on any device, so tensors are written as they lie in ordinary memory.
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    header = {"format": FORMAT, "configuration": text, "digest": _digest(text, plain)}
    content = save(plain, metadata={"cnf": json.dumps(header)})
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(content)


def read_model(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of a model file.

    Raises:
        ModelFileError: if the file is missing, damaged, of an unknown format, or not a model file.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path}: no such model file")
    try:
        with safe_open(path, framework="pt") as file:
            header = _header(path, file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except ModelFileError:
        raise
    # Of sizes beyond all bounds it is torch that complains, by whatever exception it has at hand.
    except (SafetensorError, OSError, TypeError, ValueError, RuntimeError) as failure:
        raise ModelFileError(
            f"{path}: not a model file ({_one_line(failure)}); write one with `cnf fit`"
        ) from failure
    if _digest(header["configuration"], tensors) != header["digest"]:
        raise ModelFileError(
            f"{path}: damaged (its digest does not fit its contents); fetch or fit it again"
        )
    if header["format"] == FORMAT:
        return _parsed(header["configuration"]), tensors
    return _parsed(header["configuration"], _upgraded), {
        f"{name}_matrix" if name.endswith(".inverse") else name: tensor
        for name, tensor in tensors.items()
    }


def _upgraded(part: dict[str, Any]) -> dict[str, Any]:
    """One object of a configuration of the earlier format with the names of this one."""
    name = part.get("class")
    if name == "Support":
        return {**part, "class": "BoundedToReal"}
    if name in ("StudentTBase", "ContaminatedBase"):
        return {"df" if key == "freedom" else key: value for key, value in part.items()}
    if "solver" in part:
        return {"error_model" if key == "accuracy" else key: value for key, value in part.items()}
    return part


def _parsed(text: str, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """JSON as it is defined, without the words for numbers that are not finite, which Python would
    take, and without whole numbers that no seed has. `hook` is applied to every object."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not a number")

    def whole(digits: str) -> int:
        if len(digits) > MOST_DIGITS:
            raise ValueError(f"a number of {len(digits)} digits")
        return int(digits)

    return json.loads(text, parse_constant=refuse, parse_int=whole, object_hook=hook)


def _digest(configuration: str, tensors: dict[str, Tensor]) -> str:
    """What betrays a changed bit anywhere in configuration or tensors."""
    return hashlib.sha256(save(tensors) + configuration.encode()).hexdigest()


def _header(path: Path, metadata: dict[str, str] | None) -> dict[str, str]:
    """Format, configuration (JSON) and digest, each checked to be what it should."""
    text = (metadata or {}).get("cnf", "")
    if not text or len(text) > LONGEST_HEADER:
        raise ModelFileError(
            f"{path}: a safetensors file, but not a model of cnf; write one with `cnf fit`"
        )
    try:
        header = _parsed(text)
        known = header["format"] in (FORMAT, EARLIER)
        whole = known and isinstance(_parsed(header["configuration"]), dict) and "digest" in header
    except (ValueError, KeyError, TypeError, RecursionError) as failure:
        raise ModelFileError(
            f"{path}: its configuration is damaged ({_one_line(failure)})"
        ) from failure
    if not known:
        raise ModelFileError(
            f"{path}: format {header['format']!s:.20} is not {FORMAT}; update cnf to read it"
        )
    if not whole:
        raise ModelFileError(
            f"{path}: its configuration is damaged (no digest); fetch or fit it again"
        )
    return header


def _one_line(failure: Exception) -> str:
    return " ".join(str(failure).split())[:200] or type(failure).__name__
