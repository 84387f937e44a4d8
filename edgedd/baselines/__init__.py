"""Real images in few bytes, as honest a rival of a synthetic set as can be made: chosen, coded, labelled, trained."""
