"""The commands of `python -m dprlens`.

In reading order:

notebooks   finds the notebooks, their order and parameters; checks values, and the sources themselves
execution   runs one notebook through papermill, checks that it really ran, and makes two equal runs equal files
results     compares a notebook's numbers with the committed ones
downloads   what a reader can take from an exhibit: files, and the command that makes it again
stamp       what made a page: commit, profile, seed, world, versions
render      stages the executed notebooks with the prose, renders the site and swaps it in
book        runs what is stale, two at a time, shows how far it is, then renders
"""
