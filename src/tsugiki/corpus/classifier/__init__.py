"""A quality classifier that a user trains from two sets of documents, or loads."""
