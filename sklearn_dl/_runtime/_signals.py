"""Telling Ctrl-C from a `KeyboardInterrupt` that somebody raised."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupts:
    """Remembers whether Ctrl-C came while it watched."""

    def __init__(self):
        self.came = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch for the length of a block; the handler that was there still acts."""
        handler = signal.getsignal(signal.SIGINT)
        # Other threads get no signals, and may not set handlers.
        main = threading.current_thread() is threading.main_thread()
        if not main or not callable(handler):
            yield
            return

        def noted(number, frame):
            self.came = True
            handler(number, frame)

        signal.signal(signal.SIGINT, noted)
        try:
            yield
        finally:
            if signal.getsignal(signal.SIGINT) is noted:
                signal.signal(signal.SIGINT, handler)
