"""The promises of the daemon, tested from outside: its sockets, its command line, its files.

Nothing here imports dnsblock. A test's name is the promise, and its docstring gives the source or the reason.
"Trap 5" is section 5 of docs/conformance.md, which `make conformance` writes from the tests.
"""
