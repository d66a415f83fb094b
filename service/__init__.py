"""The life of a job: request, plan, ledger, driver, worker side, store; no physics is named here."""
