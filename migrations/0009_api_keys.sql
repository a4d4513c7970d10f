-- API keys: who may come in without a token of an identity provider.

create table incident_manager.api_key (
  id uuid constraint api_key_pkey primary key default gen_random_uuid(),
  name text not null
    constraint api_key_name_length check (length(name) between 1 and 180),
  -- the part of the key that finds it; nothing of it is secret
  prefix text not null
    constraint api_key_prefix_unique unique
    constraint api_key_prefix_form check (prefix ~ '^im_[0-9a-f]{12}$'),
  -- SHA-256 of the whole key. Of 256 random bits nobody finds the key by trying, so it needs neither salt nor a slow hash.
  hash bytea not null
    constraint api_key_hash_length check (octet_length(hash) = 32),
  -- names that a release does not know permit nothing in it
  permissions text[] not null
    constraint api_key_permissions_size check
      (cardinality(permissions) between 1 and 100 and array_ndims(permissions) = 1
       and array_position(permissions, null) is null),
  -- null: no limit
  sources text[]
    constraint api_key_sources_size check (sources is null or sources = '{}' or
      (octet_length(array_to_json(sources)::text) <= 16384 and array_ndims(sources) = 1
       and array_position(sources, null) is null)),
  created_by text not null default incident_manager.current_actor(),
  created_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz,
  revoked_at timestamptz,
  revoked_by text,
  -- written now and then: at most a minute or so behind
  last_used_at timestamptz
);
comment on table incident_manager.api_key is
  'Who may come in by an API key, and what for. A key is good until it is revoked or has expired; nothing else of it changes.';
