"""Budgets that are met by trying: a drop of a metric, a latency measured here.

Both walk a ladder of allocations: the sensitivities are measured once, and every rung is what the allocator makes of one fraction
of the multiply-accumulates.
"""
