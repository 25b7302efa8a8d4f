"""Statements about the facts of real questions, written by rules."""
