"""Prompts: templates with slots, the camera words in them, lints, and batch files."""
