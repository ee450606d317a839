"""Policy zones that are received from their primaries by zone transfer, and stored as zone files."""
