-- The CRM's records. fields is a JSON object without the id; phone, email, chat_id and contact_id are taken out of it
-- to be found by. revision begins with the time a record is made at, so that one deleted and made anew is told apart.
CREATE TABLE records (
    row        INTEGER PRIMARY KEY,
    kind       INTEGER NOT NULL,
    id         TEXT NOT NULL,
    phone      TEXT,
    email      TEXT,
    chat_id    TEXT,
    contact_id TEXT,
    fields     TEXT NOT NULL,
    words      TEXT NOT NULL,
    revision   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (kind, id)
) STRICT;
CREATE INDEX records_phone ON records (kind, phone, id) WHERE phone IS NOT NULL;
CREATE INDEX records_email ON records (kind, email, id) WHERE email IS NOT NULL;
CREATE INDEX records_chat ON records (kind, chat_id, id) WHERE chat_id IS NOT NULL;
CREATE INDEX records_contact ON records (kind, contact_id, id) WHERE contact_id IS NOT NULL;

-- The index over words, which come split and in small letters. What is deleted leaves it at once.
CREATE VIRTUAL TABLE record_words USING fts5
    (words, content = 'records', content_rowid = 'row', tokenize = 'ascii', detail = 'none', columnsize = 0);
INSERT INTO record_words (record_words, rank) VALUES ('secure-delete', 1);
CREATE TRIGGER records_inserted AFTER INSERT ON records BEGIN
    INSERT INTO record_words (rowid, words) VALUES (new.row, new.words);
END;
-- Only the words that went and came are touched. They are letters and digits, each after a space.
CREATE TRIGGER records_updated AFTER UPDATE OF words ON records WHEN old.words <> new.words BEGIN
    INSERT INTO record_words (record_words, rowid, words) VALUES ('delete', old.row, (
        SELECT coalesce(group_concat(value, ' '), '') FROM json_each('["' || replace(trim(old.words), ' ', '","') || '"]')
        WHERE instr(new.words || ' ', ' ' || value || ' ') = 0));
    INSERT INTO record_words (rowid, words) VALUES (new.row, (
        SELECT coalesce(group_concat(value, ' '), '') FROM json_each('["' || replace(trim(new.words), ' ', '","') || '"]')
        WHERE instr(old.words || ' ', ' ' || value || ' ') = 0));
END;
CREATE TRIGGER records_deleted AFTER DELETE ON records BEGIN
    INSERT INTO record_words (record_words, rowid, words) VALUES ('delete', old.row, old.words);
END;

-- The names of fields that records had.
CREATE TABLE record_fields (
    kind  INTEGER NOT NULL,
    field TEXT NOT NULL,
    PRIMARY KEY (kind, field)
) STRICT, WITHOUT ROWID;
