"""GPU-hours as a finance department needs them: the ledger, who writes it, what it answers.

`meter.Meter` is the one writer; `statements`, `idle`, `budgets`, `prices` and `adjustments` are
what others call. Nothing here knows HTTP or the hub.
"""
