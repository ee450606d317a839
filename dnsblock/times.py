"""Parses times that people and programs write, and formats times for them."""

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

NOT_A_TIME = (
    "not a time, or not in the years 1 to 9999 in UTC: write it as 2017-08-10T10:46:00+07:00, "
    "or as 2017-08-10 10:46 in `time_zone`"
)


def moment(text: str, zone: tzinfo = UTC) -> datetime:
    """Parses a time to UTC; `zone` applies if the text has no offset.

    Raises `ValueError` for a text that is not a time, and for a time before year 1 or after year 9999 in UTC.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        time = time.replace(tzinfo=zone)
    try:
        return time.astimezone(UTC)
    except OverflowError as err:
        raise ValueError("out of range") from err


def utc(time: datetime) -> str:
    """A time as RFC 3339 in UTC, in whole seconds, for programs."""
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def local(time: datetime, zone: tzinfo) -> str:
    """A time in a time zone, with its abbreviation, for people."""
    try:
        shown = time.astimezone(zone)
    except OverflowError:  # within a day of year 1 or of year 9999
        shown = time.astimezone(UTC)
    # `%Y` does not pad a year below 1000 on every system.
    return f"{shown.year:04}{shown.strftime('-%m-%d %H:%M:%S %Z')}"


def local_text(text: str, zone: str) -> str:
    """A time of the API in a time zone, for people."""
    return local(datetime.fromisoformat(text), ZoneInfo(zone))


def duration(seconds: int, units: tuple[str, str, str] = ("d", "h", "min")) -> str:
    """A time span in its two largest units, rounded down."""
    day, hour, minute = units
    minutes = seconds // 60
    days, hours, rest = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} {day} {hours} {hour}"
    return f"{hours} {hour} {rest} {minute}" if hours else f"{rest} {minute}"
