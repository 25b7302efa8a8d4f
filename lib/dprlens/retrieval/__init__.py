"""Dense retrieval: exact search, the index in memory or in shards, BM25 and hard negatives."""
