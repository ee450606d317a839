"""Probes resolvers from outside: queries them for the names of an order, and judges the responses."""
