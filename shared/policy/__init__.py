"""The policy language: schema, compiler, linter, templates and the catalogue of written regimes."""
