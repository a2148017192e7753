//! Marks the accounts that a forced transaction has taken below their limits, and gives requests what
//! only few of them have: that they were forced, and what is reversed of a transaction.

use crate::{Migration, Sql};

pub const MIGRATION: Migration = Migration {
    file: file!(),
    up: Sql { postgres: POSTGRES_UP, sqlite: SQLITE_UP },
    down: Sql { postgres: POSTGRES_DOWN, sqlite: SQLITE_DOWN },
};

// Only a forced transaction sets the mark, and the first change that makes enough available takes it off.
// So an error of a program that takes too much from an account is refused as before.
//
// requests.details is JSON. Null, as for nearly all requests, takes no room.
//
// A transaction is reversed in parts, which have numbers: 1, 2, 3 ... Two reversals that do not know of
// each other have the same one.
const POSTGRES_UP: &str = "
ALTER TABLE accounts ADD COLUMN below_limit boolean NOT NULL DEFAULT false;
ALTER TABLE accounts DROP CONSTRAINT accounts_available_is_not_negative;
ALTER TABLE accounts ADD CONSTRAINT accounts_available_is_not_negative CHECK (
    below_limit = (NOT unlimited_overdraft AND balance - held + overdraft_limit < 0));

ALTER TABLE requests ADD COLUMN details jsonb;
DROP INDEX requests_reverses_transaction_id;
CREATE UNIQUE INDEX requests_reverses_transaction_id
    ON requests (reverses_transaction_id, (COALESCE((details->'reversed'->>'count')::bigint, 1)))
    WHERE reverses_transaction_id IS NOT NULL;
";

// Fails while a request has details, such as a forced one or a reversal of a part: a repeat of it would
// get another result. Fails also while an account is below its limit.
const POSTGRES_DOWN: &str = "
ALTER TABLE requests ADD CONSTRAINT requests_have_no_details CHECK (details IS NULL);
DROP INDEX requests_reverses_transaction_id;
CREATE UNIQUE INDEX requests_reverses_transaction_id ON requests (reverses_transaction_id)
    WHERE reverses_transaction_id IS NOT NULL;
ALTER TABLE requests DROP COLUMN details;

ALTER TABLE accounts DROP CONSTRAINT accounts_available_is_not_negative;
ALTER TABLE accounts ADD CONSTRAINT accounts_available_is_not_negative
    CHECK (unlimited_overdraft OR balance - held + overdraft_limit >= 0);
ALTER TABLE accounts DROP COLUMN below_limit;
";

const SQLITE_UP: &str = "
ALTER TABLE accounts ADD COLUMN below_limit BOOLEAN NOT NULL DEFAULT false;

ALTER TABLE requests ADD COLUMN details TEXT;
DROP INDEX requests_reverses_transaction_id;
CREATE UNIQUE INDEX requests_reverses_transaction_id
    ON requests (reverses_transaction_id, COALESCE(details->'reversed'->>'count', 1))
    WHERE reverses_transaction_id IS NOT NULL;
";

const SQLITE_DOWN: &str = "
ALTER TABLE requests ADD COLUMN has_details INTEGER CHECK (details IS NULL);
ALTER TABLE requests DROP COLUMN has_details;
ALTER TABLE accounts ADD COLUMN is_below_limit INTEGER CHECK (NOT below_limit);
ALTER TABLE accounts DROP COLUMN is_below_limit;
DROP INDEX requests_reverses_transaction_id;
CREATE UNIQUE INDEX requests_reverses_transaction_id ON requests (reverses_transaction_id)
    WHERE reverses_transaction_id IS NOT NULL;
ALTER TABLE requests DROP COLUMN details;
ALTER TABLE accounts DROP COLUMN below_limit;
";
