"""Where jobs are kept: `base` is the contract, `local` and `manager` meet it."""
