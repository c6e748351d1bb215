"""`python -m minqa` is the command line."""

if __name__ == "__main__":
    from minqa.app.start import run

    run()
