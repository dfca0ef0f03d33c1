"""Caches: which rows of the canvas each step feeds, and which keys and values these see; one file per cache."""
