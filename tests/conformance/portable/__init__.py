"""Promises that any resolver with a policy zone can be asked to keep (`--aim`).

These tests know a resolver's sockets, a scripted upstream behind it, and one fixed policy; nothing else.
"""
