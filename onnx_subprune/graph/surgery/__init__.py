"""A model cut to the channels that stay."""
