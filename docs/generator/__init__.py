"""Builds the documentation site and the man pages from docs/ (`make docs`, `make man`)."""
