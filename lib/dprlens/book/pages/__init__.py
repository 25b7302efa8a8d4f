"""The pages of the book that are written when it is rendered."""
