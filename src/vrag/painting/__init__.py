"""Masks painted by hand: one painter in JavaScript, on a local web page and in a notebook."""
