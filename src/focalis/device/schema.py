"""The tables of the store, as the steps that lead from one version of it to the next."""

from __future__ import annotations

import re
from functools import reduce

_FIRST = """
CREATE TABLE series (
    series_uid TEXT PRIMARY KEY, study_uid TEXT NOT NULL, modality TEXT NOT NULL, body_part TEXT NOT NULL,
    description TEXT NOT NULL, manufacturer_model TEXT NOT NULL, state TEXT NOT NULL,
    first_at TEXT NOT NULL, last_at TEXT NOT NULL, expected INTEGER);
CREATE INDEX series_by_state ON series (state);
CREATE TABLE instances (
    sop_uid TEXT PRIMARY KEY, series_uid TEXT NOT NULL REFERENCES series ON DELETE CASCADE,
    study_uid TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, source TEXT NOT NULL,
    received_at TEXT NOT NULL);
CREATE INDEX instances_by_series ON instances (series_uid);
CREATE TABLE quarantine (
    sha256 TEXT PRIMARY KEY, bytes INTEGER NOT NULL, reason TEXT NOT NULL, source TEXT NOT NULL,
    at TEXT NOT NULL, series_uid TEXT);
CREATE TABLE watched (path TEXT PRIMARY KEY, bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL);
CREATE TABLE tasks (
    task_id TEXT PRIMARY KEY, series_uid TEXT NOT NULL REFERENCES series ON DELETE CASCADE,
    model TEXT NOT NULL, model_sha256 TEXT NOT NULL, input_sha256 TEXT NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL, seconds REAL,
    supersedes TEXT REFERENCES tasks ON DELETE SET NULL);
CREATE INDEX tasks_by_series ON tasks (series_uid);
CREATE INDEX tasks_by_age ON tasks (created_at);
CREATE INDEX tasks_superseded ON tasks (supersedes);
CREATE TABLE results (
    task_id TEXT NOT NULL REFERENCES tasks ON DELETE CASCADE, kind TEXT NOT NULL, sop_uid TEXT NOT NULL,
    sha256 TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY (task_id, sop_uid));
CREATE TABLE deliveries (
    task_id TEXT NOT NULL REFERENCES tasks ON DELETE CASCADE, kind TEXT NOT NULL, sop_uid TEXT NOT NULL,
    destination TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL, last_error TEXT NOT NULL,
    next_at TEXT, sent_at TEXT, PRIMARY KEY (task_id, sop_uid, destination));
CREATE INDEX deliveries_by_state ON deliveries (state);
CREATE TABLE reviews (
    task_id TEXT NOT NULL REFERENCES tasks ON DELETE CASCADE, lesion INTEGER NOT NULL, verdict TEXT NOT NULL,
    by TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (task_id, lesion));
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, level TEXT NOT NULL, text TEXT NOT NULL,
    task_id TEXT, series_uid TEXT);
"""
_WHOLENESS_AND_SCOPE = """
ALTER TABLE series ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE series ADD COLUMN released TEXT NOT NULL DEFAULT '';
ALTER TABLE series ADD COLUMN pause_seconds REAL NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN frames INTEGER NOT NULL DEFAULT 1;
ALTER TABLE instances ADD COLUMN number INTEGER;
ALTER TABLE instances ADD COLUMN acquisition TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN acquisition_images INTEGER;
ALTER TABLE instances ADD COLUMN normal TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN position_mm REAL;
CREATE INDEX instances_by_study ON instances (study_uid);
ALTER TABLE quarantine ADD COLUMN sop_uid TEXT;
CREATE INDEX quarantine_by_series ON quarantine (series_uid);
ALTER TABLE tasks ADD COLUMN partial TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN outside TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN released TEXT NOT NULL DEFAULT '';
UPDATE tasks SET outside = coalesce((
    SELECT substr(text, instr(text, 'lies outside of')) FROM events
    WHERE events.task_id = tasks.task_id AND level = 'warning' AND instr(text, 'lies outside of') > 0
    ORDER BY number DESC LIMIT 1), '');
CREATE TABLE sendings (
    number INTEGER PRIMARY KEY AUTOINCREMENT, series_uid TEXT NOT NULL, began_at TEXT NOT NULL,
    ended_at TEXT, fault TEXT NOT NULL DEFAULT '');
CREATE INDEX sendings_by_series ON sendings (series_uid);
CREATE TABLE refusals (
    peer TEXT NOT NULL, reason TEXT NOT NULL, times INTEGER NOT NULL, first_at TEXT NOT NULL,
    last_at TEXT NOT NULL, PRIMARY KEY (peer, reason));
"""
_PERSON = """
ALTER TABLE series ADD COLUMN person TEXT NOT NULL DEFAULT '';
CREATE INDEX series_by_person ON series (person);
"""
_NOTICES = """
CREATE TABLE notices (
    number INTEGER PRIMARY KEY AUTOINCREMENT, recipient TEXT NOT NULL, key TEXT NOT NULL, event TEXT NOT NULL,
    text TEXT NOT NULL, at TEXT NOT NULL, task_id TEXT, series_uid TEXT, state TEXT NOT NULL,
    attempts INTEGER NOT NULL, last_error TEXT NOT NULL, next_at TEXT, UNIQUE (recipient, key));
CREATE INDEX notices_by_state ON notices (state);
"""
_ACCOUNTS = """
CREATE TABLE accounts (
    name TEXT PRIMARY KEY, password_hash TEXT NOT NULL, role TEXT NOT NULL, disabled INTEGER NOT NULL);
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, who TEXT NOT NULL, address TEXT NOT NULL,
    did TEXT NOT NULL, task_id TEXT, series_uid TEXT);
"""
_ROUTING = """
ALTER TABLE series ADD COLUMN told TEXT NOT NULL DEFAULT '{}';
ALTER TABLE instances ADD COLUMN left_out INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN urgent INTEGER NOT NULL DEFAULT 0;
"""
_COMMITMENTS = """
CREATE TABLE commitments (
    transaction_uid TEXT PRIMARY KEY, task_id TEXT NOT NULL REFERENCES tasks ON DELETE CASCADE,
    destination TEXT NOT NULL, at TEXT NOT NULL);
"""
_SECRETS = "CREATE TABLE secrets (name TEXT PRIMARY KEY, value TEXT NOT NULL);"
_TRIALS = """
ALTER TABLE tasks ADD COLUMN shadow_of TEXT NOT NULL DEFAULT '';
CREATE TABLE roles (
    model TEXT PRIMARY KEY, current TEXT NOT NULL, shadow TEXT NOT NULL, who TEXT NOT NULL, at TEXT NOT NULL);
"""
_NAMESAKES = """
ALTER TABLE series ADD COLUMN namesake TEXT NOT NULL DEFAULT '';
CREATE INDEX series_by_namesake ON series (namesake);
"""
_SIGN_ON = "ALTER TABLE accounts ADD COLUMN subject TEXT NOT NULL DEFAULT '';"
_RETRAININGS = """
ALTER TABLE roles ADD COLUMN stated TEXT NOT NULL DEFAULT '';
UPDATE roles SET stated = CASE WHEN current = model THEN shadow ELSE current END;
CREATE TABLE retrainings (
    number INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL, who TEXT NOT NULL, at TEXT NOT NULL, ended_at TEXT NOT NULL, sha256 TEXT NOT NULL,
    judged TEXT NOT NULL);
"""
_EDITS = """
CREATE TABLE edits (
    number INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL REFERENCES tasks ON DELETE CASCADE,
    lesion INTEGER NOT NULL, operation TEXT NOT NULL, voxels TEXT NOT NULL, before TEXT NOT NULL,
    by TEXT NOT NULL, at TEXT NOT NULL, undone_by TEXT NOT NULL DEFAULT '');
CREATE INDEX edits_by_task ON edits (task_id);
"""
_CAUSES = """
ALTER TABLE quarantine ADD COLUMN cause TEXT NOT NULL DEFAULT '';
UPDATE quarantine SET cause = reason;
"""
STEPS = (
    _FIRST,
    _WHOLENESS_AND_SCOPE,
    _PERSON,
    _NOTICES,
    _ACCOUNTS,
    _ROUTING,
    _COMMITMENTS,
    _SECRETS,
    _TRIALS,
    _NAMESAKES,
    _SIGN_ON,
    _RETRAININGS,
    _EDITS,
    _CAUSES,
)
"""What makes each version out of the one before it, in SQLite's words; see `for_postgresql`."""

