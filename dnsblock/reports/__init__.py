"""Reports for the public, made from the ledger."""
