"""Server: images to a synthetic set, with torch."""