TABLES = tuple(re.findall(r"CREATE TABLE (\w+)", "".join(STEPS)))
"""In an order in which none refers to a later one."""

# What SQLite has by itself: a number of each row in the order of their insertion, and instr.
_FIRST_OF_POSTGRESQL = """
CREATE TABLE version (number BIGINT NOT NULL);
ALTER TABLE tasks ADD COLUMN rowid BIGINT GENERATED BY DEFAULT AS IDENTITY;
ALTER TABLE results ADD COLUMN rowid BIGINT GENERATED BY DEFAULT AS IDENTITY;
ALTER TABLE deliveries ADD COLUMN rowid BIGINT GENERATED BY DEFAULT AS IDENTITY;
CREATE FUNCTION instr(TEXT, TEXT) RETURNS INTEGER LANGUAGE SQL IMMUTABLE AS 'SELECT strpos($1, $2)';
"""
_TYPES = {
    " INTEGER PRIMARY KEY AUTOINCREMENT": " BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
    " INTEGER": " BIGINT",
    " REAL": " DOUBLE PRECISION",
    " TEXT": ' TEXT COLLATE "C"',  # sorted as SQLite sorts, whatever the language of the database
}


def for_postgresql(step: str) -> str:
    """A step in PostgreSQL's words."""
    told = reduce(lambda text, pair: text.replace(*pair), _TYPES.items(), step)
    return told + _FIRST_OF_POSTGRESQL if step is _FIRST else told
