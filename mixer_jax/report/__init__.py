"""Reports: one HTML page about the folders of one or more runs. The page is a single file that loads nothing."""
