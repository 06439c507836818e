"""The migration lab: what contrib/lab/migration is made of."""
