"""The page in a browser: a queue of runs of `nst fit`, their controls in a painter's words, and a gallery of them."""
