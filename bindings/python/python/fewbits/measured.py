"""What is measured of a model, wherever it is."""

from dataclasses import dataclass

from fewbits.record import Record


@dataclass(frozen=True, kw_only=True)
class WorstOutput(Record):
    """The float output that is farthest from the float model's.

    Attributes
    ----------
    name : str
    sqnr_db : float
        Its signal to quantization noise in decibels.
    """

    name: str
    sqnr_db: float


@dataclass(frozen=True, kw_only=True)
class Latency(Record):
    """The time of one call with one row, over all timed calls.

    Attributes
    ----------
    median, p10, p90 : float
        In milliseconds: half, a tenth and nine tenths of the calls took no longer.
    calls : int
        How many were timed.
    """

    median: float
    p10: float
    p90: float
    calls: int


@dataclass(frozen=True, kw_only=True)
class DropInterval(Record):
    """Where the drop over all data lies.

    Attributes
    ----------
    low, high : float
        Its ends in the metric's unit; positive is worse.
    confidence : float
        The part of such intervals that hold the drop.
    method : str
        How it was found, with its source.
    """

    low: float
    high: float
    confidence: float
    method: str


@dataclass(frozen=True, kw_only=True)
class Environment(Record):
    """The machine, as far as figures depend on it.

    Attributes
    ----------
    cpu : str or None
        The processor's name, where the system tells it.
    kernels : str or None
        Those in use, by the name that the variable ``FEWBITS_CPU`` takes.
    threads : int
    system : str
        The operating system and the architecture.
    fewbits : str
        The version of fewbits.
    """

    cpu: str | None
    kernels: str | None
    threads: int
    system: str
    fewbits: str
