"""What fits a board: its profile, memory and time of a training, the choice among forms."""
