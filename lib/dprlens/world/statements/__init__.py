"""Statements of the facts of real questions, written by rules."""
