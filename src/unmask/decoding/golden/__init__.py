"""Replaying recorded runs of the published reference implementations, step by step.

A kind of case is one file of this package that defines a module constant `RUNNER`; it is found by looking.
"""

from unmask.decoding.golden.replay import replay
from unmask.decoding.golden.report import CaseResult, GoldenReport

__all__ = ["CaseResult", "GoldenReport", "replay"]
