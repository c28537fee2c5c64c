"""What text representations are asked: similarity, retrieval, tags, choices, proteins."""
