"""The ledger as a transparency log: its Merkle tree, signed checkpoints, witnesses and proofs."""
