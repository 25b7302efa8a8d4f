"""The explorer: one question, and what the models make of it."""
