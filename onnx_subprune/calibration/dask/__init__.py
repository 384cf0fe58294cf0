"""Thin adapters to other tools, each behind an extra."""
