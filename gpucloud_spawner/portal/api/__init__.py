"""The REST API: one handler per path of `routes`; the rules are the ledger's and `auth`'s."""
