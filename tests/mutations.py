"""Damage: bytes, JSON, tensors, tables and command lines as chance, or malice, might leave
them."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import torch
from safetensors import safe_open

from cnf.flows.model_file import write_model

ODD = [
    None, True, False, 0, -1, 1, 2, 3, 1e-300, 1e300, -1e30, 0.5, 10**9, 10**30, 2**63, "", "x", "auto",
    "CNF", "os.system", "\x00", "a" * 10_000, [], [[]], {}, {"class": "Grid"}, [1] * 5000, ["a", "b"],
    [0.0, 0.5, 1.0], [1e9, 1e9], [0, 1],
]  # fmt: skip


def mutate_bytes(content: bytes, chance: random.Random) -> bytes:
    """The content with one to four pieces flipped, cut, filled, repeated or moved."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        i, size = (
            chance.randrange(len(data) + 1),
            min(chance.choice((1, 1, 2, 8, 64, 700)), len(data)),
        )
        act = chance.randrange(7)
        if act == 0 and data:
            data[min(i, len(data) - 1)] ^= 1 << chance.randrange(8)
        elif act == 1:
            del data[i : i + size]
        elif act == 2:
            data[i:i] = chance.randbytes(size)
        elif act == 3:
            data[i : i + size] = bytes([chance.choice((0, 255, 34, 44, 10, 91))]) * size
        elif act == 4:
            data[i:i] = data[i : i + size]
        elif act == 5:
            del data[chance.randrange(len(data) + 1) :]
        else:
            j = chance.randrange(len(data) + 1)
            data[j:j] = data[i : i + size]
    return bytes(data)


def places(value, path=()):
    """The paths of every part of JSON data."""
    found = [path] if path else []
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in inner:
        found += places(part, (*path, key))
    return found


def mutate_json(value: dict, chance: random.Random) -> dict:
    """JSON data with one to three parts replaced, dropped, renamed or put inside themselves."""
    value = copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        where = places(value)
        if not where:
            return value
        # Few of the many records of a history: what is at the top matters more.
        path = min(chance.choices(where, k=chance.choice((1, 3))), key=len)
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        key, act = path[-1], chance.randrange(6)
        if act < 3:
            holder[key] = copy.deepcopy(chance.choice(ODD))
        elif act == 3:
            del holder[key]
        elif act == 4 and isinstance(holder, dict):
            holder[f"{key}_"] = holder.pop(key)
        else:
            holder[key] = (
                {"class": holder[key], "maps": [holder[key]]} if act == 4 else [holder[key]]
            )
    return value


def mutate_tensors(
    tensors: dict[str, torch.Tensor], chance: random.Random
) -> dict[str, torch.Tensor]:
    """Tensors with one dropped, renamed, filled, reshaped, or of another kind."""
    tensors = dict(tensors)
    name = chance.choice(sorted(tensors))
    tensor, act = tensors.pop(name), chance.randrange(7)
    if act == 1:
        tensors[f"{name}_"] = tensor
    elif act == 2 and tensor.is_floating_point():
        tensors[name] = torch.full_like(
            tensor, chance.choice((0.0, -1.0, 1e30, -1e30, 1e-38, torch.nan))
        )
    elif act == 3:
        tensors[name] = tensor.flatten()
    elif act == 4:
        tensors[name] = tensor.to(
            chance.choice((torch.float16, torch.float64, torch.int8, torch.bool))
        )
    elif act == 5:
        tensors[name] = torch.cat([tensor, tensor]) if tensor.dim() else tensor[None]
    elif act == 6:
        tensors[name], tensors["extra"] = tensor, torch.zeros(3)
    return tensors


