-- What all processes know of a provider account.

-- A row for each account that was ever throttled, down, or limited by the day. Throttled: nothing leaves before
-- paused_until. Down: down_since is set, and at probe_at one message may try it; each that may has the next number.
CREATE TABLE account_states (
    account      INTEGER PRIMARY KEY,
    paused_until INTEGER NOT NULL DEFAULT 0,
    strikes      INTEGER NOT NULL DEFAULT 0,
    down_since   INTEGER,
    down_reason  TEXT,
    down_code    TEXT,
    probe        INTEGER NOT NULL DEFAULT 0,
    probe_wait   INTEGER NOT NULL DEFAULT 0,
    probe_at     INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Recipients to whom nothing of an account leaves before a time. The recipient is a hash.
CREATE TABLE account_pauses (
    account      INTEGER NOT NULL,
    recipient    INTEGER NOT NULL,
    paused_until INTEGER NOT NULL,
    strikes      INTEGER NOT NULL,
    PRIMARY KEY (account, recipient)
) STRICT, WITHOUT ROWID;

-- What left by quarter of an hour (of Unix time), as providers count it: an SMS of three parts is three.
CREATE TABLE account_spent (
    account INTEGER NOT NULL,
    quarter INTEGER NOT NULL,
    spent   INTEGER NOT NULL,
    PRIMARY KEY (account, quarter)
) STRICT, WITHOUT ROWID;

-- What a process, named by its first epoch, may still spend of an account's day: counted before it is spent.
CREATE TABLE account_reserves (
    account    INTEGER NOT NULL,
    spender    INTEGER NOT NULL,
    reserve    INTEGER NOT NULL,
    renewed_at INTEGER NOT NULL,
    PRIMARY KEY (account, spender)
) STRICT, WITHOUT ROWID;

-- The day before this: parts were not counted, so each send is one. Ids begin with their time in milliseconds.
INSERT INTO account_spent (account, quarter, spent)
    SELECT account, opened_at / 900000000, count(*) FROM attempts
    WHERE notification_id >= unhex(printf('%012x', unixepoch() * 1000 - 88200000) || '00000000000000000000')
        AND opened_at > unixepoch() * 1000000 - 88200000000 AND class IN (1, 6, 7)
    GROUP BY 1, 2;
