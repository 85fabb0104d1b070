"""Pages for people: a video with its pictures and its proof."""
