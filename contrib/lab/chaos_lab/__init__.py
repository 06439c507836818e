"""Endurance: what contrib/lab/chaos is made of, beside migration_lab."""
