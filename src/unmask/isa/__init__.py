"""The instruction table and what is derived from it."""
