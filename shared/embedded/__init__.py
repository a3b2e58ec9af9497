"""PostgreSQL and NATS from their wheels, as child processes: for a laptop, the tests and `recourse up`."""
