"""Results on disk as one page of HTML that needs nothing else: the command `nst report`."""
