-- Tables of a later version may be used by programs that know an earlier one, so that the gateways of a fleet are upgraded one
-- after another. `usable_by` is the version that a program must know at least.
ALTER TABLE ledger_version ADD COLUMN usable_by BIGINT NOT NULL DEFAULT 1;
