"""Corpora of any size: passages encoded shard by shard, and searched without being in memory as a whole.

`plan` assigns passages to shards, `shards` records which are done, `encode` makes them on one machine or under
torchrun, `cluster` on many machines through Ray (imported only where it is used), `search` ranks exactly, `compressed`
approximately, and `trec` writes rankings for other evaluators.
"""
