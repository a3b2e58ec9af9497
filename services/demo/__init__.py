"""The demonstration: four organisations, their complaints, three weeks of them, and an audit of everything that was promised."""