def parts_of(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Configuration and tensors of a sound model file."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        return json.loads(json.loads(file.metadata()["cnf"])["configuration"]), tensors


def mutate_header(content: bytes, chance: random.Random) -> bytes:
    """A model whose header, that of safetensors or our own inside it, says something else."""
    size = int.from_bytes(content[:8], "little")
    header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
    act = chance.randrange(4)
    if act == 0:
        header = mutate_json(header, chance)
    elif act == 1:
        ours = mutate_json(json.loads(header["__metadata__"]["cnf"]), chance)
        header["__metadata__"]["cnf"] = json.dumps(ours)
    elif act == 2:
        deep = chance.choice(('{"a":', "[", '{"configuration":"')) * chance.choice(
            (10, 1000, 100_000)
        )
        header["__metadata__"]["cnf"] = chance.choice(
            (deep, json.dumps({"format": "1", "configuration": deep}))
        )
    text = json.dumps(header).encode()
    size = chance.choice((0, 7, 10**8, 2**40, 2**63, 2**64 - 1)) if act == 3 else len(text)
    return size.to_bytes(8, "little") + text + rest


def mutate_file(content: bytes, chance: random.Random) -> bytes:
    """A damaged model: bytes as they fall, anywhere or in the header, or a header that says
    otherwise."""
    act, size = chance.randrange(3), 8 + int.from_bytes(content[:8], "little")
    if act == 0:
        return mutate_bytes(content, chance)
    if act == 1:
        return mutate_bytes(content[:size], chance) + content[size:]
    return mutate_header(content, chance)


def mutate_model(path: Path, content: bytes, parts: tuple, chance: random.Random) -> None:
    """Write a damaged model, or one whose contents were changed and signed, as another program
    might."""
    act = chance.randrange(10)
    if act < 6:
        path.write_bytes(mutate_file(content, chance))
        return
    configuration, tensors = parts
    configuration = mutate_json(configuration, chance) if act < 9 else configuration
    tensors = mutate_tensors(tensors, chance) if act > 7 else tensors
    write_model(path, configuration, tensors)


def retell_model(path: Path, parts: tuple, chance: random.Random) -> None:
    """Write a model whose account of its fit says something else, and nothing but that."""
    configuration, tensors = parts
    told = mutate_json(configuration["metadata"], chance)
    write_model(path, {**configuration, "metadata": told}, tensors)


def fill_model(path: Path, parts: tuple, chance: random.Random) -> None:
    """Write a model that opens and makes no sense: one of its tensors is one number throughout."""
    configuration, tensors = parts
    name = chance.choice(sorted(name for name in tensors if tensors[name].is_floating_point()))
    value = chance.choice((0.0, -1.0, 1e-30, 1e3, 1e9, 1e30, -1e30))
    write_model(path, configuration, {**tensors, name: torch.full_like(tensors[name], value)})


CELLS = [
    "",
    "nan",
    "inf",
    "-inf",
    "1e30",
    "1e400",
    "5e-324",
    "x",
    '"',
    "1,2",
    "1_0",
    "é",
    "\x00",
    "0x10",
    " 7 ",
]


def mutate_csv(text: str, chance: random.Random) -> str:
    """A table of text with some cells, lines, names or separators gone wrong."""
    lines = [line.split(",") for line in text.splitlines()]
    for _ in range(chance.randint(1, 4)):
        i = chance.choice((0, chance.randrange(len(lines))))
        act = chance.randrange(7)
        if act < 3 and lines[i]:
            lines[i][chance.randrange(len(lines[i]))] = chance.choice(CELLS)
        elif act == 3:
            lines[i] = lines[i][: chance.randrange(len(lines[i]) + 1)]
        elif act == 4:
            lines.insert(i, list(chance.choice(lines)))
        elif act == 5 and len(lines) > 1:
            del lines[chance.randrange(1, len(lines)) :]
        else:
            chance.shuffle(lines[i])
    return chance.choice(("\n", "\n", "\n", "\r\n", "\r", ";")).join(
        ",".join(line) for line in lines
    )


EXTREMES = [
    "0",
    "1e30",
    "-1e30",
    "5e-324",
    "1e-310",
    "1e100",
    "-1e149",
    "1e160",
    "-1e200",
    "1.7e308",
    "nan",
    "",
]


def extreme_csv(text: str, chance: random.Random) -> str:
    """A table of numbers, one to three of them extreme or missing."""
    lines = [line.split(",") for line in text.splitlines()]
    for _ in range(chance.randint(1, 3)):
        line = chance.choice(lines[1:])
        line[chance.randrange(len(line))] = chance.choice(EXTREMES)
    return "\n".join(",".join(line) for line in lines) + "\n"


WORDS = [
    "fit", "score", "sample", "info", "check", "plot", "--json", "--resume", "--strict", "--help", "-o", "-n",
    "--seed", "--steps", "--seconds", "--columns", "--ignore", "--context", "--weights", "--given", "--valid",
    "--device", "--width", "--threads", "--data", "--axes", "density", "samples", "history", "a", "b", "a,b",
    "c", "c=1", "c=nan", "-1", "0", "1", "7", "1e9", "99999999999999999999", "nan", "", "--", "-", "x.csv",
    "x.png", "x.parquet", "/dev/null", ".", "nowhere", "toy:moons", "toy:", "cpu", "meta", "\x1b[31m",
]  # fmt: skip


def mutate_words(words: list[str], chance: random.Random) -> list[str]:
    """A command line with words added, dropped, replaced or misspelt."""
    words = list(words)
    for _ in range(chance.randint(1, 3)):
        i, act = chance.randrange(len(words) + 1), chance.randrange(4)
        if act == 0:
            words.insert(i, chance.choice(WORDS))
        elif words and i < len(words):
            if act == 1:
                del words[i]
            elif act == 2:
                words[i] = chance.choice(WORDS)
            else:
                words[i] = (
                    mutate_bytes(words[i].encode(), chance)
                    .decode("utf-8", "replace")
                    .replace("\0", "")
                )
    return words
