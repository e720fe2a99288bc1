"""Tensors and text on disk: safetensors and JSON, written whole or not at all. Nothing is ever unpickled."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

FORMAT_VERSION = 1
"""Version of run folders and weight files; a newer one is refused."""
AGAIN = "restore it or train again"
"""What can be done about a damaged file."""
_STALE_SECONDS = 3600.0
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""How safetensors calls the types of tensors."""
PARTIAL = ".partial"
"""Ending of a file that is being written."""


class CheckpointError(Exception):
    """A file or folder that cannot be used. The message is one line and says what to do."""


def write_atomically(path: Path, content: bytes | str | Iterable[bytes | memoryview]) -> None:
    """Write a file, whole or not at all.

    It is written under a temporary name in the same folder and then renamed, so that no reader sees half of it.

    Parameters
    ----------
    path : Path
        The file. Missing folders are made, and a file of this name is replaced.
    content : bytes, str or iterable of bytes
        What to write; parts are written one after the other, so that they need not be in memory together.

    Raises
    ------
    OSError
        The file cannot be written. A file of this name is then as it was.
    """
    content = content.encode() if isinstance(content, str) else content
    parts = [content] if isinstance(content, bytes) else content
    # A name of its own, so that two writers never write into one file.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        _discard(temporary)
        if error.filename in (None, str(temporary)) and error.errno is not None:  # None as of a full disk
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    except BaseException:
        _discard(temporary)
        raise
    _remove_stale(path)


def digest_of(content: bytes) -> str:
    """The SHA-256 digest of some bytes, as run folders keep it."""
    return hashlib.sha256(content).hexdigest()


def remove_partial(folder: Path) -> None:
    """Remove what a kill has left of files of a folder, which nobody else writes to now."""
    for path in folder.glob(f".*{PARTIAL}"):
        _discard(path)


def _remove_stale(path: Path) -> None:
    """Remove what an earlier kill has left of a file. What is younger than an hour may be another writer's."""
    with suppress(OSError):
        for other in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}"):
            with suppress(OSError):
                if time.time() - other.stat().st_mtime > _STALE_SECONDS:
                    other.unlink()


def _discard(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], information: Mapping[str, Any]) -> None:
    """Write tensors and further information into one safetensors file, whole or not at all, with a digest of both.

    Parameters
    ----------
    path : Path
        The file.
    tensors : mapping of str to Tensor
        The tensors, on any device.
    information : mapping of str to Any
        What else to store, of JSON values.
    """
    text = json.dumps({"format_version": FORMAT_VERSION, **information})
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, _safetensors(held, {"pyrovae": f"{_digest_of_tensors(held, text)} {text}"}))


def _safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The parts of a safetensors file: its header and the tensors, of which no copy is made.

    ``safetensors.torch.save`` holds two more copies of all tensors, which a table of a million rows has no room for.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))  # so that all are aligned
    start = 0
    for name, tensor in ordered:
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for _, tensor in ordered:
        yield tensor.reshape(-1).view(torch.uint8).numpy().data


def _digest_of_tensors(tensors: Mapping[str, Tensor], information: str) -> str:
    """A digest of tensors, on the CPU, with their names, types and shapes, and of what is stored with them."""
    found = hashlib.sha256(information.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    tensors : dict of str to Tensor
        The tensors, on the CPU.
    information : dict of str to Any
        What else was stored, with its `format_version`.

    Raises
    ------
    CheckpointError
        The file is missing or damaged, this library did not write it, or a newer version of it did.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path} is a folder, expected a file") from None
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # a damaged header raises whatever the parser trips over
        reason = " ".join(str(error).split())[:150]
        raise CheckpointError(f"{path} is damaged or truncated ({reason}); {AGAIN}") from None
    header = metadata.get("pyrovae")
    if header is None:
        raise CheckpointError(f"{path} was not written by pyrovae")
    digest, text = _parted(header)
    try:
        information = dict(json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); {AGAIN}") from None
    check_version(path, information)
    if digest is not None and digest != _digest_of_tensors(tensors, text):
        raise CheckpointError(f"{path} is damaged: its content is not what was written (SHA-256); {AGAIN}")
    return tensors, information


def _parted(header: str) -> tuple[str | None, str]:
    """The digest of a file, which those of early versions lack, and the text of its information."""
    if header.startswith("{"):
        return None, header
    digest, _, text = header.partition(" ")
    return digest, text


