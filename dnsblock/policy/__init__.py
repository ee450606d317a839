"""Policy zones and the snapshot made of them: all that is enforced."""

from dnsblock._engine import Counts
from dnsblock._engine import Progress as ReadingProgress

__all__ = ["Counts", "ReadingProgress"]
