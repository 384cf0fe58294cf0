"""Doors for other tools: each module imports the tool that it is for, and nothing else of the package imports it."""
