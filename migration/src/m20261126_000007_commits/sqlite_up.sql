CREATE TABLE commits (
    number INTEGER PRIMARY KEY,
    create_time_us INTEGER NOT NULL,
    transaction_ids BLOB NOT NULL,
    other_events TEXT
);
CREATE TRIGGER commits_are_not_updated BEFORE UPDATE ON commits
    BEGIN SELECT RAISE(ABORT, 'UPDATE on commits is not allowed: the ledger is append-only'); END;
CREATE TRIGGER commits_are_not_deleted BEFORE DELETE ON commits
    BEGIN SELECT RAISE(ABORT, 'DELETE on commits is not allowed: the ledger is append-only'); END;
CREATE TRIGGER commits_are_not_replaced BEFORE INSERT ON commits
    WHEN EXISTS (SELECT 1 FROM commits WHERE number = NEW.number)
    BEGIN SELECT RAISE(ABORT, 'REPLACE on commits is not allowed: the ledger is append-only'); END;
