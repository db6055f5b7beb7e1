"""Find copies of other sets' images."""
