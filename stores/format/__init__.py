"""The format of a store on disk: plan, arrays, row table, targets and manifest."""
