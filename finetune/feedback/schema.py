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
def m005_votes(db: Database) -> None:
    """What is thought of single answers, and which answers are further drafts of another.

    A vote is never changed: another one, or none, takes its place, and it keeps when that was."""
    for statement in (
        """CREATE TABLE votes (
            id TEXT PRIMARY KEY NOT NULL,
            answer_id TEXT NOT NULL REFERENCES answers(id) ON DELETE CASCADE,
            value TEXT NOT NULL CHECK (value IN ('up', 'down')),
            reasons TEXT NOT NULL CHECK (json_valid(reasons)),
            moments TEXT NOT NULL CHECK (json_valid(moments)),
            created TEXT NOT NULL,
            revoked TEXT
        ) STRICT""",
        """CREATE TABLE drafts (
            answer_id TEXT PRIMARY KEY NOT NULL REFERENCES answers(id) ON DELETE CASCADE,
            original_id TEXT NOT NULL REFERENCES answers(id) ON DELETE CASCADE,
            CHECK (answer_id <> original_id)
        ) STRICT""",
        "CREATE INDEX votes_of_answer ON votes(answer_id, id)",
        "CREATE UNIQUE INDEX votes_in_force ON votes(answer_id) WHERE revoked IS NULL",
        "CREATE INDEX drafts_of_answer ON drafts(original_id)",
    ):
        db.execute(statement)


@migrations()
def m006_comments(db: Database) -> None:
    """Comments that were written for clips and ready-made questions that were answered (finetune.feedback.comments).

    A round is one request; its clips are kept with it, so that its videos stay as long as it does. A draft is kept
    when it is whole. A choice is never changed: another one, or none, takes its place, and it keeps when that was."""
    for statement in (
        """CREATE TABLE comment_rounds (
            id TEXT PRIMARY KEY NOT NULL,
            skill TEXT NOT NULL,
            language TEXT NOT NULL,
            wishes TEXT NOT NULL CHECK (json_valid(wishes)),
            prompt TEXT NOT NULL,
            mode TEXT NOT NULL,
            sampling TEXT NOT NULL CHECK (json_valid(sampling)),
            wanted INTEGER NOT NULL CHECK (wanted > 0),
            created TEXT NOT NULL
        ) STRICT""",
        """CREATE TABLE comment_clips (
            round_id TEXT NOT NULL REFERENCES comment_rounds(id) ON DELETE CASCADE,
            position INTEGER NOT NULL,
            video TEXT NOT NULL REFERENCES videos(sha256),
            clip_start REAL,
            clip_end REAL,
            PRIMARY KEY (round_id, position)
        ) STRICT""",
        """CREATE TABLE comment_drafts (
            id TEXT PRIMARY KEY NOT NULL,
            round_id TEXT NOT NULL REFERENCES comment_rounds(id) ON DELETE CASCADE,
            text TEXT NOT NULL,
            raw_text TEXT,
            finish TEXT NOT NULL CHECK (finish IN ('stop', 'length', 'stopped', 'error')),
            error TEXT,
            fit INTEGER NOT NULL CHECK (fit IN (0, 1)),
            moderation TEXT CHECK (moderation IS NULL OR json_valid(moderation)),
            model TEXT,
            checkpoint TEXT,
            adapter TEXT,
            runtime TEXT,
            decoding TEXT CHECK (decoding IS NULL OR json_valid(decoding)),
            usage TEXT CHECK (usage IS NULL OR json_valid(usage)),
            timings TEXT CHECK (timings IS NULL OR json_valid(timings)),
            created TEXT NOT NULL
        ) STRICT""",
        """CREATE TABLE comment_choices (
            id TEXT PRIMARY KEY NOT NULL,
            draft_id TEXT NOT NULL REFERENCES comment_drafts(id) ON DELETE CASCADE,
            choice TEXT NOT NULL CHECK (choice IN ('picked', 'edited', 'rejected')),
            text TEXT,
            created TEXT NOT NULL,
            revoked TEXT,
            CHECK ((choice = 'edited') = (text IS NOT NULL))
        ) STRICT""",
        "CREATE INDEX comment_rounds_by_skill ON comment_rounds(skill, id)",
        "CREATE INDEX comment_clips_of_video ON comment_clips(video)",
        "CREATE INDEX comment_drafts_of_round ON comment_drafts(round_id, id)",
        "CREATE INDEX comment_choices_of_draft ON comment_choices(draft_id, id)",
        # One word in force on a draft.
        "CREATE UNIQUE INDEX comment_choices_in_force ON comment_choices(draft_id) WHERE revoked IS NULL",
    ):
        db.execute(statement)


