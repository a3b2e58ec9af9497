"""One address in front of the five services: whose path it is, one description of all of them, pages to try them out."""
