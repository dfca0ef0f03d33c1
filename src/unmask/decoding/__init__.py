"""Schedules, samplers, caches, guidance: the reference, and the policy objects that the compiler also reads."""
