-- The register: who owns, maintains and supervises what. Every link between things is dated [valid_from, valid_to):
-- yesterday's alarm keeps yesterday's owner. `id` is the name in files and topics; `…_id` the surrogate key.
CREATE SCHEMA register;

CREATE TABLE register.area (
    area_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id        text NOT NULL UNIQUE,
    parent_id bigint REFERENCES register.area,
    level     text NOT NULL CHECK (level IN ('city', 'district', 'street', 'village', 'grid')),
    name_zh   text NOT NULL,
    name_en   text NOT NULL,
    boundary  jsonb                                   -- GeoJSON geometry, WGS 84
);

CREATE TABLE register.organisation (
    organisation_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          text NOT NULL UNIQUE,
    credit_code text,
    name_zh     text NOT NULL,
    name_en     text NOT NULL,
    size        text,
    industry    text,
    place_type  text,
    area_id     bigint REFERENCES register.area,
    address     text NOT NULL DEFAULT '',
    phone       text NOT NULL DEFAULT ''
);

CREATE TABLE register.organisation_kind (
    organisation_id bigint NOT NULL REFERENCES register.organisation,
    kind            text NOT NULL CHECK (kind IN ('use_unit', 'maintainer', 'manufacturer', 'filler', 'inspection_body',
                                                  'regulator', 'supervision_office', 'street_government')),
    PRIMARY KEY (organisation_id, kind)
);

CREATE TABLE register.equipment (
    equipment_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id                   text NOT NULL UNIQUE,
    class                text NOT NULL,
    class_name_zh        text NOT NULL,
    class_name_en        text NOT NULL,
    profile              text NOT NULL,
    profile_version      int  NOT NULL,
    edge                 text NOT NULL,               -- the one edge that owns it
    name_zh              text NOT NULL,
    name_en              text NOT NULL,
    registration_code    text CHECK (registration_code ~ '^\d{20}$'),
    manufacturer_code    text,
    serial               text,
    use_certificate      text,
    public_code          text,
    model                text NOT NULL DEFAULT '',
    rated                jsonb NOT NULL DEFAULT '{}',
    made_on              date,
    installed_on         date,
    address              text NOT NULL DEFAULT '',    -- street address, for people
    latitude             float8,
    longitude            float8,
    monitoring_fitted_on date,
    first_seen           timestamptz NOT NULL DEFAULT now(),
    retired_at           timestamptz                  -- gone from its edge's registry; never deleted
);

CREATE TABLE register.equipment_party (
    equipment_id    bigint NOT NULL REFERENCES register.equipment,
    organisation_id bigint NOT NULL REFERENCES register.organisation,
    role            text NOT NULL CHECK (role IN ('owner', 'user', 'maintainer')),
    valid_from      timestamptz NOT NULL,
    valid_to        timestamptz,
    CHECK (valid_to IS NULL OR valid_to >= valid_from)
);
CREATE UNIQUE INDEX ON register.equipment_party (equipment_id, role) WHERE valid_to IS NULL;

CREATE TABLE register.equipment_area (
    equipment_id bigint NOT NULL REFERENCES register.equipment,
    area_id      bigint NOT NULL REFERENCES register.area,
    valid_from   timestamptz NOT NULL,
    valid_to     timestamptz,
    CHECK (valid_to IS NULL OR valid_to >= valid_from)
);
CREATE UNIQUE INDEX ON register.equipment_area (equipment_id) WHERE valid_to IS NULL;

CREATE TABLE register.equipment_status (
    equipment_id bigint NOT NULL REFERENCES register.equipment,
    status       text NOT NULL CHECK (status IN ('in_use', 'stopped_by_order', 'unregistered', 'inspection_overdue',
                                                 'scrapped')),
    valid_from   timestamptz NOT NULL,
    valid_to     timestamptz,
    document     text,
    CHECK (valid_to IS NULL OR valid_to >= valid_from)
);
CREATE UNIQUE INDEX ON register.equipment_status (equipment_id) WHERE valid_to IS NULL;

CREATE TABLE register.person (
    person_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name      text NOT NULL,
    phone     text NOT NULL DEFAULT '',
    login     text UNIQUE
);

CREATE TABLE register.appointment (
    person_id       bigint NOT NULL REFERENCES register.person,
    organisation_id bigint REFERENCES register.organisation,
    area_id         bigint REFERENCES register.area,
    role            text NOT NULL,
    valid_from      timestamptz NOT NULL,
    valid_to        timestamptz,
    CHECK (valid_to IS NULL OR valid_to >= valid_from)
);

CREATE TABLE register.audit (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    actor    text NOT NULL,
    action   text NOT NULL,
    subject  text NOT NULL,
    before   jsonb,
    after    jsonb
);
