"""The promises of the daemon, tested from outside: its sockets, its command line, its files.

Nothing here imports dnsblock. "Trap 5" in a docstring is item 5 of shared/traps.md, and "Design section 4"
that of shared/design.md, beside this repository.
"""
