"""The files and models of the real setting: what is here, what is missing, how to get it."""
