"""What the services agree on: contracts, the policy language and its engine, and plumbing. Imports no service."""