@migrations()
def m007_transcripts(db: Database) -> None:
    """What is said in a video, by whom it was heard or given (finetune.feedback.transcripts): one of each for a video.

    `by` names a speech model, or the file that somebody gave beside the clip. The one that was kept last is used."""
    for statement in (
        """CREATE TABLE transcripts (
            video TEXT NOT NULL REFERENCES videos(sha256) ON DELETE CASCADE,
            by TEXT NOT NULL,
            source TEXT NOT NULL CHECK (source IN ('speech', 'file')),
            language TEXT NOT NULL,
            cues TEXT NOT NULL CHECK (json_valid(cues)),
            created TEXT NOT NULL,
            PRIMARY KEY (video, source, by)
        ) STRICT""",
    ):
        db.execute(statement)


@migrations()
def m008_data(db: Database) -> None:
    """What the browser of everything collected looks into (finetune.feedback.browse).

    `listing` has a narrow row for every answer that has ended with a text, and `search` its words; triggers keep both.
    Their number `n` is the answer's time in milliseconds times 2^20 and a count within the millisecond, so that a page
    and a range of days are ranges of it. `looks` says which videos look alike and on which side of the split a person
    put them, `exclusions` which answers nothing is to be learnt from."""
    ms = "CAST(strftime('%s', {0}) AS INTEGER) * 1000 + CAST(substr({0}, 21, 3) AS INTEGER)"
    language = "CASE WHEN q.text GLOB '*[㐀-鿿]*' THEN 'zh' ELSE 'en' END"
    listed = f"""INSERT INTO listing SELECT
            coalesce((SELECT l.n + 1 FROM listing l WHERE l.n BETWEEN t.ms * 1048576 AND t.ms * 1048576 + 1048575
                ORDER BY l.n DESC LIMIT 1), t.ms * 1048576),
            NEW.id, q.id, q.video, NEW.mode, NEW.model, {language}, NULL
            FROM questions q, (SELECT coalesce({ms.format("NEW.created")}, 0) AS ms) t
            WHERE q.id = NEW.question_id AND NEW.text <> '';"""
    corrected = """UPDATE search SET correction = {}
                WHERE rowid = (SELECT n FROM listing WHERE answer_id = NEW.rejected_id);"""
    for statement in (
        """CREATE TABLE exclusions (
            answer_id TEXT PRIMARY KEY NOT NULL REFERENCES answers(id) ON DELETE CASCADE,
            why TEXT NOT NULL,
            created TEXT NOT NULL
        ) STRICT""",
        """CREATE TABLE split (
            only INTEGER PRIMARY KEY CHECK (only = 1),
            share REAL NOT NULL CHECK (share BETWEEN 0 AND 1)
        ) STRICT""",
        """CREATE TABLE looks (
            video TEXT PRIMARY KEY NOT NULL REFERENCES videos(sha256) ON DELETE CASCADE,
            kin TEXT NOT NULL,
            side TEXT CHECK (side IN ('train', 'held_out')),
            bits TEXT CHECK (bits IS NULL OR json_valid(bits)),
            created TEXT NOT NULL
        ) STRICT""",
        """CREATE TABLE listing (
            n INTEGER PRIMARY KEY NOT NULL,
            answer_id TEXT NOT NULL UNIQUE REFERENCES answers(id) ON DELETE CASCADE,
            question_id TEXT NOT NULL,
            video TEXT,
            mode TEXT NOT NULL,
            model TEXT,
            language TEXT NOT NULL,
            finding TEXT
        ) STRICT""",
        "CREATE INDEX looks_of_kin ON looks(kin)",
        "CREATE INDEX listing_of_mode ON listing(mode)",
        "CREATE INDEX listing_of_model ON listing(model)",
        "CREATE INDEX listing_of_language ON listing(language)",
        "CREATE INDEX listing_of_video ON listing(video)",
        "CREATE INDEX listing_found ON listing(n) WHERE finding IS NOT NULL",
        # Three characters each, so that Chinese is found as English is; shorter words are looked for in the texts.
        "CREATE VIRTUAL TABLE search USING fts5(question, answer, correction, tokenize = 'trigram')",
        """CREATE TRIGGER listing_made AFTER INSERT ON listing BEGIN
            INSERT INTO search (rowid, question, answer, correction) SELECT NEW.n, q.text, a.text,
                coalesce((SELECT p.chosen_text FROM preferences p WHERE p.rejected_id = a.id AND p.revoked IS NULL
                    AND p.source = 'correction' AND p.chosen_text IS NOT NULL ORDER BY p.id DESC LIMIT 1), '')
            FROM answers a JOIN questions q ON q.id = a.question_id WHERE a.id = NEW.answer_id;
        END""",
        """CREATE TRIGGER listing_gone AFTER DELETE ON listing BEGIN
            DELETE FROM search WHERE rowid = OLD.n;
        END""",
        f"""CREATE TRIGGER answers_listed AFTER INSERT ON answers WHEN NEW.finish <> 'running' BEGIN
            {listed}
        END""",
        f"""CREATE TRIGGER answers_ended AFTER UPDATE OF finish, text, mode, model ON answers
            WHEN NEW.finish <> 'running' BEGIN
            DELETE FROM listing WHERE answer_id = NEW.id;
            {listed}
        END""",
        f"""CREATE TRIGGER corrections_said AFTER INSERT ON preferences
            WHEN NEW.source = 'correction' AND NEW.chosen_text IS NOT NULL AND NEW.revoked IS NULL BEGIN
            {corrected.format("NEW.chosen_text")}
        END""",
        f"""CREATE TRIGGER corrections_revoked AFTER UPDATE OF revoked ON preferences
            WHEN NEW.source = 'correction' AND NEW.chosen_text IS NOT NULL AND NEW.revoked IS NOT NULL BEGIN
            {corrected.format("''")}
        END""",
        f"""INSERT INTO listing SELECT
            t.ms * 1048576 + row_number() OVER (PARTITION BY t.ms ORDER BY t.id) - 1,
            t.id, q.id, q.video, t.mode, t.model, {language}, NULL
            FROM (SELECT *, coalesce({ms.format("created")}, 0) AS ms FROM answers
                WHERE finish <> 'running' AND text <> '') t JOIN questions q ON q.id = t.question_id
            ORDER BY 1""",
    ):
        db.execute(statement)


@migrations()
def m009_launches(db: Database) -> None:
    """Runs that are started here, each as a process of its own (finetune.loop.queue): with which arguments, in which
    order, what was asked of them last, and the process that was started for them. `pid` is empty while a run waits, and
    once its end was noticed."""
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


@migrations()
def m010_promotions(db: Database) -> None:
    """What was served in place of the model that the page was started with, and the blind comparisons before that
    (finetune.feedback.promotions and trials). A model of NULL is the one it was started with."""
    for statement in (
        """CREATE TABLE trials (
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
        ) STRICT""",
        """CREATE TABLE trial_pairs (
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
        ) STRICT""",
        """CREATE TABLE promotions (
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
        ) STRICT""",
        "CREATE INDEX promotions_of_base ON promotions(base, id)",
    ):
        db.execute(statement)


STEPS = tuple(step.name for step in migrations.pending(Database(memory=True, execute_plugins=False)))
"""Every step there is, in order."""
