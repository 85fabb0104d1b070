"""The frozen values that flow: assets, vectors, briefs, requests, jobs."""
