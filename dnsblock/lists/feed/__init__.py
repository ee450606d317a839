"""Lists from an HTTPS server: when to fetch one, how, and what is kept of it."""
