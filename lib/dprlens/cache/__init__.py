"""The cache: what a step computed is kept in plain files; steps side by side."""
