"""Knowledge bases: where pictures come from, how they are vetted, and how they are found."""
