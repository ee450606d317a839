"""The HTTP servers: the control API on a Unix socket, and the metrics on a separate listener."""
