"""What reads one big graph: one format a file, each returning a `NodeTable`."""
