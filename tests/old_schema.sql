-- The tables as the first version made them; {number} is what counts up. A later version must take such a database as it is.
CREATE TABLE jobs (
    id VARCHAR(40) NOT NULL PRIMARY KEY,
    owner VARCHAR(200) NOT NULL,
    state VARCHAR(20) NOT NULL,
    note TEXT,
    request JSON NOT NULL,
    resolved JSON NOT NULL,
    priority INTEGER NOT NULL,
    idempotency_key VARCHAR(200),
    request_digest VARCHAR(64) NOT NULL,
    planned BOOLEAN NOT NULL,
    unreadable JSON NOT NULL,
    error JSON,
    traceback TEXT,
    story JSON NOT NULL,
    created FLOAT NOT NULL,
    started FLOAT,
    finished FLOAT,
    CONSTRAINT one_job_an_idempotency_key UNIQUE (owner, idempotency_key)
);
CREATE INDEX ix_jobs_state ON jobs (state);
CREATE INDEX jobs_by_age ON jobs (created, id);
CREATE TABLE units (
    id {number},
    job VARCHAR(40) NOT NULL REFERENCES jobs (id),
    unit INTEGER NOT NULL,
    dataset VARCHAR(100) NOT NULL,
    ranges JSON NOT NULL,
    events BIGINT NOT NULL,
    turn FLOAT NOT NULL,
    partial VARCHAR(64) NOT NULL,
    state VARCHAR(20) NOT NULL,
    attempts INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    kills INTEGER NOT NULL,
    token VARCHAR(40),
    not_before FLOAT NOT NULL,
    worker VARCHAR(200),
    started FLOAT,
    finished FLOAT,
    seconds FLOAT,
    reused BOOLEAN NOT NULL,
    digest VARCHAR(64),
    entries BIGINT,
    bytes BIGINT,
    sum_sign BIGINT,
    counts JSON,
    error JSON,
    traceback TEXT,
    CONSTRAINT a_unit_counts_once UNIQUE (job, unit)
);
CREATE INDEX units_by_state ON units (job, state);
CREATE TABLE files (
    id {number},
    path TEXT NOT NULL,
    size BIGINT NOT NULL,
    mtime_ns BIGINT NOT NULL,
    info JSON NOT NULL,
    CONSTRAINT a_file_is_indexed_once UNIQUE (path, size, mtime_ns)
);
CREATE TABLE merges (
    id {number},
    job VARCHAR(40) NOT NULL REFERENCES jobs (id),
    dataset VARCHAR(100) NOT NULL,
    level INTEGER NOT NULL,
    position INTEGER NOT NULL,
    partial VARCHAR(64) NOT NULL,
    digest VARCHAR(64) NOT NULL,
    CONSTRAINT a_node_is_merged_once UNIQUE (job, dataset, level, position)
);
CREATE TABLE generations (
    id {number},
    job VARCHAR(40) NOT NULL REFERENCES jobs (id),
    n INTEGER NOT NULL,
    published BOOLEAN NOT NULL,
    final BOOLEAN NOT NULL,
    complete BOOLEAN NOT NULL,
    created FLOAT NOT NULL,
    events BIGINT NOT NULL,
    units INTEGER NOT NULL,
    fraction FLOAT NOT NULL,
    CONSTRAINT a_generation_is_written_once UNIQUE (job, n)
);
CREATE TABLE job_events (
    id {number},
    job VARCHAR(40) NOT NULL REFERENCES jobs (id),
    kind VARCHAR(20) NOT NULL,
    time FLOAT NOT NULL,
    data JSON NOT NULL
);
CREATE INDEX events_of_a_job ON job_events (job, id);
CREATE TABLE tokens (
    hash VARCHAR(64) NOT NULL PRIMARY KEY,
    owner VARCHAR(200) NOT NULL,
    scopes JSON NOT NULL,
    created FLOAT NOT NULL,
    expires FLOAT NOT NULL
);
CREATE TABLE lease (
    name VARCHAR(40) NOT NULL PRIMARY KEY,
    holder VARCHAR(200) NOT NULL,
    fence BIGINT NOT NULL,
    expires FLOAT NOT NULL
);
