"""Run folders in, one HTML page out: a single file that loads nothing from anywhere. Nothing is trained here."""
