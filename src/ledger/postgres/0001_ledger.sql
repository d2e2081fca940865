-- The tables of a ledger in PostgreSQL, as the migrations of SQLite leave them there. Times are milliseconds since the Unix
-- epoch, amounts millionths of a credit, truth values 0 or 1.
-- Numbers without gaps, since they are places in lists. Rows are added by one transaction at a time.
CREATE FUNCTION next_of_accounts() RETURNS BIGINT LANGUAGE plpgsql AS
    $$ BEGIN RETURN (SELECT coalesce(max(num), 0) + 1 FROM accounts); END $$;
CREATE FUNCTION next_of_keys() RETURNS BIGINT LANGUAGE plpgsql AS
    $$ BEGIN RETURN (SELECT coalesce(max(num), 0) + 1 FROM keys); END $$;
CREATE FUNCTION next_of_routes() RETURNS BIGINT LANGUAGE plpgsql AS
    $$ BEGIN RETURN (SELECT coalesce(max(num), 0) + 1 FROM routes); END $$;
CREATE FUNCTION next_of_endpoints() RETURNS BIGINT LANGUAGE plpgsql AS
    $$ BEGIN RETURN (SELECT coalesce(max(num), 0) + 1 FROM endpoints); END $$;
CREATE FUNCTION next_of_lots() RETURNS BIGINT LANGUAGE plpgsql AS
    $$ BEGIN RETURN (SELECT coalesce(max(id), 0) + 1 FROM lots); END $$;
CREATE FUNCTION next_of_spend_groups() RETURNS BIGINT LANGUAGE plpgsql AS
    $$ BEGIN RETURN (SELECT coalesce(max(num), 0) + 1 FROM spend_groups); END $$;

