"""A specialist and how it is run."""

from __future__ import annotations

from dataclasses import dataclass

from open_florence.data_engine.child import Make
from open_florence.data_engine.isolation import Runner


@dataclass(frozen=True)
class Employed:
    """A specialist that the engine may start, as often as it needs it."""

    make: Make
    """Gives the specialist; where it runs isolated it has to be pickled, so no lambda."""
    name: str = "given"
    isolate: bool = True
    timeout: float | None = 600.0
    """Seconds that a batch may take, where it runs isolated."""
    batch: int = 16

    def start(self, proven: bool = False) -> Runner:
        """The specialist, loaded. Raises OpenFlorenceError in one sentence where that fails."""
        return Runner(
            self.make,
            isolate=self.isolate,
            timeout=self.timeout if self.isolate else None,
            batch=self.batch,
            proven=proven,
            name=self.name,
        )
