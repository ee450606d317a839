"""Feeds, which are lists from an HTTPS server: when to fetch them, how, and what to store."""
