"""Signatures of order documents, in the SSHSIG format of OpenSSH, and the keys that make them.

Nothing here imports `cryptography` before a signature is made or verified, so the startup of the daemon and
other commands need not wait for it.
"""
