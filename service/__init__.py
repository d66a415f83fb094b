"""The life of a job: request, plan, ledger, driver, worker side, store. Runs processors by name and knows no physics."""