def load_information(path: Path) -> dict[str, Any]:
    """Read what `save_tensors` stored with the tensors, without them. Digests are not compared.

    Raises
    ------
    CheckpointError
        As `load_tensors` does.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            information = dict(json.loads(_parted((file.metadata() or {})["pyrovae"])[1]))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except Exception as error:  # as above
        reason = " ".join(str(error).split())[:150]
        raise CheckpointError(f"{path} is damaged or truncated ({reason}); {AGAIN}") from None
    check_version(path, information)
    return information


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and persistent buffers of a module by name, each tensor once."""
    persistent = module.state_dict().keys()
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor for name, tensor in named if name in persistent}


def load_module_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into a module, in place.

    Parameters
    ----------
    module : Module
        The module.
    tensors : mapping of str to Tensor
        Its new parameters and buffers, by name.
    source : str
        Where they come from, for error messages.

    Raises
    ------
    CheckpointError
        Names or shapes differ. The module is then unchanged.
    """
    check_module_tensors(module, tensors, source)
    with torch.no_grad():
        for name, tensor in module_tensors(module).items():
            tensor.copy_(tensors[name])


def check_module_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that are not those of a module, see `load_module_tensors`.

    Raises
    ------
    CheckpointError
        Names or shapes differ.
    """
    own = module_tensors(module)
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or extra:
        parts = [f"lacks {name!r}" for name in missing[:1]] + [f"has {name!r} too many" for name in extra[:1]]
        raise CheckpointError(f"{source} is of another architecture: it {' and '.join(parts)}")
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise CheckpointError(
                f"{source} is of another architecture: {name!r} has shape {tuple(tensors[name].shape)} there "
                f"and {tuple(tensor.shape)} here"
            )
        there = tensors[name].dtype
        if _is_wider(there, tensor.dtype):
            raise CheckpointError(
                f"{source} holds {name!r} in {str(there).removeprefix('torch.')}, and it is "
                f"{str(tensor.dtype).removeprefix('torch.')} here; give the pair that precision, as vae.double() does"
            )


def _is_wider(first: torch.dtype, second: torch.dtype) -> bool:
    """Whether numbers of one type lose something in another one."""
    both = first.is_floating_point and second.is_floating_point
    return both and torch.finfo(first).eps < torch.finfo(second).eps


def _widen(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a module the precision of the tensors that it is to get, if all of them are more precise than its own."""
    there = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    here = {tensor.dtype for tensor in module_tensors(module).values() if tensor.is_floating_point()}
    if len(there) == 1 and here and all(_is_wider(next(iter(there)), own) for own in here):
        module.to(next(iter(there)))


def save_weights(module: nn.Module, path: str | Path, **information: Any) -> None:
    """Write the weights of a module, such as a VAE, to a safetensors file.

    Parameters
    ----------
    module : Module
        The module.
    path : str or Path
        The file. A file of this name is replaced.
    **information
        What else to store, of JSON values.
    """
    save_tensors(Path(path), module_tensors(module), information)


def load_weights(module: nn.Module, path: str | Path) -> dict[str, Any]:
    """Read weights written by `save_weights` into a module, which gets their precision if that is higher than its own.

    Parameters
    ----------
    module : Module
        A module of the same architecture.
    path : str or Path
        The file.

    Returns
    -------
    dict of str to Any
        The information stored with the weights.

    Raises
    ------
    CheckpointError
        The file cannot be used, or it is of another architecture. The module is then unchanged.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> net = nn.Linear(2, 1)
    >>> with TemporaryDirectory() as folder:
    ...     save_weights(net, Path(folder, "net.safetensors"), note="first try")
    ...     load_weights(net, Path(folder, "net.safetensors"))
    {'format_version': 1, 'note': 'first try'}
    """
    tensors, information = load_tensors(Path(path))
    _widen(module, tensors)
    load_module_tensors(module, tensors, str(path))
    return information


def check_version(path: Path, information: Mapping[str, Any]) -> None:
    """Refuse a file of a newer version of this library.

    Raises
    ------
    CheckpointError
        The version is newer, or missing.
    """
    version = information.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, and this pyrovae reads up to {FORMAT_VERSION}: install a newer one"
        )
