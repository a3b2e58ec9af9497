"""What sla decides, as values in and values out."""
