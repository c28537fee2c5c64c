"""Scans on disk: one reader a format, all giving a `Volume` in millimetres."""
