"""Painters, from their network to nst paint."""
