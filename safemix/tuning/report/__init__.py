"""The report of a sweep: a table, pictures, a page, and what the terminal shows meanwhile."""
