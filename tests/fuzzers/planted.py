"""What no configuration may have imported that says `safe: true`."""

raise AssertionError("imported")
