-- What all processes know of a provider account.

-- A row for each account that was ever throttled, down, or limited by the day. Throttled: nothing leaves before
-- paused_until. Down: down_since is set, and at probe_at one message may try it; each that may has the next number.
CREATE TABLE account_states (
    account      smallint PRIMARY KEY,
    paused_until bigint NOT NULL DEFAULT 0,
    strikes      integer NOT NULL DEFAULT 0,
    down_since   bigint,
    down_reason  text,
    down_code    text,
    probe        bigint NOT NULL DEFAULT 0,
    probe_wait   bigint NOT NULL DEFAULT 0,
    probe_at     bigint NOT NULL DEFAULT 0
);

-- Recipients to whom nothing of an account leaves before a time. The recipient is a hash.
CREATE TABLE account_pauses (
    account      smallint NOT NULL,
    recipient    bigint NOT NULL,
    paused_until bigint NOT NULL,
    strikes      integer NOT NULL,
    PRIMARY KEY (account, recipient)
);

-- What left by quarter of an hour (of Unix time), as providers count it: an SMS of three parts is three.
CREATE TABLE account_spent (
    account smallint NOT NULL,
    quarter bigint NOT NULL,
    spent   bigint NOT NULL,
    PRIMARY KEY (account, quarter)
);

-- What a process, named by its first epoch, may still spend of an account's day: counted before it is spent.
CREATE TABLE account_reserves (
    account    smallint NOT NULL,
    spender    bigint NOT NULL,
    reserve    bigint NOT NULL,
    renewed_at bigint NOT NULL,
    PRIMARY KEY (account, spender)
);

-- The day before this: parts were not counted, so each send is one. Ids begin with their time in milliseconds.
INSERT INTO account_spent (account, quarter, spent)
    SELECT account, opened_at / 900000000, count(*) FROM attempts
    WHERE notification_id >= (lpad(to_hex(vestnik_now() / 1000 - 88200000), 12, '0') || repeat('0', 20))::uuid
        AND opened_at > vestnik_now() - 88200000000 AND class IN (1, 6, 7)
    GROUP BY 1, 2;
