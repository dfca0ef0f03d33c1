"""Figures, tables and plots of what the readings found."""
