"""Arrays and text as bytes: the file of a set, its entropy code, quantisation."""
