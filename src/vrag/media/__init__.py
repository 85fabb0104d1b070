"""Media: refs, pictures, masks, films and files; the only part that touches bytes."""
