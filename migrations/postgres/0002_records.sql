-- The CRM's records. fields is a JSON object without the id; phone, email, chat_id and contact_id are taken out of it
-- to be found by. revision begins with the time a record is made at, so that one deleted and made anew is told apart.
-- Ids and addresses sort byte by byte, as in SQLite.
CREATE TABLE records (
    kind       smallint NOT NULL,
    id         text COLLATE "C" NOT NULL,
    phone      text COLLATE "C",
    email      text COLLATE "C",
    chat_id    text COLLATE "C",
    contact_id text COLLATE "C",
    fields     text NOT NULL,
    words      tsvector NOT NULL,
    revision   bigint NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX records_phone ON records (kind, phone, id) WHERE phone IS NOT NULL;
CREATE INDEX records_email ON records (kind, email, id) WHERE email IS NOT NULL;
CREATE INDEX records_chat ON records (kind, chat_id, id) WHERE chat_id IS NOT NULL;
CREATE INDEX records_contact ON records (kind, contact_id, id) WHERE contact_id IS NOT NULL;
CREATE INDEX records_words ON records USING gin (words);

-- The names of fields that records had.
CREATE TABLE record_fields (
    kind  smallint NOT NULL,
    field text COLLATE "C" NOT NULL,
    PRIMARY KEY (kind, field)
);
