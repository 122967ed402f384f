"""Files of every earlier version open and keep what is in them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlite_utils import Database, Migrations

from finetune.errors import FinetuneError
from finetune.feedback import Runs, Store, database
from finetune.feedback.comments import RoundClip
from finetune.feedback.schema import SET, STEPS, migrations

# A file of version 1 as it was dumped when version 1 was made. It is a record: it is never edited, the next version
# gets a record of its own.
VERSION_1 = """
CREATE TABLE "_sqlite_migrations" ("id" INTEGER PRIMARY KEY, "migration_set" TEXT, "name" TEXT, "applied_at" TEXT);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name" ON "_sqlite_migrations" ("migration_set", "name");
CREATE TABLE videos (sha256 TEXT PRIMARY KEY NOT NULL CHECK (length(sha256) = 64), name TEXT NOT NULL,
    path TEXT NOT NULL, probe TEXT NOT NULL CHECK (json_valid(probe)), created TEXT NOT NULL) STRICT;
CREATE TABLE conversations (id TEXT PRIMARY KEY NOT NULL, title TEXT NOT NULL, created TEXT NOT NULL,
    updated TEXT NOT NULL, model TEXT, language TEXT) STRICT;
CREATE TABLE questions (id TEXT PRIMARY KEY NOT NULL,
    conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE, position INTEGER NOT NULL,
    text TEXT NOT NULL, video TEXT REFERENCES videos(sha256), clip_start REAL, clip_end REAL, mode TEXT NOT NULL,
    sampling TEXT NOT NULL CHECK (json_valid(sampling)), created TEXT NOT NULL,
    UNIQUE (conversation_id, position)) STRICT;
CREATE TABLE answers (id TEXT PRIMARY KEY NOT NULL,
    question_id TEXT NOT NULL REFERENCES questions(id) ON DELETE CASCADE, text TEXT NOT NULL, raw_text TEXT,
    finish TEXT NOT NULL CHECK (finish IN ('running', 'stop', 'length', 'stopped', 'error')), error TEXT,
    mode TEXT NOT NULL, model TEXT, checkpoint TEXT, adapter TEXT, runtime TEXT,
    decoding TEXT CHECK (decoding IS NULL OR json_valid(decoding)),
    frames TEXT CHECK (frames IS NULL OR json_valid(frames)), usage TEXT CHECK (usage IS NULL OR json_valid(usage)),
    timings TEXT CHECK (timings IS NULL OR json_valid(timings)), created TEXT NOT NULL, writer_pid INTEGER NOT NULL,
    writer_started TEXT NOT NULL) STRICT;
CREATE INDEX conversations_by_age ON conversations(updated, id);
CREATE INDEX questions_of_video ON questions(video);
CREATE INDEX answers_of_question ON answers(question_id, id);
CREATE INDEX answers_running ON answers(writer_pid) WHERE finish = 'running';
INSERT INTO "_sqlite_migrations" VALUES (1, 'keye_studio', 'm001_conversations', '2025-01-01 00:00:00.000000+00:00');
INSERT INTO videos VALUES ('cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', '猫.mp4', '/v/c.mp4',
    '{"fps": 25}', '2025-01-01T00:00:00.000Z');
INSERT INTO conversations VALUES ('c1', 'What is it?', '2025-01-01T00:00:00.000Z', '2025-01-02T00:00:00.000Z',
    'keye-nano', NULL);
INSERT INTO questions VALUES ('q1', 'c1', 0, 'What is it?',
    'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', 1.5, NULL, 'auto', '{"fps": 2.0}',
    '2025-01-01T00:00:00.000Z');
INSERT INTO answers VALUES ('a1', 'q1', 'A cat', NULL, 'stop', NULL, 'auto', 'keye-nano', '/m/nano', NULL, 'local',
    '{"seed": 1}', '{"times": [1.5]}', NULL, '{"total": 0.5}', '2025-01-01T00:00:01.000Z', 1, 'then');
"""
VERSION_2 = """
CREATE TABLE "_sqlite_migrations" ("id" INTEGER PRIMARY KEY, "migration_set" TEXT, "name" TEXT, "applied_at" TEXT);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name" ON "_sqlite_migrations" ("migration_set", "name");
CREATE TABLE videos (sha256 TEXT PRIMARY KEY NOT NULL CHECK (length(sha256) = 64), name TEXT NOT NULL,
    path TEXT NOT NULL, probe TEXT NOT NULL CHECK (json_valid(probe)), created TEXT NOT NULL) STRICT;
CREATE TABLE conversations (id TEXT PRIMARY KEY NOT NULL, title TEXT NOT NULL, created TEXT NOT NULL,
    updated TEXT NOT NULL, model TEXT, language TEXT) STRICT;
CREATE TABLE questions (id TEXT PRIMARY KEY NOT NULL,
    conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE, position INTEGER NOT NULL,
    text TEXT NOT NULL, video TEXT REFERENCES videos(sha256), clip_start REAL, clip_end REAL, mode TEXT NOT NULL,
    sampling TEXT NOT NULL CHECK (json_valid(sampling)), created TEXT NOT NULL,
    UNIQUE (conversation_id, position)) STRICT;
