"""The brokers: `base` is the contract; `local` and `manager` implement it."""
