"""`python -m service` is `svc`."""

from service.cli import main

if __name__ == "__main__":
    main()
