"""`python -m services.cli`, for places without the console script."""

from __future__ import annotations

from services.cli import main

if __name__ == "__main__":
    main()