CREATE TABLE accounts (
    num BIGINT PRIMARY KEY DEFAULT next_of_accounts(),
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    balance BIGINT NOT NULL DEFAULT 0,
    plan TEXT COLLATE "C",
    state TEXT COLLATE "C" NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended')),
    source TEXT COLLATE "C" NOT NULL CHECK (source IN ('file', 'store')),
    opening BIGINT,
    created BIGINT NOT NULL,
    link BYTEA NOT NULL DEFAULT '\x0000000000000000000000000000000000000000000000000000000000000000',
    entries BIGINT NOT NULL DEFAULT 0,
    name TEXT COLLATE "C" NOT NULL DEFAULT '',
    closed BIGINT,
    version BIGINT NOT NULL DEFAULT 1,
    credits_low TEXT COLLATE "C",
    exhausted BIGINT NOT NULL DEFAULT 0,
    lots BIGINT NOT NULL DEFAULT 0,
    spend_limit BIGINT,
    spent BIGINT NOT NULL DEFAULT 0,
    spend_every TEXT COLLATE "C",
    spent_before BIGINT NOT NULL DEFAULT 0,
    spend_period BIGINT
);
CREATE TABLE keys (
    num BIGINT PRIMARY KEY DEFAULT next_of_keys(),
    id BIGINT NOT NULL UNIQUE,
    account BIGINT NOT NULL REFERENCES accounts (num),
    source TEXT COLLATE "C" NOT NULL CHECK (source IN ('file', 'store')),
    state TEXT COLLATE "C" NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'disabled', 'revoked')),
    label TEXT COLLATE "C" NOT NULL,
    environment TEXT COLLATE "C" NOT NULL DEFAULT '',
    hint TEXT COLLATE "C" NOT NULL DEFAULT '',
    scopes TEXT COLLATE "C",
    allow_from TEXT COLLATE "C",
    expires BIGINT,
    created BIGINT NOT NULL,
    limits TEXT COLLATE "C",
    version BIGINT NOT NULL DEFAULT 1,
    last_used BIGINT,
    spend_limit BIGINT,
    spent BIGINT NOT NULL DEFAULT 0,
    spend_every TEXT COLLATE "C",
    spent_before BIGINT NOT NULL DEFAULT 0,
    spend_period BIGINT,
    spend_group BIGINT
);
CREATE INDEX keys_by_account ON keys (account);
CREATE TABLE secrets (
    hash BYTEA PRIMARY KEY,
    key BIGINT NOT NULL REFERENCES keys (num),
    until BIGINT
);
CREATE TABLE routes (
    num BIGINT PRIMARY KEY DEFAULT next_of_routes(),
    name TEXT COLLATE "C" NOT NULL UNIQUE
);
CREATE TABLE open_holds (
    id BYTEA PRIMARY KEY,
    account BIGINT NOT NULL,
    key BIGINT NOT NULL,
    route BIGINT NOT NULL,
    amount BIGINT NOT NULL,
    at BIGINT NOT NULL,
    external_id TEXT COLLATE "C",
    deadline BIGINT,
    charge_at_deadline BIGINT,
    node BIGINT NOT NULL
);
CREATE TABLE in_doubt (
    id BYTEA PRIMARY KEY,
    account BIGINT NOT NULL REFERENCES accounts (num),
    key BIGINT NOT NULL,
    route BIGINT NOT NULL,
    amount BIGINT NOT NULL,
    at BIGINT NOT NULL,
    given_back BIGINT
);
CREATE TABLE limits (
    node BIGINT NOT NULL,
    owner BYTEA NOT NULL,
    state BYTEA NOT NULL,
    saved BIGINT NOT NULL,
    PRIMARY KEY (node, owner)
);
CREATE INDEX secrets_by_key ON secrets (key, until);
CREATE TABLE operator_accounts (
    name TEXT COLLATE "C" PRIMARY KEY,
    balance TEXT COLLATE "C" NOT NULL
);
CREATE TABLE entries (
    position BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    account BIGINT NOT NULL,
    number BIGINT NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    amount BIGINT NOT NULL,
    balance_after BIGINT NOT NULL,
    bucket TEXT COLLATE "C",
    key BIGINT,
    route BIGINT,
    outcome TEXT COLLATE "C",
    requests BIGINT NOT NULL,
    reference TEXT COLLATE "C",
    actor TEXT COLLATE "C" NOT NULL,
    link BYTEA NOT NULL,
    node BIGINT NOT NULL
);
CREATE INDEX entries_by_node ON entries (node, position);
CREATE UNIQUE INDEX entries_by_account ON entries (account, number);
CREATE UNIQUE INDEX entries_once ON entries (account, kind, reference) WHERE reference IS NOT NULL;
CREATE TABLE journal (
    epoch BIGINT NOT NULL,
    usage_minutes_from BIGINT NOT NULL DEFAULT 0,
    usage_hours_from BIGINT NOT NULL DEFAULT 0,
    listed_since BIGINT
);
CREATE TABLE nodes (
    num BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    mark BIGINT, -- of the files of a journal that is not in this database
    folded BIGINT NOT NULL DEFAULT 0,
    usage_upto BIGINT NOT NULL DEFAULT 0,
    generation BIGINT NOT NULL DEFAULT 0 -- grows each time that a process starts to serve as it
);
-- When gateways were last seen, by the clock of the server. One that ended cleanly has none.
CREATE TABLE beats (
    node BIGINT PRIMARY KEY,
    seen BIGINT NOT NULL
);
-- What gateways have leased of the credits of accounts, and what they have spent of that.
CREATE TABLE leases (
    account BIGINT NOT NULL,
    node BIGINT NOT NULL,
    granted BIGINT NOT NULL,
    PRIMARY KEY (account, node)
);
CREATE INDEX leases_of_nodes ON leases (node);
CREATE TABLE spends (
    account BIGINT NOT NULL,
    node BIGINT NOT NULL,
    spent BIGINT NOT NULL,
    PRIMARY KEY (account, node)
);
-- Accounts of which a gateway needs more than is free.
CREATE TABLE calls (
    account BIGINT NOT NULL,
    node BIGINT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (account, node)
);
-- Changes of accounts, keys and tokens, which all gateways read.
CREATE TABLE changes (
    version BIGINT PRIMARY KEY,
    account TEXT COLLATE "C",
    key BIGINT,
    gone BYTEA NOT NULL
);
CREATE TABLE batches (
    node BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    records BYTEA NOT NULL,
    PRIMARY KEY (node, seq)
);
CREATE TABLE tokens (
    name TEXT COLLATE "C" PRIMARY KEY,
    hash BYTEA NOT NULL UNIQUE,
    role TEXT COLLATE "C" NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT,
    last_used BIGINT,
    revoked BIGINT
);
CREATE TABLE audit (
    number BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at BIGINT NOT NULL,
    actor TEXT COLLATE "C" NOT NULL,
    origin TEXT COLLATE "C" NOT NULL,
    action TEXT COLLATE "C" NOT NULL,
    object TEXT COLLATE "C" NOT NULL,
    before TEXT COLLATE "C",
    after TEXT COLLATE "C",
    account BIGINT
);
CREATE INDEX audit_by_object ON audit (object, number);
CREATE TABLE answers (
    id BYTEA PRIMARY KEY,
    request BYTEA NOT NULL,
    answer BYTEA NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX answers_by_time ON answers (at);
CREATE TABLE usage (
    account BIGINT NOT NULL,
    step BIGINT NOT NULL,
    at BIGINT NOT NULL,
    key BIGINT NOT NULL,
    route BIGINT NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL,
    requests BIGINT NOT NULL,
    credits BIGINT NOT NULL,
    bytes_in BIGINT NOT NULL,
    bytes_out BIGINT NOT NULL,
    durations BYTEA NOT NULL,
    PRIMARY KEY (account, step, at, key, route, outcome)
);
CREATE INDEX usage_by_time ON usage (step, at);
CREATE TABLE refusals (
    number BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    account BIGINT NOT NULL,
    at BIGINT NOT NULL,
    id BYTEA NOT NULL,
    key BIGINT NOT NULL,
    route BIGINT NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    limit_name TEXT COLLATE "C"
);
CREATE INDEX refusals_by_account ON refusals (account, number);
CREATE TABLE endpoints (
    num BIGINT PRIMARY KEY DEFAULT next_of_endpoints(),
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    account BIGINT NOT NULL,
    url TEXT COLLATE "C" NOT NULL,
    events TEXT COLLATE "C",
    source TEXT COLLATE "C" NOT NULL,
    secret TEXT COLLATE "C" NOT NULL,
    old_secret TEXT COLLATE "C",
    old_until BIGINT,
    disabled TEXT COLLATE "C",
    created BIGINT NOT NULL,
    UNIQUE (account, url)
);
CREATE TABLE messages (
    num BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    account BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    body TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    id TEXT COLLATE "C"
);
CREATE TABLE deliveries (
    num BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    message BIGINT NOT NULL REFERENCES messages (num),
    endpoint BIGINT NOT NULL REFERENCES endpoints (num) ON DELETE CASCADE,
    attempts BIGINT NOT NULL DEFAULT 0,
    next_at BIGINT,
    status BIGINT,
    error TEXT COLLATE "C",
    delivered BIGINT
);
CREATE INDEX deliveries_due ON deliveries (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_by_endpoint ON deliveries (endpoint, num);
CREATE INDEX deliveries_by_message ON deliveries (message);
CREATE TABLE notices (
    kind TEXT COLLATE "C" NOT NULL,
    object TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (kind, object)
);
CREATE INDEX keys_expiring ON keys (expires) WHERE expires IS NOT NULL;
CREATE INDEX deliveries_waiting ON deliveries (endpoint, next_at) WHERE next_at IS NOT NULL;
CREATE TABLE users (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    email TEXT COLLATE "C" NOT NULL UNIQUE,
    name TEXT COLLATE "C" NOT NULL,
    password TEXT COLLATE "C",
    operator TEXT COLLATE "C",
    verified BIGINT,
    otp_secret BYTEA,
    otp_step BIGINT NOT NULL DEFAULT 0,
    recovery TEXT COLLATE "C",
    disabled BIGINT NOT NULL DEFAULT 0,
    created BIGINT NOT NULL,
    last_sign_in BIGINT
);
CREATE TABLE members (
    account BIGINT NOT NULL REFERENCES accounts (num),
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role TEXT COLLATE "C" NOT NULL,
    since BIGINT NOT NULL,
    PRIMARY KEY (account, user_id)
);
CREATE INDEX members_by_user ON members (user_id);
CREATE TABLE sessions (
    hash BYTEA NOT NULL PRIMARY KEY,
    user_id TEXT COLLATE "C" REFERENCES users (id) ON DELETE CASCADE,
    account BIGINT,
    role TEXT COLLATE "C",
    person TEXT COLLATE "C",
    created BIGINT NOT NULL,
    seen BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    origin TEXT COLLATE "C" NOT NULL,
    agent TEXT COLLATE "C" NOT NULL
);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires);
CREATE INDEX sessions_by_use ON sessions (seen);
CREATE TABLE links (
    hash BYTEA NOT NULL PRIMARY KEY,
    purpose TEXT COLLATE "C" NOT NULL,
    email TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" REFERENCES users (id) ON DELETE CASCADE,
    account BIGINT,
    role TEXT COLLATE "C",
    by TEXT COLLATE "C" NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL
);
CREATE INDEX links_by_account ON links (account);
CREATE INDEX links_by_user ON links (user_id);
CREATE INDEX links_by_email ON links (email);
CREATE INDEX links_by_expiry ON links (expires);
CREATE TABLE awaiting_approval (
    account BIGINT NOT NULL PRIMARY KEY REFERENCES accounts (num)
);
CREATE TABLE renewals (
    account BIGINT NOT NULL PRIMARY KEY REFERENCES accounts (num),
    below BIGINT,
    top_up BIGINT,
    asked BIGINT NOT NULL DEFAULT 0,
    renew BIGINT,
    every BIGINT,
    renew_at BIGINT,
    number BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX renewals_by_time ON renewals (renew_at) WHERE renew_at IS NOT NULL;
CREATE INDEX audit_by_account ON audit (account, number) WHERE account IS NOT NULL;
CREATE TABLE jobs (
    number BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    id BYTEA NOT NULL,
    account BIGINT NOT NULL,
    key BIGINT NOT NULL,
    route BIGINT NOT NULL,
    external_id TEXT COLLATE "C" NOT NULL,
    amount BIGINT NOT NULL,
    charge BIGINT NOT NULL,
    opened BIGINT NOT NULL,
    settled BIGINT NOT NULL
);
CREATE INDEX jobs_by_id ON jobs (external_id);
CREATE INDEX jobs_by_account ON jobs (account, number);
CREATE INDEX jobs_by_time ON jobs (settled);
CREATE INDEX open_jobs_by_account ON open_holds (account) WHERE external_id IS NOT NULL;
CREATE INDEX open_jobs_by_id ON open_holds (external_id) WHERE external_id IS NOT NULL;
CREATE TABLE buckets (
    name TEXT COLLATE "C" PRIMARY KEY,
    priority BIGINT NOT NULL
);
CREATE TABLE lots (
    id BIGINT PRIMARY KEY DEFAULT next_of_lots(),
    account BIGINT NOT NULL,
    bucket TEXT COLLATE "C" NOT NULL,
    rest BIGINT NOT NULL CHECK (rest > 0),
    expires BIGINT,
    ended BIGINT,
    refill BIGINT NOT NULL CHECK (refill IN (0, 1))
);
CREATE INDEX lots_by_account ON lots (account);
CREATE INDEX lots_by_expiry ON lots (expires, id) WHERE ended IS NULL;
CREATE INDEX ended_lots ON lots (account, ended) WHERE ended IS NOT NULL;
CREATE INDEX keys_by_spend_period ON keys (spend_every, spend_period) WHERE spend_every IS NOT NULL;
CREATE INDEX accounts_by_spend_period ON accounts (spend_every, spend_period) WHERE spend_every IS NOT NULL;
CREATE TABLE refills (
    account BIGINT PRIMARY KEY,
    plan TEXT COLLATE "C" NOT NULL,
    due BIGINT,
    refilled BIGINT,
    absent BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX refills_by_due ON refills (due, account) WHERE due IS NOT NULL;
CREATE INDEX refills_by_plan ON refills (plan);
CREATE TABLE plan_refills (
    plan TEXT COLLATE "C" PRIMARY KEY,
    text TEXT COLLATE "C" NOT NULL
);
CREATE TABLE repeats (
    id BYTEA PRIMARY KEY,
    request BYTEA NOT NULL,
    hold BYTEA NOT NULL,
    until BIGINT NOT NULL,
    answer BYTEA
);
CREATE INDEX repeats_by_time ON repeats (until);
CREATE INDEX unanswered_repeats ON repeats (until DESC, id) WHERE answer IS NULL;
CREATE TABLE requests (
    id BYTEA PRIMARY KEY,
    account BIGINT NOT NULL,
    key BIGINT NOT NULL,
    route BIGINT NOT NULL,
    charge BIGINT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX requests_by_time ON requests (at, id);
CREATE TABLE spend_groups (
    num BIGINT PRIMARY KEY DEFAULT next_of_spend_groups(),
    account BIGINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    spend_limit BIGINT,
    spent BIGINT NOT NULL DEFAULT 0,
    spend_every TEXT COLLATE "C",
    spent_before BIGINT NOT NULL DEFAULT 0,
    spend_period BIGINT,
    UNIQUE (account, name)
);
CREATE INDEX spend_groups_by_period ON spend_groups (spend_every, spend_period) WHERE spend_every IS NOT NULL;
CREATE INDEX keys_by_spend_group ON keys (spend_group) WHERE spend_group IS NOT NULL;
CREATE TABLE payments (
    id TEXT COLLATE "C" PRIMARY KEY,
    account BIGINT,
    package TEXT COLLATE "C",
    credits BIGINT,
    price BIGINT,
    currency TEXT COLLATE "C",
    granted BIGINT,
    bucket TEXT COLLATE "C",
    expires BIGINT,
    reversals TEXT COLLATE "C" NOT NULL,
    taken BIGINT NOT NULL,
    missing BIGINT NOT NULL,
    steps BIGINT NOT NULL,
    told BIGINT NOT NULL
);
CREATE INDEX payments_by_account ON payments (account, told);
CREATE INDEX payments_missing ON payments (told) WHERE missing > 0;
CREATE TABLE seller (
    id TEXT COLLATE "C" NOT NULL
);
CREATE TABLE payers (
    account BIGINT PRIMARY KEY,
    payer TEXT COLLATE "C" NOT NULL,
    below BIGINT,
    is_begun BIGINT NOT NULL,
    wait BIGINT NOT NULL
);
CREATE INDEX payers_topped_up ON payers (wait) WHERE below IS NOT NULL OR is_begun = 1;

CREATE FUNCTION audit_is_only_appended() RETURNS TRIGGER LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'audit entries are only appended'; END $$;
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE OR UPDATE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_only_appended();

INSERT INTO operator_accounts VALUES ('granted', '0'), ('adjusted', '0'), ('earned', '0'), ('expired', '0');
INSERT INTO journal (epoch) VALUES (0);
INSERT INTO seller VALUES (substr(md5(random()::text), 1, 16));
