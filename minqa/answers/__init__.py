"""Answers to a question: from a checkpoint that reads it with the passage, or from vectors embedded apart."""
