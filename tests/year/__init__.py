"""A year of a national feed, hour by hour, beside a naive model of what must be enforced."""
