"""The cache: the results of steps kept in plain files, and steps run side by side."""
