"""From sources and the ledger to what is enforced: compiled zones, and the snapshot made of them."""

from dnsblock._engine import Counts, PolicyZone, Rules, Snapshot
from dnsblock._engine import Progress as Octets

__all__ = ["Counts", "Octets", "PolicyZone", "Rules", "Snapshot"]
