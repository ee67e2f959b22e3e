"""Ctrl-C and SIGTERM wait for the end of the step, so that what is saved is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import torch.distributed as dist


class Interrupts:
    """While it lasts, the first SIGINT or SIGTERM is noted in `asked`; a second interrupts at once.

    Under several processes every one is noted only: torchrun passes on what the terminal has sent already. Outside the
    main thread signals cannot be caught and stay what they are.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked and not dist.is_initialized():
            raise KeyboardInterrupt
        self.asked = True
