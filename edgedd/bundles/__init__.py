"""What a device is given: written, signed, checked, installed."""
