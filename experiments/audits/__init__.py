"""Audit the networks of these experiments: what is trained here, comes from the zoo, or was imported."""
