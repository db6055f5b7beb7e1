"""HTML pages: what every page is made of. A page is a single file that loads nothing."""
