"""What was lost and what was won: fidelity, metrics, latency, verification, reports."""
