"""Write and check ``run.json`` in a run's directory: what was asked for, by which command, with which versions.

A directory belongs to one run: the same data, networks and seed. Whatever else it holds is left as it is, and named.

A hash tells one run from another. It covers the options that decide the networks and the samples and differ from their
defaults, and the version of the computations. So a new option whose default keeps the earlier behavior leaves every
hash as it is. What is measured of the samples has an identity of its own, cell by cell (:mod:`jaxattr.audit.spec`).
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import jax

import jaxattr as ja
from jaxattr._files import write_atomic
from jaxattr.audit.spec import NUMERICS


class StoreError(Exception):
    """Raised if files on disk do not fit the run; the message names the file and what to do."""


class Configuration(Protocol):
    """A frozen dataclass of plain values, tuples and other such dataclasses."""

    COMMAND: ClassVar[str]
    """The command that makes such runs."""
    NOT_HASHED: ClassVar[tuple[str, ...]]
    """Fields that change no number."""
    __dataclass_fields__: ClassVar[dict[str, Any]]


Kind = TypeVar("Kind", bound=Configuration)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file of bytes in one step."""
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def as_dict(config: Configuration) -> dict[str, Any]:
    """Convert a configuration to JSON's types (tuples are lists there)."""
    return json.loads(json.dumps(dataclasses.asdict(config), allow_nan=False))


def from_dict(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Build a configuration of class ``kind`` from values of :func:`as_dict`.

    Raises:
      KeyError: if ``kind`` has no such field.
    """
    hints = typing.get_type_hints(kind)
    plain = {
        name: from_dict(hints[name], value) if dataclasses.is_dataclass(hints[name]) else _tuples(value)
        for name, value in values.items()
    }
    return kind(**plain)


def config_hash(config: Configuration, numerics: int = NUMERICS) -> str:
    """Hash the options that decide a row: not its path, nor the choice of other rows.

    Args:
      config: resolved configuration. Options that have their defaults do not count.
      numerics: version of the computations.
    """
    identity = {"numerics": numerics, "options": _chosen(config, deciding(config))}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def deciding(config: Configuration) -> dict[str, Any]:
    """Return the options that decide a row, and their values in JSON's types."""
    return {name: value for name, value in as_dict(config).items() if name not in config.NOT_HASHED}


def _chosen(config: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a dataclass's values that differ from its defaults."""
    chosen: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        if field.name not in values:
            continue
        value, inner = values[field.name], getattr(config, field.name)
        if dataclasses.is_dataclass(inner):
            value, default = _chosen(inner, value), {}
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        else:
            default = field.default
        default = None if default is dataclasses.MISSING else json.loads(json.dumps(default))
        if value != default:
            chosen[field.name] = value
    return chosen


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List ``name: old -> new`` for every option that differs."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}: {before} -> {after}")
    return found


def environment() -> dict[str, Any]:
    """Return versions and devices, for the record beside the results."""
    kind = jax.devices()[0].device_kind
    cores = f" of {os.cpu_count()} cores" if kind == "cpu" else ""
    versions = {name: importlib.metadata.version(name) for name in ("jaxlib", "flax", "optax", "numpy")}
    return {
        "jaxattr": ja.__version__,
        "jax": jax.__version__,
        **versions,
        "python": platform.python_version(),
        "device": f"{jax.device_count()} x {kind}{cores}",
        "processes": jax.process_count(),
    }


def open_run(
    directory: Path,
    kind: type[Configuration],
    config: Configuration | None,
    about: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Take a directory for a run, or find the run in it.

    Args:
      directory: made if absent.
      kind: class of the configuration.
      config: resolved configuration; ``None`` for whichever run is there.
      about: versions and devices, for a new run.
      command: as it was written, kept for tables and pages; ``None`` to leave what is there.

    Returns:
      The content of ``run.json``.

    Raises:
      StoreError: if the directory belongs to another configuration, or is not a run's; nothing is written then.
    """
    path = directory / "run.json"
    if not path.exists():
        _refuse_foreign(directory)
        if config is None:
            raise StoreError(f"{directory} holds no run: there is no run.json. Make one with `{kind.COMMAND}`.")
        run = {
            "command": kind.COMMAND,
            "hash": config_hash(config),
            "numerics": NUMERICS,
            "written": command or "",
            "config": as_dict(config),
            "environment": dict(about or {}),
        }
        write_text(path, json.dumps(run, indent=2) + "\n")
        return run
    run = _read(path, kind)
    if config is not None and run["numerics"] != NUMERICS:
        raise StoreError(
            f"{directory} holds results of version {run['numerics']} of the computations, and this is version"
            f" {NUMERICS}: the same settings give other numbers. It can be shown, and not be added to. Give this run a"
            " directory of its own with `--output DIRECTORY`, or delete that one."
        )
    if config is not None and run["hash"] != config_hash(config):
        changed = "; ".join(differences(deciding(from_dict(kind, run["config"])), deciding(config)))
        raise StoreError(
            f"{directory} holds a run of another configuration ({changed}), and results of two configurations are"
            " never mixed. Give this run a directory of its own with `--output DIRECTORY`, or delete that one."
        )
    before = json.dumps(run)
    device, devices = (about or {}).get("device"), run["environment"].get("device", "")
    if device and device not in devices.split(", "):
        # The run goes on on another device: its rates are those of both.
        run["environment"]["device"] = ", ".join(filter(None, [devices, device]))
    if config is not None and about is not None:
        # The latest command may measure more, or take more samples: what is the same run was checked above.
        run |= {"config": as_dict(config), "written": command or run.get("written", "")}
    if json.dumps(run) != before:
        write_text(path, json.dumps(run, indent=2) + "\n")
    return run


def _refuse_foreign(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise StoreError(f"{directory} is a file; choose another `--output`.")
    there = sorted(path.name for path in directory.iterdir()) if directory.exists() else []
    if there:
        raise StoreError(
            f"{directory} is not empty and not a run's (it holds {', '.join(there[:5])}, and no run.json); nothing was"
            " written. Choose another `--output`, or move these away."
        )


def _read(path: Path, kind: type[Configuration]) -> dict[str, Any]:
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        command = run["command"]
        if command == kind.COMMAND and config_hash(from_dict(kind, run["config"]), run["numerics"]) != run["hash"]:
            raise ValueError("its hash does not fit its configuration")
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"{path} is damaged, or was written by another version ({error}). Choose another `--output`, or delete"
            " the directory."
        ) from error
    if command != kind.COMMAND:
        raise StoreError(f"{path.parent} is a run of `{command}`, not of `{kind.COMMAND}`; choose another directory.")
    return run


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
