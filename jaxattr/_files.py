"""Write files in one step, so that a process that is killed leaves no half of one, and spare the files of others."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then give it that name; a file that was there is replaced.

    Args:
      path: the file; its folder is made if absent.
      write: writes all of the file whose path it gets.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "folder" / "words.txt"
      >>> write_atomic(path, lambda temporary: temporary.write_text("whole"))
      >>> path.read_text(), [found.name for found in path.parent.iterdir()]
      ('whole', ['words.txt'])
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def foreign_names(directory: Path, marker: str) -> list[str]:
    """Return the names of what a directory holds, none if a file ``marker`` says that the directory is ours.

    Args:
      directory: may be absent, and then holds nothing.
      marker: name of a file that we write into each directory of ours.

    Raises:
      FileExistsError: if ``directory`` is a file.

    Example:
      >>> import tempfile
      >>> directory = Path(tempfile.mkdtemp())
      >>> (directory / "thesis.tex").touch()
      >>> foreign_names(directory, ".ours")
      ['thesis.tex']
      >>> (directory / ".ours").touch()
      >>> foreign_names(directory, ".ours")
      []
    """
    if not directory.exists() or (directory / marker).exists():
        return []
    if not directory.is_dir():
        raise FileExistsError(f"{directory} is a file; choose another directory.")
    # Another process may have written the marker just now.
    return sorted(path.name for path in directory.iterdir() if path.name != marker)
