"""Both models advanced through the data, chunk by chunk."""
