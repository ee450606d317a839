"""What is enforced: compiled zones, and the snapshot made of them."""

from dnsblock._engine import Counts, PolicyZone, Rules, Snapshot
from dnsblock._engine import Progress as ReadingProgress

__all__ = ["Counts", "PolicyZone", "ReadingProgress", "Rules", "Snapshot"]
