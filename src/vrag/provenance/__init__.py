"""The proof: records, keys, verification."""
