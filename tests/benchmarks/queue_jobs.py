"""Jobs for the tests of the queue: in a module that its workers can import."""

import os
import time


def count(context):
    """Succeeds, and counts its calls in a file of its own."""
    path = context.folder / f"{context.name}.calls"
    path.write_text(path.read_text() + "x" if path.exists() else "x")
    return {"left": context.left, "share": context.share}


def fail(context):
    raise RuntimeError("as it was meant to")


def crash(context):
    os._exit(7)


def hang(context, *, saves):
    context.save({**context.before, "saved": context.before.get("saved", 0) + saves})
    time.sleep(60)
