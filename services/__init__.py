"""The five services of Recourse, and the composition roots that run them together."""
