"""What speaks HTTP: the control API on a Unix socket, and the metrics on a listener of their own."""
