"""What the notebooks compute and show: a module a notebook, each exhibit a function."""