CREATE TABLE answers (id TEXT PRIMARY KEY NOT NULL,
    question_id TEXT NOT NULL REFERENCES questions(id) ON DELETE CASCADE, text TEXT NOT NULL, raw_text TEXT,
    finish TEXT NOT NULL CHECK (finish IN ('running', 'stop', 'length', 'stopped', 'error')), error TEXT,
    mode TEXT NOT NULL, model TEXT, checkpoint TEXT, adapter TEXT, runtime TEXT,
    decoding TEXT CHECK (decoding IS NULL OR json_valid(decoding)),
    frames TEXT CHECK (frames IS NULL OR json_valid(frames)), usage TEXT CHECK (usage IS NULL OR json_valid(usage)),
    timings TEXT CHECK (timings IS NULL OR json_valid(timings)), created TEXT NOT NULL, writer_pid INTEGER NOT NULL,
    writer_started TEXT NOT NULL,
    reasoning TEXT CHECK (reasoning IS NULL OR json_valid(reasoning))) STRICT;
CREATE INDEX conversations_by_age ON conversations(updated, id);
CREATE INDEX questions_of_video ON questions(video);
CREATE INDEX answers_of_question ON answers(question_id, id);
CREATE INDEX answers_running ON answers(writer_pid) WHERE finish = 'running';
INSERT INTO "_sqlite_migrations" VALUES (1, 'keye_studio', 'm001_conversations', '2025-01-01 00:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES (2, 'keye_studio', 'm002_reasoning', '2025-02-01 00:00:00.000000+00:00');
INSERT INTO videos VALUES ('cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', '猫.mp4', '/v/c.mp4',
    '{"fps": 25}', '2025-01-01T00:00:00.000Z');
INSERT INTO conversations VALUES ('c1', 'What is it?', '2025-01-01T00:00:00.000Z', '2025-01-02T00:00:00.000Z',
    'keye-nano', NULL);
INSERT INTO questions VALUES ('q1', 'c1', 0, 'What is it?',
    'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', 1.5, NULL, 'auto', '{"fps": 2.0}',
    '2025-01-01T00:00:00.000Z');
INSERT INTO answers VALUES ('a1', 'q1', 'A cat', NULL, 'stop', NULL, 'auto', 'keye-nano', '/m/nano', NULL, 'local',
    '{"seed": 1}', '{"times": [1.5]}', NULL, '{"total": 0.5}', '2025-01-01T00:00:01.000Z', 1, 'then',
    '{"steps": [{"kind": "thought", "text": "Whiskers."}]}');
"""
VERSION_3 = """
CREATE TABLE "_sqlite_migrations" ("id" INTEGER PRIMARY KEY, "migration_set" TEXT, "name" TEXT, "applied_at" TEXT);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name" ON "_sqlite_migrations" ("migration_set", "name");
CREATE TABLE videos (sha256 TEXT PRIMARY KEY NOT NULL CHECK (length(sha256) = 64), name TEXT NOT NULL,
    path TEXT NOT NULL, probe TEXT NOT NULL CHECK (json_valid(probe)), created TEXT NOT NULL) STRICT;
CREATE TABLE conversations (id TEXT PRIMARY KEY NOT NULL, title TEXT NOT NULL, created TEXT NOT NULL,
    updated TEXT NOT NULL, model TEXT, language TEXT) STRICT;
CREATE TABLE questions (id TEXT PRIMARY KEY NOT NULL,
    conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE, position INTEGER NOT NULL,
    text TEXT NOT NULL, video TEXT REFERENCES videos(sha256), clip_start REAL, clip_end REAL, mode TEXT NOT NULL,
    sampling TEXT NOT NULL CHECK (json_valid(sampling)), created TEXT NOT NULL,
    UNIQUE (conversation_id, position)) STRICT;
CREATE TABLE answers (id TEXT PRIMARY KEY NOT NULL,
    question_id TEXT NOT NULL REFERENCES questions(id) ON DELETE CASCADE, text TEXT NOT NULL, raw_text TEXT,
    finish TEXT NOT NULL CHECK (finish IN ('running', 'stop', 'length', 'stopped', 'error')), error TEXT,
    mode TEXT NOT NULL, model TEXT, checkpoint TEXT, adapter TEXT, runtime TEXT,
    decoding TEXT CHECK (decoding IS NULL OR json_valid(decoding)),
    frames TEXT CHECK (frames IS NULL OR json_valid(frames)), usage TEXT CHECK (usage IS NULL OR json_valid(usage)),
    timings TEXT CHECK (timings IS NULL OR json_valid(timings)), created TEXT NOT NULL, writer_pid INTEGER NOT NULL,
    writer_started TEXT NOT NULL,
    reasoning TEXT CHECK (reasoning IS NULL OR json_valid(reasoning))) STRICT;
CREATE TABLE runs (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL,
    recipe TEXT NOT NULL CHECK (json_valid(recipe)), folder TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'paused', 'done', 'failed', 'stopped')),
    sentence TEXT, model TEXT, code TEXT NOT NULL, seed INTEGER NOT NULL, created TEXT NOT NULL,
    updated TEXT NOT NULL, writer_pid INTEGER, writer_started TEXT,
    CHECK (status != 'running' OR (writer_pid IS NOT NULL AND writer_started IS NOT NULL))) STRICT;
CREATE TABLE stages (run_id TEXT NOT NULL REFERENCES runs(id) ON DELETE CASCADE, name TEXT NOT NULL,
    position INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('running', 'paused', 'done', 'failed', 'stopped')), folder TEXT,
    seconds REAL NOT NULL, examples INTEGER NOT NULL, tokens INTEGER NOT NULL, steps INTEGER NOT NULL,
    accuracy TEXT CHECK (accuracy IS NULL OR json_valid(accuracy)), created TEXT NOT NULL, updated TEXT NOT NULL,
    PRIMARY KEY (run_id, name)) STRICT;
