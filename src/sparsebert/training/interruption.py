"""Ctrl-C or SIGTERM during training: stop after the current step, with everything saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopRequest:
    """Whether the user has asked to stop."""

    asked: bool = False


@contextmanager
def stop_on_interrupt(request: StopRequest) -> Iterator[None]:
    """Turn the first Ctrl-C inside into a request; the second one interrupts at once as ever.

    So does SIGTERM, which schedulers and containers send some time before they kill; there may be
    several of it, and a launcher of processes sends it after a Ctrl-C. Python delivers signals to
    the main thread only: elsewhere nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _frame: FrameType | None) -> None:
        if request.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
