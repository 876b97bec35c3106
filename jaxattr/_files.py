"""Write files in one step, so that a process that is killed leaves no half of one."""

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