CREATE TABLE metrics (run_id TEXT NOT NULL, stage TEXT NOT NULL, step INTEGER NOT NULL,
    figures TEXT NOT NULL CHECK (json_valid(figures)), created TEXT NOT NULL, PRIMARY KEY (run_id, stage, step),
    FOREIGN KEY (run_id, stage) REFERENCES stages(run_id, name) ON DELETE CASCADE) STRICT;
CREATE INDEX conversations_by_age ON conversations(updated, id);
CREATE INDEX questions_of_video ON questions(video);
CREATE INDEX answers_of_question ON answers(question_id, id);
CREATE INDEX answers_running ON answers(writer_pid) WHERE finish = 'running';
CREATE INDEX runs_of_folder ON runs(folder, id);
CREATE INDEX runs_running ON runs(writer_pid) WHERE status = 'running';
INSERT INTO "_sqlite_migrations" VALUES (1, 'keye_studio', 'm001_conversations', '2025-01-01 00:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES (2, 'keye_studio', 'm002_reasoning', '2025-02-01 00:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES (3, 'keye_studio', 'm003_runs', '2025-03-01 00:00:00.000000+00:00');
INSERT INTO videos VALUES ('cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', '猫.mp4', '/v/c.mp4',
    '{"fps": 25}', '2025-01-01T00:00:00.000Z');
INSERT INTO conversations VALUES ('c1', 'What is it?', '2025-01-01T00:00:00.000Z', '2025-01-02T00:00:00.000Z',
    'keye-nano', NULL);
INSERT INTO questions VALUES ('q1', 'c1', 0, 'What is it?',
    'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', 1.5, NULL, 'auto', '{"fps": 2.0}',
    '2025-01-01T00:00:00.000Z');
INSERT INTO answers VALUES ('a1', 'q1', 'A cat', NULL, 'stop', NULL, 'auto', 'keye-nano', '/m/nano', NULL, 'local',
    '{"seed": 1}', '{"times": [1.5]}', NULL, '{"total": 0.5}', '2025-01-01T00:00:01.000Z', 1, 'then',
    '{"steps": [{"kind": "thought", "text": "Whiskers."}]}');
INSERT INTO runs VALUES ('0000000000000001', 'nano', '{"seed": 7}', '/runs/nano', 'running', NULL, NULL, '0.1.0', 7,
    '2025-03-01T00:00:00.000Z', '2025-03-01T00:00:02.000Z', 1, 'then');
INSERT INTO stages VALUES ('0000000000000001', 'stage0', 0, 'running', NULL, 0.0, 0, 0, 25, NULL,
    '2025-03-01T00:00:01.000Z', '2025-03-01T00:00:02.000Z');
INSERT INTO metrics VALUES ('0000000000000001', 'stage0', 25, '{"loss": 3.5}', '2025-03-01T00:00:02.000Z');
"""
VERSION_4 = """
CREATE TABLE "_sqlite_migrations" ("id" INTEGER PRIMARY KEY, "migration_set" TEXT, "name" TEXT, "applied_at" TEXT);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name" ON "_sqlite_migrations" ("migration_set", "name");
CREATE TABLE videos (sha256 TEXT PRIMARY KEY NOT NULL CHECK (length(sha256) = 64), name TEXT NOT NULL,
    path TEXT NOT NULL, probe TEXT NOT NULL CHECK (json_valid(probe)), created TEXT NOT NULL) STRICT;
CREATE TABLE conversations (id TEXT PRIMARY KEY NOT NULL, title TEXT NOT NULL, created TEXT NOT NULL,
    updated TEXT NOT NULL, model TEXT, language TEXT) STRICT;
CREATE TABLE questions (id TEXT PRIMARY KEY NOT NULL,
    conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE, position INTEGER NOT NULL,
    text TEXT NOT NULL, video TEXT REFERENCES videos(sha256), clip_start REAL, clip_end REAL, mode TEXT NOT NULL,
    sampling TEXT NOT NULL CHECK (json_valid(sampling)), created TEXT NOT NULL,
    UNIQUE (conversation_id, position)) STRICT;
CREATE TABLE answers (id TEXT PRIMARY KEY NOT NULL,
    question_id TEXT NOT NULL REFERENCES questions(id) ON DELETE CASCADE, text TEXT NOT NULL, raw_text TEXT,
    finish TEXT NOT NULL CHECK (finish IN ('running', 'stop', 'length', 'stopped', 'error')), error TEXT,
    mode TEXT NOT NULL, model TEXT, checkpoint TEXT, adapter TEXT, runtime TEXT,
    decoding TEXT CHECK (decoding IS NULL OR json_valid(decoding)),
    frames TEXT CHECK (frames IS NULL OR json_valid(frames)), usage TEXT CHECK (usage IS NULL OR json_valid(usage)),
    timings TEXT CHECK (timings IS NULL OR json_valid(timings)), created TEXT NOT NULL, writer_pid INTEGER NOT NULL,
    writer_started TEXT NOT NULL,
    reasoning TEXT CHECK (reasoning IS NULL OR json_valid(reasoning))) STRICT;
CREATE TABLE runs (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL,
    recipe TEXT NOT NULL CHECK (json_valid(recipe)), folder TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'paused', 'done', 'failed', 'stopped')),
    sentence TEXT, model TEXT, code TEXT NOT NULL, seed INTEGER NOT NULL, created TEXT NOT NULL,
    updated TEXT NOT NULL, writer_pid INTEGER, writer_started TEXT,
    CHECK (status != 'running' OR (writer_pid IS NOT NULL AND writer_started IS NOT NULL))) STRICT;
