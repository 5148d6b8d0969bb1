"""What no configuration may have imported that is read with --safe."""


class X:
    """A class that configurations name."""
