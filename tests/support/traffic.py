"""Requests without a pause through a sidecar, while something around it changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.peers import App, exchange, request
from tests.support.process import Ambassador, running_ambassador
from tests.support.waiting import eventually

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"


def app(name: bytes, host: str = "127.0.0.1", port: int = 0) -> App:
    """Give an application that answers with its name, one byte."""
    return App(lambda _: _OK + name, host=host, port=port)


def who_answers(sidecar: Ambassador) -> bytes:
    """Ask for service `a` once; empty when nothing came."""
    return exchange(sidecar.outbound, request(host="a"))[-1:]


@contextmanager
def ready(folder: Path, settings: dict[str, Any]) -> Iterator[Ambassador]:
    """Run a sidecar; it is ready."""
    with running_ambassador(settings, folder) as sidecar:
        eventually(lambda: sidecar.get("/ready")[0] == 200, "ready")
        yield sidecar


@contextmanager
def traffic(sidecar: Ambassador) -> Iterator[bytearray]:
    """Ask for service `a` without a pause; give the last byte of every answer, which is who answered."""
    answers = bytearray()
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            answers.extend(who_answers(sidecar) or b"!")

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield answers
    finally:
        over.set()
        asking.join(10)


def goes_on(answers: bytearray) -> None:
    """Wait for fifty more answers."""
    before = len(answers)
    eventually(lambda: len(answers) > before + 50, "traffic goes on")


def only(answers: bytearray, name: bytes, *, patience_s: float = 10.0) -> None:
    """Wait until fifty answers in a row are of this application."""
    eventually(lambda: answers.endswith(name * 50), f"only {name!r}", patience_s=patience_s)
