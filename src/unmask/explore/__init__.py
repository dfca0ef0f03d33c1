"""Search over machines: a space of machine descriptions, many of them timed, and those that no other beats in everything."""
