"""Backends on AWS, and on OpenSearch wherever it runs. Every one takes a ready-made client."""