CREATE TABLE stages (run_id TEXT NOT NULL REFERENCES runs(id) ON DELETE CASCADE, name TEXT NOT NULL,
    position INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('running', 'paused', 'done', 'failed', 'stopped')), folder TEXT,
    seconds REAL NOT NULL, examples INTEGER NOT NULL, tokens INTEGER NOT NULL, steps INTEGER NOT NULL,
    accuracy TEXT CHECK (accuracy IS NULL OR json_valid(accuracy)), created TEXT NOT NULL, updated TEXT NOT NULL,
    PRIMARY KEY (run_id, name)) STRICT;
CREATE TABLE metrics (run_id TEXT NOT NULL, stage TEXT NOT NULL, step INTEGER NOT NULL,
    figures TEXT NOT NULL CHECK (json_valid(figures)), created TEXT NOT NULL, PRIMARY KEY (run_id, stage, step),
    FOREIGN KEY (run_id, stage) REFERENCES stages(run_id, name) ON DELETE CASCADE) STRICT;
CREATE INDEX conversations_by_age ON conversations(updated, id);
CREATE INDEX questions_of_video ON questions(video);
CREATE INDEX answers_of_question ON answers(question_id, id);
CREATE INDEX answers_running ON answers(writer_pid) WHERE finish = 'running';
CREATE INDEX runs_of_folder ON runs(folder, id);
CREATE INDEX runs_running ON runs(writer_pid) WHERE status = 'running';
CREATE TABLE comparisons (question_id TEXT PRIMARY KEY NOT NULL REFERENCES questions(id) ON DELETE CASCADE,
    left_id TEXT NOT NULL REFERENCES answers(id) ON DELETE CASCADE,
    right_id TEXT NOT NULL REFERENCES answers(id) ON DELETE CASCADE,
    blind INTEGER NOT NULL CHECK (blind IN (0, 1)), CHECK (left_id <> right_id)) STRICT;
CREATE TABLE preferences (id TEXT PRIMARY KEY NOT NULL,
    question_id TEXT NOT NULL REFERENCES questions(id) ON DELETE CASCADE,
    chosen_id TEXT REFERENCES answers(id) ON DELETE CASCADE, chosen_text TEXT,
    rejected_id TEXT NOT NULL REFERENCES answers(id) ON DELETE CASCADE,
    verdict TEXT NOT NULL CHECK (verdict IN ('better', 'both_good', 'both_bad')), source TEXT NOT NULL,
    reasons TEXT NOT NULL CHECK (json_valid(reasons)), created TEXT NOT NULL, revoked TEXT,
    CHECK ((chosen_id IS NULL) <> (chosen_text IS NULL)), CHECK (chosen_id IS NULL OR chosen_id <> rejected_id),
    CHECK (verdict = 'better' OR chosen_id IS NOT NULL)) STRICT;
CREATE INDEX comparisons_left ON comparisons(left_id);
CREATE INDEX comparisons_right ON comparisons(right_id);
CREATE INDEX preferences_of_question ON preferences(question_id, id);
CREATE INDEX preferences_chosen ON preferences(chosen_id);
CREATE INDEX preferences_rejected ON preferences(rejected_id);
CREATE UNIQUE INDEX preferences_in_force ON preferences(source, min(chosen_id, rejected_id),
    max(chosen_id, rejected_id)) WHERE revoked IS NULL;
