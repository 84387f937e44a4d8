"""Pictures and pages from results; never imported by the other rooms."""
