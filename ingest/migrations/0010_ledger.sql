-- Rows of the ledger whose last part has not come: found at every ledger record, among all that were ever kept.
CREATE INDEX ledger_pending ON store.ledger (edge, epoch) WHERE pending_samples <> 0 OR pending_checksum <> 0;
