"""How a run is asked to stop, and how it says that it has."""

from dataclasses import dataclass


class Stopped(BaseException):
    """A run was asked to stop; as with KeyboardInterrupt, nothing that handles errors takes it for one.

    Args:
        signal: The number of the signal that asked for it.
        is_agreed: Whether all processes of the run stop here.
    """

    def __init__(self, signal: int, *, is_agreed: bool = False) -> None:
        super().__init__(signal)
        self.signal = signal
        self.is_agreed = is_agreed


@dataclass
class StopRequest:
    """What a signal and a run agree on.

    Attributes:
        signal: The number of the signal that asked; 0 where nothing has.
        is_heard: Whether the run stops at its next step; outside of its steps nothing would answer.
    """

    signal: int = 0
    is_heard: bool = False
