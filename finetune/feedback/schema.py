"""The tables, as numbered steps that are only ever added to: a step that has left this repository never changes.

What comes later hangs on what is here by its text ids (votes, corrections and preferences on answers, runs on
nothing), so each is a further step that adds its own tables. Every table is STRICT: SQLite refuses a wrong type
instead of keeping it. Times are UTC ISO-8601 text with milliseconds; ids are text that sorts by age.

A step runs in one transaction with foreign keys off, as SQLite asks for when a table has to be rebuilt; the keys
are checked before it is committed."""

from __future__ import annotations

from sqlite_utils import Database, Migrations

SET = "keye_studio"
migrations = Migrations(SET)


@migrations()
def m001_conversations(db: Database) -> None:
    for statement in (
        """CREATE TABLE videos (
            sha256 TEXT PRIMARY KEY NOT NULL CHECK (length(sha256) = 64),
            name TEXT NOT NULL,
            path TEXT NOT NULL,
            probe TEXT NOT NULL CHECK (json_valid(probe)),
            created TEXT NOT NULL
        ) STRICT""",
        """CREATE TABLE conversations (
            id TEXT PRIMARY KEY NOT NULL,
            title TEXT NOT NULL,
            created TEXT NOT NULL,
            updated TEXT NOT NULL,
            model TEXT,
            language TEXT
        ) STRICT""",
        """CREATE TABLE questions (
            id TEXT PRIMARY KEY NOT NULL,
            conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
            position INTEGER NOT NULL,
            text TEXT NOT NULL,
            video TEXT REFERENCES videos(sha256),
            clip_start REAL,
            clip_end REAL,
            mode TEXT NOT NULL,
            sampling TEXT NOT NULL CHECK (json_valid(sampling)),
            created TEXT NOT NULL,
            UNIQUE (conversation_id, position)
        ) STRICT""",
        """CREATE TABLE answers (
            id TEXT PRIMARY KEY NOT NULL,
            question_id TEXT NOT NULL REFERENCES questions(id) ON DELETE CASCADE,
            text TEXT NOT NULL,
            raw_text TEXT,
            finish TEXT NOT NULL CHECK (finish IN ('running', 'stop', 'length', 'stopped', 'error')),
            error TEXT,
            mode TEXT NOT NULL,
            model TEXT,
            checkpoint TEXT,
            adapter TEXT,
            runtime TEXT,
            decoding TEXT CHECK (decoding IS NULL OR json_valid(decoding)),
            frames TEXT CHECK (frames IS NULL OR json_valid(frames)),
            usage TEXT CHECK (usage IS NULL OR json_valid(usage)),
            timings TEXT CHECK (timings IS NULL OR json_valid(timings)),
            created TEXT NOT NULL,
            writer_pid INTEGER NOT NULL,
            writer_started TEXT NOT NULL
        ) STRICT""",
        "CREATE INDEX conversations_by_age ON conversations(updated, id)",
        "CREATE INDEX questions_of_video ON questions(video)",
        "CREATE INDEX answers_of_question ON answers(question_id, id)",
        "CREATE INDEX answers_running ON answers(writer_pid) WHERE finish = 'running'",
    ):
        db.execute(statement)


@migrations()
def m002_reasoning(db: Database) -> None:
    """How a model came to its answer: {"steps": [...]}, as the page shows it. Its own words are in raw_text."""
    db.execute("ALTER TABLE answers ADD COLUMN reasoning TEXT CHECK (reasoning IS NULL OR json_valid(reasoning))")


