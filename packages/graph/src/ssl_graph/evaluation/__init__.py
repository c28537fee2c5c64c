"""What graph representations are asked: nodes' classes, graphs' classes, links, communities."""
