"""Corpora of any size: their passages encoded shard by shard, and searched without ever being in memory as a whole.

`plan` deals passages to shards, `shards` says when one is done, `encode` makes them on one machine or under torchrun,
`cluster` on many machines through Ray (imported only by whoever asks for it), `search` ranks exactly, `compressed`
approximately, and `trec` writes rankings for other people's evaluators.
"""
