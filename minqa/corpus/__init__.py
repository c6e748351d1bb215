"""Corpora: files of articles, the passages of an article, and an index on disk."""
