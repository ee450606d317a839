"""What is enforced: compiled zones, and the snapshot made of them."""

from dnsblock._engine import Counts
from dnsblock._engine import Progress as ReadingProgress

__all__ = ["Counts", "ReadingProgress"]
