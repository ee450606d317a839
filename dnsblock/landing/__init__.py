"""The landing page, seen from the daemon: its process, the answers to its questions, its counters."""
