"""Where an error was raised, without its message: that may contain what a visitor sent."""

from pathlib import PurePath


def place_of(error: BaseException) -> str:
    """The type of an error, and the lines of code that it came through last."""
    frames: list[str] = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__} ({' '.join(frames[-3:])})"
