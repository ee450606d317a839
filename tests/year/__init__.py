"""A year of a national feed, hour by hour, compared with a naive model."""