INSERT INTO "_sqlite_migrations" VALUES (1, 'keye_studio', 'm001_conversations', '2025-01-01 00:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES (2, 'keye_studio', 'm002_reasoning', '2025-02-01 00:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES (3, 'keye_studio', 'm003_runs', '2025-03-01 00:00:00.000000+00:00');
INSERT INTO "_sqlite_migrations" VALUES (4, 'keye_studio', 'm004_preferences', '2025-04-01 00:00:00.000000+00:00');
INSERT INTO videos VALUES ('cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', '猫.mp4', '/v/c.mp4',
    '{"fps": 25}', '2025-01-01T00:00:00.000Z');
INSERT INTO conversations VALUES ('c1', 'What is it?', '2025-01-01T00:00:00.000Z', '2025-01-02T00:00:00.000Z',
    'keye-nano', NULL);
INSERT INTO questions VALUES ('q1', 'c1', 0, 'What is it?',
    'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', 1.5, NULL, 'auto', '{"fps": 2.0}',
    '2025-01-01T00:00:00.000Z');
INSERT INTO answers VALUES ('a1', 'q1', 'A cat', NULL, 'stop', NULL, 'auto', 'keye-nano', '/m/nano', NULL, 'local',
    '{"seed": 1}', '{"times": [1.5]}', NULL, '{"total": 0.5}', '2025-01-01T00:00:01.000Z', 1, 'then',
    '{"steps": [{"kind": "thought", "text": "Whiskers."}]}');
INSERT INTO runs VALUES ('0000000000000001', 'nano', '{"seed": 7}', '/runs/nano', 'running', NULL, NULL, '0.1.0', 7,
    '2025-03-01T00:00:00.000Z', '2025-03-01T00:00:02.000Z', 1, 'then');
INSERT INTO stages VALUES ('0000000000000001', 'stage0', 0, 'running', NULL, 0.0, 0, 0, 25, NULL,
    '2025-03-01T00:00:01.000Z', '2025-03-01T00:00:02.000Z');
INSERT INTO metrics VALUES ('0000000000000001', 'stage0', 25, '{"loss": 3.5}', '2025-03-01T00:00:02.000Z');
"""
# What version 5 added to a file of version 4; nothing of the older tables was changed.
VERSION_5 = (
    VERSION_4
    + """
CREATE TABLE votes (id TEXT PRIMARY KEY NOT NULL, answer_id TEXT NOT NULL REFERENCES answers(id) ON DELETE CASCADE,
    value TEXT NOT NULL CHECK (value IN ('up', 'down')), reasons TEXT NOT NULL CHECK (json_valid(reasons)),
    moments TEXT NOT NULL CHECK (json_valid(moments)), created TEXT NOT NULL, revoked TEXT) STRICT;
CREATE TABLE drafts (answer_id TEXT PRIMARY KEY NOT NULL REFERENCES answers(id) ON DELETE CASCADE,
    original_id TEXT NOT NULL REFERENCES answers(id) ON DELETE CASCADE, CHECK (answer_id <> original_id)) STRICT;
CREATE INDEX votes_of_answer ON votes(answer_id, id);
CREATE UNIQUE INDEX votes_in_force ON votes(answer_id) WHERE revoked IS NULL;
CREATE INDEX drafts_of_answer ON drafts(original_id);
INSERT INTO "_sqlite_migrations" VALUES (5, 'keye_studio', 'm005_votes', '2025-05-01 00:00:00.000000+00:00');
INSERT INTO votes VALUES ('v1', 'a1', 'down', '["wrong"]', '[1.5]', '2025-05-01T00:00:00.000Z', NULL);
"""
)
# What version 6 added.
VERSION_6 = (
    VERSION_5
    + """
CREATE TABLE comment_rounds (id TEXT PRIMARY KEY NOT NULL, skill TEXT NOT NULL, language TEXT NOT NULL,
    wishes TEXT NOT NULL CHECK (json_valid(wishes)), prompt TEXT NOT NULL, mode TEXT NOT NULL,
    sampling TEXT NOT NULL CHECK (json_valid(sampling)), wanted INTEGER NOT NULL CHECK (wanted > 0),
    created TEXT NOT NULL) STRICT;
CREATE TABLE comment_clips (round_id TEXT NOT NULL REFERENCES comment_rounds(id) ON DELETE CASCADE,
    position INTEGER NOT NULL, video TEXT NOT NULL REFERENCES videos(sha256), clip_start REAL, clip_end REAL,
    PRIMARY KEY (round_id, position)) STRICT;
CREATE TABLE comment_drafts (id TEXT PRIMARY KEY NOT NULL,
    round_id TEXT NOT NULL REFERENCES comment_rounds(id) ON DELETE CASCADE, text TEXT NOT NULL, raw_text TEXT,
    finish TEXT NOT NULL CHECK (finish IN ('stop', 'length', 'stopped', 'error')), error TEXT,
    fit INTEGER NOT NULL CHECK (fit IN (0, 1)),
    moderation TEXT CHECK (moderation IS NULL OR json_valid(moderation)), model TEXT, checkpoint TEXT, adapter TEXT,
    runtime TEXT, decoding TEXT CHECK (decoding IS NULL OR json_valid(decoding)),
    usage TEXT CHECK (usage IS NULL OR json_valid(usage)), timings TEXT CHECK (timings IS NULL OR json_valid(timings)),
    created TEXT NOT NULL) STRICT;
CREATE TABLE comment_choices (id TEXT PRIMARY KEY NOT NULL,
    draft_id TEXT NOT NULL REFERENCES comment_drafts(id) ON DELETE CASCADE,
    choice TEXT NOT NULL CHECK (choice IN ('picked', 'edited', 'rejected')), text TEXT, created TEXT NOT NULL,
    revoked TEXT, CHECK ((choice = 'edited') = (text IS NOT NULL))) STRICT;
CREATE INDEX comment_rounds_by_skill ON comment_rounds(skill, id);
CREATE INDEX comment_clips_of_video ON comment_clips(video);
CREATE INDEX comment_drafts_of_round ON comment_drafts(round_id, id);
CREATE INDEX comment_choices_of_draft ON comment_choices(draft_id, id);
CREATE UNIQUE INDEX comment_choices_in_force ON comment_choices(draft_id) WHERE revoked IS NULL;
INSERT INTO "_sqlite_migrations" VALUES (6, 'keye_studio', 'm006_comments', '2025-06-01 00:00:00.000000+00:00');
INSERT INTO comment_rounds VALUES ('0000000000000002', 'comment', 'zh', '{"most": 15}', '写一条评论。', 'no_think',
    '{}', 4, '2025-06-01T00:00:00.000Z');
INSERT INTO comment_clips VALUES ('0000000000000002', 0,
    'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', 1.5, NULL);
INSERT INTO comment_drafts VALUES ('0000000000000003', '0000000000000002', '好可爱', '好可爱', 'stop', NULL, 1,
    '{"fit": true}', 'keye-nano', '/m/nano', NULL, 'local', '{"seed": 1}', NULL, NULL, '2025-06-01T00:00:01.000Z');
INSERT INTO comment_choices VALUES ('0000000000000004', '0000000000000003', 'picked', NULL, '2025-06-01T00:00:02.000Z',
    NULL);
"""
)
# What version 7 added.
VERSION_7 = (
    VERSION_6
    + """
CREATE TABLE transcripts (
    video TEXT NOT NULL REFERENCES videos(sha256) ON DELETE CASCADE,
    by TEXT NOT NULL,
    source TEXT NOT NULL CHECK (source IN ('speech', 'file')),
    language TEXT NOT NULL,
    cues TEXT NOT NULL CHECK (json_valid(cues)),
    created TEXT NOT NULL,
    PRIMARY KEY (video, source, by)
) STRICT;
INSERT INTO "_sqlite_migrations" VALUES (7, 'keye_studio', 'm007_transcripts', '2025-05-01 00:00:00.000000+00:00');
INSERT INTO transcripts VALUES ('cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', 'whisper-tiny',
    'speech', 'en', '[[0.5, 1.5, "Meow."]]', '2025-05-01T00:00:00.000Z');
"""
)
# What version 8 added.
VERSION_8 = (
    VERSION_7
    + """
CREATE TABLE exclusions (
    answer_id TEXT PRIMARY KEY NOT NULL REFERENCES answers(id) ON DELETE CASCADE,
    why TEXT NOT NULL,
    created TEXT NOT NULL
    ) STRICT;
CREATE TABLE split (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    share REAL NOT NULL CHECK (share BETWEEN 0 AND 1)
    ) STRICT;
CREATE TABLE looks (
    video TEXT PRIMARY KEY NOT NULL REFERENCES videos(sha256) ON DELETE CASCADE,
    kin TEXT NOT NULL,
    side TEXT CHECK (side IN ('train', 'held_out')),
    bits TEXT CHECK (bits IS NULL OR json_valid(bits)),
    created TEXT NOT NULL
    ) STRICT;
CREATE TABLE listing (
    n INTEGER PRIMARY KEY NOT NULL,
    answer_id TEXT NOT NULL UNIQUE REFERENCES answers(id) ON DELETE CASCADE,
    question_id TEXT NOT NULL,
    video TEXT,
    mode TEXT NOT NULL,
    model TEXT,
    language TEXT NOT NULL,
    finding TEXT
    ) STRICT;
CREATE VIRTUAL TABLE search USING fts5(question, answer, correction, tokenize = 'trigram');
CREATE INDEX looks_of_kin ON looks(kin);
CREATE INDEX listing_of_mode ON listing(mode);
CREATE INDEX listing_of_model ON listing(model);
CREATE INDEX listing_of_language ON listing(language);
CREATE INDEX listing_of_video ON listing(video);
CREATE INDEX listing_found ON listing(n) WHERE finding IS NOT NULL;
CREATE TRIGGER listing_made AFTER INSERT ON listing BEGIN
    INSERT INTO search (rowid, question, answer, correction) SELECT NEW.n, q.text, a.text,
    coalesce((SELECT p.chosen_text FROM preferences p WHERE p.rejected_id = a.id AND p.revoked IS NULL
    AND p.source = 'correction' AND p.chosen_text IS NOT NULL ORDER BY p.id DESC LIMIT 1), '')
    FROM answers a JOIN questions q ON q.id = a.question_id WHERE a.id = NEW.answer_id;
    END;
CREATE TRIGGER listing_gone AFTER DELETE ON listing BEGIN
    DELETE FROM search WHERE rowid = OLD.n;
    END;
CREATE TRIGGER answers_listed AFTER INSERT ON answers WHEN NEW.finish <> 'running' BEGIN
    INSERT INTO listing SELECT
    coalesce((SELECT l.n + 1 FROM listing l WHERE l.n BETWEEN t.ms * 1048576 AND t.ms * 1048576 + 1048575
    ORDER BY l.n DESC LIMIT 1), t.ms * 1048576),
    NEW.id, q.id, q.video, NEW.mode, NEW.model, CASE WHEN q.text GLOB '*[㐀-鿿]*' THEN 'zh' ELSE 'en' END, NULL
    FROM questions q, (SELECT coalesce(CAST(strftime('%s', NEW.created) AS INTEGER) * 1000
        + CAST(substr(NEW.created, 21, 3) AS INTEGER), 0) AS ms) t
    WHERE q.id = NEW.question_id AND NEW.text <> '';
    END;
CREATE TRIGGER answers_ended AFTER UPDATE OF finish, text, mode, model ON answers
    WHEN NEW.finish <> 'running' BEGIN
    DELETE FROM listing WHERE answer_id = NEW.id;
    INSERT INTO listing SELECT
    coalesce((SELECT l.n + 1 FROM listing l WHERE l.n BETWEEN t.ms * 1048576 AND t.ms * 1048576 + 1048575
    ORDER BY l.n DESC LIMIT 1), t.ms * 1048576),
    NEW.id, q.id, q.video, NEW.mode, NEW.model, CASE WHEN q.text GLOB '*[㐀-鿿]*' THEN 'zh' ELSE 'en' END, NULL
    FROM questions q, (SELECT coalesce(CAST(strftime('%s', NEW.created) AS INTEGER) * 1000
        + CAST(substr(NEW.created, 21, 3) AS INTEGER), 0) AS ms) t
    WHERE q.id = NEW.question_id AND NEW.text <> '';
    END;
CREATE TRIGGER corrections_said AFTER INSERT ON preferences
    WHEN NEW.source = 'correction' AND NEW.chosen_text IS NOT NULL AND NEW.revoked IS NULL BEGIN
    UPDATE search SET correction = NEW.chosen_text
    WHERE rowid = (SELECT n FROM listing WHERE answer_id = NEW.rejected_id);
    END;
CREATE TRIGGER corrections_revoked AFTER UPDATE OF revoked ON preferences
    WHEN NEW.source = 'correction' AND NEW.chosen_text IS NOT NULL AND NEW.revoked IS NOT NULL BEGIN
    UPDATE search SET correction = ''
    WHERE rowid = (SELECT n FROM listing WHERE answer_id = NEW.rejected_id);
    END;
INSERT INTO "_sqlite_migrations" VALUES (8, 'keye_studio', 'm008_data', '2025-08-01 00:00:00.000000+00:00');
INSERT INTO listing VALUES (1824267547443200000, 'a1', 'q1',
    'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', 'auto', 'keye-nano', 'en', NULL);
INSERT INTO exclusions VALUES ('a1', 'by hand', '2025-08-01T00:00:00.000Z');
"""
)
# What version 9 added.
VERSION_9 = (
    VERSION_8
    + """
CREATE TABLE launches (run_id TEXT PRIMARY KEY NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
    arguments TEXT NOT NULL CHECK (json_valid(arguments)), place TEXT NOT NULL,
    wanted TEXT NOT NULL CHECK (wanted IN ('run', 'pause', 'stop', 'keep')), pid INTEGER, started TEXT,
    CHECK ((pid IS NULL) = (started IS NULL))) STRICT;
CREATE INDEX launches_by_place ON launches(place);
INSERT INTO "_sqlite_migrations" VALUES (9, 'keye_studio', 'm009_launches', '2025-09-01 00:00:00.000000+00:00');
INSERT INTO launches VALUES ('0000000000000001', '["run"]', '0000000000000001', 'pause', NULL, NULL);
"""
)
# What version 10 added.
VERSION_10 = (
    VERSION_9
    + """
CREATE TABLE trials (
    id TEXT PRIMARY KEY NOT NULL,
    model TEXT,
    adapter TEXT,
    run TEXT,
    seed INTEGER NOT NULL,
    base TEXT NOT NULL CHECK (json_valid(base)),
    candidate TEXT NOT NULL CHECK (json_valid(candidate)),
    conversation TEXT,
    revealed TEXT,
    sentence TEXT,
    created TEXT NOT NULL
) STRICT;
CREATE TABLE trial_pairs (
    trial_id TEXT NOT NULL REFERENCES trials(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    text TEXT NOT NULL,
    kind TEXT NOT NULL,
    mode TEXT NOT NULL,
    reference TEXT,
    question TEXT,
    video TEXT,
    clip_start REAL,
    clip_end REAL,
    left_side TEXT NOT NULL CHECK (left_side IN ('base', 'candidate')),
    base TEXT CHECK (base IS NULL OR json_valid(base)),
    candidate TEXT CHECK (candidate IS NULL OR json_valid(candidate)),
    verdict TEXT CHECK (verdict IN ('base', 'candidate', 'both_good', 'both_bad')),
    judged TEXT,
    answers TEXT CHECK (answers IS NULL OR json_valid(answers)),
    PRIMARY KEY (trial_id, position),
    CHECK ((verdict IS NULL) = (judged IS NULL))
) STRICT;
CREATE TABLE promotions (
    id TEXT PRIMARY KEY NOT NULL,
    base TEXT NOT NULL,
    action TEXT NOT NULL CHECK (action IN ('promote', 'roll_back')),
    model TEXT,
    adapter TEXT,
    name TEXT NOT NULL,
    run TEXT,
    trial TEXT,
    replaced TEXT NOT NULL,
    behind TEXT REFERENCES promotions(id),
    created TEXT NOT NULL
) STRICT;
CREATE INDEX promotions_of_base ON promotions(base, id);
INSERT INTO "_sqlite_migrations" VALUES (10, 'keye_studio', 'm010_promotions', '2025-10-01 00:00:00.000000+00:00');
INSERT INTO promotions VALUES ('p1', '/m/nano', 'promote', '/runs/nano/sft/model', NULL, 'nano-sft', NULL, NULL,
    'keye-nano', NULL, '2025-10-01T00:00:00.000Z');
"""
)
OLD = {
    "m001_conversations": VERSION_1,
    "m002_reasoning": VERSION_2,
    "m003_runs": VERSION_3,
    "m004_preferences": VERSION_4,
    "m005_votes": VERSION_5,
    "m006_comments": VERSION_6,
    "m007_transcripts": VERSION_7,
    "m008_data": VERSION_8,
    "m009_launches": VERSION_9,
    "m010_promotions": VERSION_10,
}


@pytest.fixture(params=sorted(OLD))
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "old.sqlite"
    conn = sqlite3.connect(path)
    conn.executescript(OLD[request.param])
    conn.close()
    return path


def tables(path: Path) -> list[tuple]:
    """What SQLite itself makes of the schema: columns, keys and indexes, whatever the spelling of the statements."""
    conn = sqlite3.connect(path)
    names = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    found = [
        (name, question, row[:2] if question == "index_list" and row[3] != "c" else row)
        for name in names
        for question in ("table_info", "foreign_key_list", "index_list")
        for row in conn.execute(f'PRAGMA {question}("{name}")').fetchall()
    ]
    strict = conn.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main' ORDER BY name").fetchall()
    conn.close()
    return [*found, *strict]


def dump(path: Path) -> list[str]:
    conn = sqlite3.connect(path)
    try:
        return list(conn.iterdump())
    finally:
        conn.close()


def test_every_step_has_a_record() -> None:
    assert set(OLD) == set(STEPS)


def test_an_old_file_opens_and_keeps_its_rows(old: Path, tmp_path: Path) -> None:
    store = Store(old)
    (turn,) = store.conversation("c1").turns
    (answer,) = turn.answers
    assert (turn.question.text, turn.question.start, turn.question.end) == ("What is it?", 1.5, None)
    assert turn.video is not None and (turn.video.name, turn.video.probe) == ("猫.mp4", {"fps": 25})
    assert (answer.text, answer.finish, answer.checkpoint, answer.timings) == (
        "A cat",
        "stop",
        "/m/nano",
        {"total": 0.5},
    )
    assert store.add_question("c1", "And then?", mode="auto").position == 1
    store.close()
    Store(tmp_path / "new.sqlite").close()
    assert tables(old) == tables(tmp_path / "new.sqlite")


def test_runs_can_be_kept_in_every_old_file(old: Path) -> None:
    runs = Runs(old)
    before = [run.id for run in runs.list()]
    run = runs.begin("nano", {"name": "nano"}, "/runs/other", seed=0, code="0.1.0")
    assert [found.id for found in runs.list()] == [run.id, *before]
    if before:  # its writer is long gone
        assert (runs.one("0000000000000001").status, runs.one("0000000000000001").recipe) == ("stopped", {"seed": 7})
        assert [(s.name, s.status) for s in runs.stages("0000000000000001")] == [("stage0", "stopped")]
        assert [(m.step, m.figures) for m in runs.metrics("0000000000000001")] == [(25, {"loss": 3.5})]
    runs.close()


def test_comments_can_be_kept_in_every_old_file(old: Path) -> None:
    store = Store(old)
    before = store.comments.rounds()
    clip = RoundClip("c" * 64, 2.0)
    made = store.comments.begin("comment", "Write one.", [clip], language="en", mode="no_think")
    assert store.comments.rounds() == [made, *before] and made.clips == (clip,)
    if before:
        ((draft,), (place,)) = before[0].drafts, before[0].clips
        assert (draft.text, draft.choice, draft.fit, place.start) == ("好可爱", "picked", True, 1.5)
    store.close()


def test_opening_again_changes_nothing(old: Path) -> None:
    Store(old).close()
    before = dump(old)
    Store(old).close()
    migrations.apply(db := Database(old))
    db.close()
    assert dump(old) == before


def test_all_tables_are_strict_and_keys_are_checked(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    with store.transaction() as db:
        assert db.conn.execute("PRAGMA foreign_keys").fetchone() == (1,)
    with pytest.raises(sqlite3.IntegrityError), store.transaction() as db:  # a defect of the caller, not a sentence
        db.execute("INSERT INTO conversations VALUES ('c', x'00', '', '', NULL, NULL)")
    conn = sqlite3.connect(store.path)
    sql = "SELECT name, strict FROM pragma_table_list WHERE name NOT LIKE '%sqlite_%' AND name NOT LIKE 'search%'"
    kinds = conn.execute(sql).fetchall()
    assert conn.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    conn.close()
    assert len(kinds) == 24 and all(strict for _, strict in kinds)


def extended(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """The schema as a next version might have it: a rebuilt table that others refer to, and a new one."""
    later = Migrations(SET)
    later._migrations = list(migrations._migrations)

    @later()
    def m900_opinions(db: Database) -> None:
        db.table("conversations").transform(rename={"language": "tongue"})
        db.execute("CREATE TABLE opinions (answer TEXT NOT NULL REFERENCES answers(id) ON DELETE CASCADE) STRICT")
        db.execute("INSERT INTO opinions SELECT id FROM answers")
        if fails:
            raise RuntimeError("in the middle")

    monkeypatch.setattr(database, "migrations", later)
    monkeypatch.setattr(database, "STEPS", (*STEPS, "m900_opinions"))


def test_a_later_step_may_rebuild_a_table_without_losing_what_hangs_on_it(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extended(monkeypatch, fails=False)
    database.File(old).close()
    conn = sqlite3.connect(old)
    assert conn.execute("SELECT tongue FROM conversations").fetchall() == [(None,)]
    assert conn.execute("SELECT answer FROM opinions").fetchall() == [("a1",)]
    assert conn.execute("SELECT count(*) FROM questions").fetchall() == [(1,)]
    conn.close()


def test_a_step_that_fails_leaves_the_file_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dump(old)
    with monkeypatch.context() as patch:
        extended(patch, fails=True)
        with pytest.raises(RuntimeError):
            database.File(old)
    assert dump(old) == before
    Store(old).close()


def test_a_file_of_a_newer_version_is_refused_and_untouched(old: Path) -> None:
    conn = sqlite3.connect(old)
    conn.execute("INSERT INTO _sqlite_migrations VALUES (NULL, 'keye_studio', 'm999_future', 'then')")
    conn.commit()
    conn.close()
    before = old.read_bytes()
    with pytest.raises(FinetuneError, match=r"newer Keye Studio \(it has m999_future\).*update"):
        Store(old)
    assert old.read_bytes() == before