@migrations()
def m003_runs(db: Database) -> None:
    """Runs of a recipe, their stages, and the figures noted while they train (finetune.feedback.runs).

    A run that is only queued has no writer yet. A figure belongs to a step of a stage, so that a resumed stage writes
    over what it trains again."""
    for statement in (
        """CREATE TABLE runs (
            id TEXT PRIMARY KEY NOT NULL,
            name TEXT NOT NULL,
            recipe TEXT NOT NULL CHECK (json_valid(recipe)),
            folder TEXT NOT NULL,
            status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'paused', 'done', 'failed', 'stopped')),
            sentence TEXT,
            model TEXT,
            code TEXT NOT NULL,
            seed INTEGER NOT NULL,
            created TEXT NOT NULL,
            updated TEXT NOT NULL,
            writer_pid INTEGER,
            writer_started TEXT,
            CHECK (status != 'running' OR (writer_pid IS NOT NULL AND writer_started IS NOT NULL))
        ) STRICT""",
        """CREATE TABLE stages (
            run_id TEXT NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
            name TEXT NOT NULL,
            position INTEGER NOT NULL,
            status TEXT NOT NULL CHECK (status IN ('running', 'paused', 'done', 'failed', 'stopped')),
            folder TEXT,
            seconds REAL NOT NULL,
            examples INTEGER NOT NULL,
            tokens INTEGER NOT NULL,
            steps INTEGER NOT NULL,
            accuracy TEXT CHECK (accuracy IS NULL OR json_valid(accuracy)),
            created TEXT NOT NULL,
            updated TEXT NOT NULL,
            PRIMARY KEY (run_id, name)
        ) STRICT""",
        """CREATE TABLE metrics (
            run_id TEXT NOT NULL,
            stage TEXT NOT NULL,
            step INTEGER NOT NULL,
            figures TEXT NOT NULL CHECK (json_valid(figures)),
            created TEXT NOT NULL,
            PRIMARY KEY (run_id, stage, step),
            FOREIGN KEY (run_id, stage) REFERENCES stages(run_id, name) ON DELETE CASCADE
        ) STRICT""",
        "CREATE INDEX runs_of_folder ON runs(folder, id)",
        "CREATE INDEX runs_running ON runs(writer_pid) WHERE status = 'running'",
    ):
        db.execute(statement)


@migrations()
def m004_preferences(db: Database) -> None:
    """Which of two answers is better, whoever says so, and which answers were asked for to be told apart.

    A preference is never changed: another one, or none, takes its place, and it keeps when that was."""
    for statement in (
        """CREATE TABLE comparisons (
            question_id TEXT PRIMARY KEY NOT NULL REFERENCES questions(id) ON DELETE CASCADE,
            left_id TEXT NOT NULL REFERENCES answers(id) ON DELETE CASCADE,
            right_id TEXT NOT NULL REFERENCES answers(id) ON DELETE CASCADE,
            blind INTEGER NOT NULL CHECK (blind IN (0, 1)),
            CHECK (left_id <> right_id)
        ) STRICT""",
        """CREATE TABLE preferences (
            id TEXT PRIMARY KEY NOT NULL,
            question_id TEXT NOT NULL REFERENCES questions(id) ON DELETE CASCADE,
            chosen_id TEXT REFERENCES answers(id) ON DELETE CASCADE,
            chosen_text TEXT,
            rejected_id TEXT NOT NULL REFERENCES answers(id) ON DELETE CASCADE,
            verdict TEXT NOT NULL CHECK (verdict IN ('better', 'both_good', 'both_bad')),
            source TEXT NOT NULL,
            reasons TEXT NOT NULL CHECK (json_valid(reasons)),
            created TEXT NOT NULL,
            revoked TEXT,
            CHECK ((chosen_id IS NULL) <> (chosen_text IS NULL)),
            CHECK (chosen_id IS NULL OR chosen_id <> rejected_id),
            CHECK (verdict = 'better' OR chosen_id IS NOT NULL)
        ) STRICT""",
        "CREATE INDEX comparisons_left ON comparisons(left_id)",
        "CREATE INDEX comparisons_right ON comparisons(right_id)",
        "CREATE INDEX preferences_of_question ON preferences(question_id, id)",
        "CREATE INDEX preferences_chosen ON preferences(chosen_id)",
        "CREATE INDEX preferences_rejected ON preferences(rejected_id)",
        # One word in force on a pair from one source, whichever of the two it puts first.
        "CREATE UNIQUE INDEX preferences_in_force ON preferences("
        "source, min(chosen_id, rejected_id), max(chosen_id, rejected_id)) WHERE revoked IS NULL",
    ):
        db.execute(statement)


@migrations()
def m009_launches(db: Database) -> None:
    """Runs that are started here, each as a process of its own (finetune.queue): with which arguments, in which order,
    what was asked of them last, and the process that was started for them. `pid` is empty while a run waits, and once
    its end was noticed."""
    db.execute(
        """CREATE TABLE launches (
            run_id TEXT PRIMARY KEY NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
            arguments TEXT NOT NULL CHECK (json_valid(arguments)),
            place TEXT NOT NULL,
            wanted TEXT NOT NULL CHECK (wanted IN ('run', 'pause', 'stop', 'keep')),
            pid INTEGER,
            started TEXT,
            CHECK ((pid IS NULL) = (started IS NULL))
        ) STRICT"""
    )
    db.execute("CREATE INDEX launches_by_place ON launches(place)")


STEPS = tuple(step.name for step in migrations.pending(Database(memory=True, execute_plugins=False)))
"""Every step there is, in order."""
