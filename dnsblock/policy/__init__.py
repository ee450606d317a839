"""From sources and the ledger to what is enforced: compiled zones, and the snapshot made of them."""

from dnsblock._engine import Counts, PolicyZone, Rules, Snapshot

__all__ = ["Counts", "PolicyZone", "Rules", "Snapshot"]
