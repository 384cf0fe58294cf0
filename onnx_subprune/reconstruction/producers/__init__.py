"""Producers refitted together with their consumers."""
