-- What a process may send by: a bit for each channel's code. The accounts' rates are shared among those that may.
ALTER TABLE workers ADD COLUMN channels INTEGER NOT NULL DEFAULT 30;
